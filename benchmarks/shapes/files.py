"""The shapes dataset on disk, for detection, segmentation and classification."""
import json
from pathlib import Path
from typing import Dict, List, Tuple, Union

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from benchmarks.generating import generate, write_image

from .scenes import CLASSES, Instance, Scene, draw_scene

# Seeds do not overlap: no validation image is used in training.
FIRST_SEED = dict(train=0, val=1_000_000)
VERSION = 3  # raise it with every change of the drawings


def make_shapes(root: Union[str, Path], train: int = 1200, val: int = 120) -> Path:
    """Generate the shapes dataset, unless it is complete.

    Images are PNG files of 160 x 160 pixels in ``train/`` and ``val/``. The files are the same,
    byte for byte, on every machine:

    - ``annotations/instances_{train,val}.json``, in COCO's format, with boxes, polygons and, for
      crowds, run-length masks;
    - ``labels/{train,val}/``, label maps (:func:`label_map`);
    - ``crops/{train,val}/CLASS/``, the square around each shape that is not a crowd.

    Args:
        root: Folder of the dataset, such as ``data/shapes``.
        train: Number of images for training. Default 1200.
        val: Number of images for validation. Default 120.

    Returns:
        The folder.

    Raises:
        FileExistsError: For a folder with other files; nothing in it is changed.
    """
    counts = dict(train=train, val=val)

    def write(folder: Path) -> None:
        for split, count in counts.items():
            _write_split(folder, split, count)
    return generate(root, dict(kind='shapes', version=VERSION, images=counts), write)


def coco_annotation(instance: Instance) -> Dict:
    """Annotation of an instance in COCO's format, in pixels."""
    mask = instance.mask
    return dict(category_id=instance.label + 1, iscrowd=int(instance.is_crowd),
                bbox=list(_box(mask)), area=int(mask.sum()),
                segmentation=_run_lengths(mask) if instance.is_crowd else _polygons(mask))


def label_map(scene: Scene) -> np.ndarray:
    """Label map, (H, W) uint8: 0 for ground, else 1 + label."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for instance in scene.instances:
        labels[instance.mask] = 1 + instance.label
    return labels


def crop(scene: Scene, instance: Instance, margin: float = 0.15) -> np.ndarray:
    """The square around an instance, cut at the image's edges.

    Args:
        scene: The scene.
        instance: One of its instances.
        margin: Margin on each side, relative to the longer side of its box. Default 0.15.
    """
    x, y, w, h = _box(instance.mask)
    half = max(w, h) * (0.5 + margin)
    left, top = max(int(x + w / 2 - half), 0), max(int(y + h / 2 - half), 0)
    return scene.image[top:int(y + h / 2 + half) + 1, left:int(x + w / 2 + half) + 1]


def _write_split(root: Path, split: str, count: int) -> None:
    images: List[Dict] = []
    annotations: List[Dict] = []
    for image_id in track(range(1, count + 1), description=f'{split:>5}', transient=True):
        scene = draw_scene(FIRST_SEED[split] + image_id)
        name = f'{image_id:06d}.png'
        write_image(root / split / name, scene.image)
        write_image(root / 'labels' / split / name, label_map(scene))
        height, width = scene.image.shape[:2]
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        for instance in scene.instances:
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id,
                                    **coco_annotation(instance)))
            if not instance.is_crowd:
                write_image(root / 'crops' / split / CLASSES[instance.label]
                            / f'{len(annotations):06d}.png', crop(scene, instance))
    file = root / 'annotations' / f'instances_{split}.json'
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(dict(
        info=dict(description=f'fastervit_mm shapes, {split}'), images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name, supercategory='shape')
                    for i, name in enumerate(CLASSES)])))


def _box(mask: np.ndarray) -> Tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    left, top = int(xs.min()), int(ys.min())
    return left, top, int(xs.max()) - left + 1, int(ys.max()) - top + 1


def _polygons(mask: np.ndarray) -> List[List[float]]:
    # OpenCV's contours run through the centres of border pixels, half a pixel inside the edge; in a
    # mask of eight times the size, a sixteenth. Holes are filled, as in COCO's own polygons.
    scale = 8
    left, top, width, height = _box(mask)
    cut = mask[top:top + height, left:left + width].astype(np.uint8)
    fine = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((c.reshape(-1, 2) + 0.5) / scale + (left, top)).round(2).reshape(-1).tolist()
            for c in contours]


def _run_lengths(mask: np.ndarray) -> Dict:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())
