"""Drawings of what a pipeline feeds the network."""
import copy
import logging
import os
from pathlib import Path
from typing import List, Optional, Union

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement, PixelData
from mmengine.visualization import Visualizer
from rich.progress import track
from torch import Tensor

from ..engine.checks import check_config
from ..engine.console import quiet_libraries
from ..engine.results import build_visualizer, result_names
from ..models import dataset_configs, image_folders, type_name
from ..pipelines import viewed
from .contact_sheet import contact_sheet

SPLITS = ('train', 'val', 'test')
_ON_SHEET = 12  # more would be too small to see


def browse(cfg: Config, out_dir: Union[str, Path, None], split: str = 'train',
           number: Optional[int] = 20, show: bool = False, wait_time: float = 2) -> List[Path]:
    """Draw images with ground truth as they leave a pipeline.

    Args:
        cfg: A config of mmdet or mmseg, from :func:`~fastervit_mm.engine.launch.load_config`.
        out_dir: Folder for one PNG an image and a contact sheet of the first 12; None for no files.
        split: ``'train'``, ``'val'`` or ``'test'``. Default ``'train'``.
        number: Number of images, from the first; None for all. Default 20.
        show: Show each in a window. Default False.
        wait_time: Seconds between two figures of ``show``; 0 waits for a key. Default 2.

    Returns:
        The files written, the contact sheet last.

    Raises:
        ConfigError: If files of the dataset are missing.
        ValueError: For another wrong argument, or a config that cannot be drawn.
    """
    _check(cfg, split, number, out_dir)
    init_default_scope(cfg.default_scope)
    place = f'{split}_dataloader'
    with quiet_libraries():
        dataset = DATASETS.build(cfg[place].dataset)
    visualizer = build_visualizer(cfg, dataset.metainfo, scale=1)  # at the network's own size
    late = annotated_late(cfg, place)
    pictures, how = [], ''
    total = len(dataset) if number is None else min(number, len(dataset))
    paths = [dataset.get_data_info(index)['img_path'] for index in range(total)]
    names = dict(zip(paths, result_names(paths, image_folders(cfg, place))))
    deep = 'as 0 to 255' in viewed(cfg, paths[0], place)[1]
    for index in track(range(total), description=f'Drawing {split}', transient=True):
        item = dataset[index]
        sample = item['data_samples']
        picture, how = viewed(cfg, _pixels(item['inputs'], deep), place)
        picture = draw(picture[..., ::-1], sample, visualizer, late)
        path = sample.get('img_path', paths[index])  # a pipeline may replace an image by another
        folder, stem = os.path.split(names.get(path, Path(path).stem))
        name = os.path.join(folder, f'{index:05d}_{stem}')  # images may repeat
        if show:
            visualizer.show(picture, win_name=name, wait_time=wait_time)
        if out_dir is not None:
            pictures.append(Path(out_dir) / f'{name}.png')
            mmcv.imwrite(mmcv.rgb2bgr(picture), str(pictures[-1]))
    if how:
        print_log(f'Figures show {how}', 'current', logging.WARNING)
    if out_dir is None:
        return []
    sheet = Path(out_dir) / 'contact_sheet.png'
    contact_sheet(pictures[:_ON_SHEET], sheet, f'{Path(cfg.filename).stem}, {split}: what the '
                  f'network is fed ({min(total, _ON_SHEET)} of {len(dataset)})'
                  + (f'; {how}' if how else ''), columns=min(4, total))
    return [*pictures, sheet]


def _pixels(inputs: Tensor, deep: bool) -> np.ndarray:
    """Pixels of a packed image, (H, W, C); 8 bits unless deep."""
    pixels = inputs.permute(1, 2, 0).numpy()
    return pixels if deep else pixels.clip(0, 255).astype(np.uint8)


def draw(image: np.ndarray, sample: BaseDataElement, visualizer: Visualizer,
         rescale: bool = False) -> np.ndarray:
    """Draw an image's ground truth, (H, W, 3) uint8 RGB.

    Args:
        image: (H, W, 3) uint8 RGB, as the network gets it.
        sample: Data sample of mmdet or mmseg, with or without ground truth.
        visualizer: A visualizer with the dataset's ``dataset_meta``.
        rescale: Whether the ground truth has the original image's size, as in test pipelines, and
            has to be scaled. Default False.
    """
    image = np.ascontiguousarray(image)
    sample = copy.copy(sample)
    boxes = sample.get('gt_instances')
    if boxes is not None and hasattr(boxes.get('bboxes'), 'tensor'):
        # Corners, whatever mmdet's box type; its visualizer measures them as a tensor.
        instances = copy.copy(boxes)
        corners = boxes.bboxes.convert_to('hbox')
        if rescale:
            corners = corners.clone()
            corners.rescale_(sample.scale_factor)
            if 'masks' in boxes:
                instances.masks = boxes.masks.resize(image.shape[:2])
        instances.bboxes = corners.tensor
        sample.gt_instances = instances
    if boxes is None and 'gt_sem_seg' not in sample:
        return image
    if boxes is None and sample.gt_sem_seg.shape != image.shape[:2]:
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(mmcv.imresize(
            sample.gt_sem_seg.data[0].numpy().astype(np.uint8), image.shape[1::-1],
            interpolation='nearest'))[None])
    visualizer.add_datasample('', image, sample, draw_gt=True, draw_pred=False)
    drawn = visualizer.get_image()
    return drawn if boxes is not None else _clear(drawn, image, sample, visualizer)


def annotated_late(cfg: Config, loader: str) -> bool:
    """Whether annotations are loaded after the last resize.

    Raises:
        ValueError: For joined datasets that differ in this.
    """
    found = set()
    for _, dataset in dataset_configs(cfg, loader):
        steps = [type_name(step) for step in dataset.get('pipeline') or []]
        resizes = [i for i, step in enumerate(steps) if 'Resize' in step]
        loads = [i for i, step in enumerate(steps)
                 if step.startswith('Load') and 'Annotations' in step]
        found.add(bool(resizes and loads) and loads[0] > resizes[-1])
    if len(found) > 1:
        raise ValueError(f'{loader}: one of its datasets loads annotations before resizing and '
                         'another after; draw them one at a time')
    return found.pop()


def _clear(drawn: np.ndarray, image: np.ndarray, sample: BaseDataElement,
           visualizer: Visualizer) -> np.ndarray:
    """Restore pixels without a class, which mmseg's visualizer darkens."""
    labels = sample.gt_sem_seg.data[0].numpy()
    shape = drawn.shape[:2]
    ignored = mmcv.imresize((labels >= len(visualizer.dataset_meta['classes'])).astype(np.uint8),
                            shape[::-1], interpolation='nearest').astype(bool)
    drawn[ignored] = mmcv.imresize(image, shape[::-1])[ignored]
    return drawn


def _check(cfg: Config, split: str, number: Optional[int], out_dir: Union[str, Path, None]
           ) -> None:
    """Check the arguments, and the data as before training."""
    if split not in SPLITS:
        raise ValueError(f'split={split!r}: give one of {", ".join(SPLITS)}')
    if number is not None and number < 1:
        raise ValueError(f'number={number}: give at least 1')
    if cfg.get(f'{split}_dataloader') is None:
        raise ValueError(f'split={split!r}: the config has no {split}_dataloader')
    if cfg.get('visualizer') is None or cfg.get('default_scope') not in ('mmdet', 'mmseg'):
        raise ValueError(f'config: default_scope={cfg.get("default_scope")!r}; give a config of '
                         'mmdet or mmseg with a visualizer')
    check_config(Config(dict(
        default_scope=cfg.default_scope, model=dict(),
        work_dir=None if out_dir is None else str(out_dir),
        **{f'{split}_dataloader': cfg[f'{split}_dataloader'], f'{split}_evaluator': dict(),
           f'{split}_cfg': dict()}), filename=cfg.filename),
        training=False, split=split)
