"""Results for images: names, overlays, label maps and segments."""
import copy
import os
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Union

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS, init_default_scope
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from PIL import Image

from .enlarging import drawn_text, readable

_numbers = count()


def result_names(paths: Sequence[str], roots: Sequence[str] = ()) -> List[str]:
    """Name images' results by their paths below the common folder.

    Suffixes are dropped, except of files that would have the same name, such as ``x.jpg`` and
    ``x.png``.

    Args:
        paths: Paths of the images, all different.
        roots: Folders that names never include.
    """
    paths = [os.path.abspath(path) for path in paths]
    folders = [*map(os.path.abspath, roots), *map(os.path.dirname, paths)]
    full = [os.path.relpath(path, os.path.commonpath(folders)) for path in paths]
    stems = [os.path.splitext(name)[0] for name in full]
    taken = Counter([*stems, *full])
    return [stem if taken[stem] == 1 else name for stem, name in zip(stems, full)]


def drawable(meta: Mapping[str, Any]) -> dict:
    """Complete classes and palette, at random if too short."""
    classes, palette = meta.get('classes'), meta.get('palette')
    if classes is None:
        return dict(meta)
    classes = (classes, ) if isinstance(classes, str) else tuple(map(str, classes))
    if not isinstance(palette, str):
        if palette is None or len(palette) < len(classes):
            palette = np.random.RandomState(0).randint(0, 256, (len(classes), 3)).tolist()
        palette = list(map(tuple, palette))  # mmdet takes a tuple for one colour
    return {**meta, 'classes': classes, 'palette': palette}


def build_visualizer(cfg: Config, meta: Mapping[str, Any], **settings: Any) -> Visualizer:
    """Build a config's visualizer, readable and without back-ends.

    Args:
        cfg: A config of mmdet, mmseg or mmpretrain.
        meta: Classes and palette.
        **settings: As in :func:`~fastervit_mm.engine.enlarging.readable`.

    Raises:
        ValueError: For a config without a visualizer.
    """
    if not cfg.get('visualizer'):
        raise ValueError('config: has no visualizer; add the one in the default_runtime base of '
                         'mmdet, mmseg or mmpretrain')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    # mmengine keeps visualizers by name.
    visualizer = VISUALIZERS.build(readable({
        **copy.deepcopy(cfg.visualizer), 'vis_backends': None, 'save_dir': None,
        'name': f'results{next(_numbers)}'}, **settings))
    visualizer.dataset_meta = drawable(meta)
    return visualizer


def draw(visualizer: Visualizer, picture: np.ndarray, sample: BaseDataElement,
         draw_gt: bool = False, **options: Any) -> np.ndarray:
    """Draw a data sample on its image.

    Args:
        visualizer: From :func:`build_visualizer`.
        picture: (H, W, 3) uint8 RGB.
        sample: Of mmdet, mmseg or mmpretrain.
        draw_gt: Draw ground truth too. Default False.
        **options: Others of the visualizer's ``add_datasample`` or ``visualize_cls``.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    sample, name = sample.cpu(), options.pop('name', '')
    picture = np.ascontiguousarray(picture)
    if hasattr(visualizer, 'visualize_cls'):
        names = [drawn_text(name) for name in visualizer.dataset_meta.get('classes') or ()]
        return visualizer.visualize_cls(picture, sample, names or None, draw_gt=draw_gt, name=name,
                                        **options)
    visualizer.add_datasample(name, picture, sample, draw_gt=draw_gt, **options)
    return visualizer.get_image()


def write_label_map(path: Union[str, Path], labels: np.ndarray, offset: int = 0) -> str:
    """Write labels, (H, W), plus ``offset``, as a PNG."""
    labels = labels.astype(np.int64) + offset
    return _write_png(path, labels.astype(np.uint8 if labels.max() < 256 else np.uint16))


def segments_of(sample: BaseDataElement, num_classes: int) -> Tuple[np.ndarray, List[Dict]]:
    """List the segments that a panoptic network predicts.

    Args:
        sample: With ``pred_panoptic_seg`` as mmdet's networks give it.
        num_classes: Number of things and stuff together; other labels are not segments.

    Returns:
        The number of each pixel's segment, (H, W), 0 for none; and of each segment ``id`` (from 1),
        ``label``, ``area`` in pixels and ``bbox`` as (x, y, width, height).
    """
    from mmdet.evaluation import INSTANCE_OFFSET
    found = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
    numbers, segments = np.zeros(found.shape, np.int32), []
    for value in np.unique(found):
        if (label := int(value) % INSTANCE_OFFSET) < num_classes:
            mask = found == value
            numbers[mask] = len(segments) + 1
            segments.append(dict(id=len(segments) + 1, label=label, area=int(mask.sum()),
                                 bbox=list(cv2.boundingRect(mask.astype(np.uint8)))))
    return numbers, segments


def write_segments(path: Union[str, Path], numbers: np.ndarray) -> str:
    """Write segment ids, (H, W), as COCO's panoptic PNG."""
    return _write_png(path, np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], -1
                                     ).astype(np.uint8))


def read_segments(path: Union[str, Path]) -> np.ndarray:
    """Read a PNG of :func:`write_segments`, (H, W)."""
    return np.asarray(Image.open(path)).astype(np.int32) @ (1, 256, 65536)


def _write_png(path: Union[str, Path], pixels: np.ndarray) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)
