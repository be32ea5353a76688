"""Metadata of an exported file."""
import json
import os
from typing import Any, Dict, List, Optional, Sequence

from mmengine.config import Config
from torch import nn

from ..datasets.class_order import category_ids
from ..models import annotation_file, dataset_configs, label_offset, type_name
from ..version import __version__
from ..weights.dino import COCO_IDS
from .parts import Exportable
from .pictures import preprocessing

_RESIZES = ('Resize', 'ResizeEdge')


def metadata(model: nn.Module, network: Exportable, part: str, deploy: bool,
             cfg: Optional[Config] = None) -> Dict[str, str]:
    """Metadata that a program needs to run a file.

    ``producer``, ``part``, ``input``, ``channel_order`` (the network's), ``deployed`` and, of a
    whole network, ``task`` are words; all others are JSON.

    Args:
        model: The network.
        network: The part of it that is exported.
        part: The part's name.
        deploy: Whether the backbone was folded.
        cfg: The model's config, for ``resize``, ``ignore_orientation``,
            ``category_ids`` and ``label_offset``.
    """
    settings, steps = preprocessing(model), test_steps(cfg)
    classes = list(map(str, getattr(model, 'dataset_meta', {}).get('classes') or ()))
    facts: Dict[str, Any] = dict(
        outputs=network.names, mean=settings.mean, std=settings.std, classes=classes,
        smallest=network.smallest, resize=resizing(steps))
    if any('ignore_orientation' in step.get('color_type', '') for step in steps):
        facts['ignore_orientation'] = True
    if network.input == 'normalized':
        facts['pad_divisor'] = settings.divisor
    heads = network.heads
    if heads is not None and heads.task == 'detection':
        facts.update(score_threshold=heads.test_cfg.get('score_thr', 0.),
                     max_detections=heads.test_cfg.max_per_img)
        if 'masks' in heads.names:
            facts['mask_threshold'] = heads.test_cfg.mask_thr_binary
        if ids := _category_ids(cfg, classes):
            facts['category_ids'] = ids
    elif heads is not None and heads.task == 'segmentation':
        facts['label_offset'] = label_offset(cfg or Config())
    words = dict(
        producer=f'fastervit_mm {__version__}', part=part, input=network.input,
        channel_order='RGB' if settings.rgb else 'BGR', deployed=str(deploy))
    if heads is not None:
        words['task'] = heads.task
    return {**words, **{name: json.dumps(fact) for name, fact in facts.items()}}


def test_steps(cfg: Optional[Config]) -> Sequence[Dict[str, Any]]:
    """Steps of the test pipeline."""
    _, dataset = next(dataset_configs(cfg or Config(), 'test_dataloader'), ('', {}))
    return dataset.get('pipeline') or []


def resizing(steps: Sequence[Dict[str, Any]]) -> Optional[Dict[str, Any]]:
    """Settings of a pipeline's resizing and centre crop."""
    found: Dict[str, Any] = {}
    for step in steps:
        if type_name(step) in _RESIZES:
            found.update({key: value for key, value in step.items() if key != 'type'})
            if type_name(step) == 'ResizeEdge':
                found.setdefault('edge', 'short')
        elif type_name(step) == 'CenterCrop':
            found['crop_size'] = step['crop_size']
    return found or None


def _category_ids(cfg: Optional[Config], classes: Sequence[str]) -> List[int]:
    """Ids of the classes in the test annotation file, else in COCO."""
    from mmdet.datasets import CocoDataset
    for _, dataset in dataset_configs(cfg or Config(), 'test_dataloader'):
        file = annotation_file(dataset)
        if file.endswith('.json') and os.path.isfile(file):
            return category_ids(file, classes)
    return list(COCO_IDS) if tuple(classes) == CocoDataset.METAINFO['classes'] else []
