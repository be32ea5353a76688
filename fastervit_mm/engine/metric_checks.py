"""Checks of evaluators: annotation files, and names of metrics."""
import difflib
import json
import mmap
import os
import re
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS

from ..datasets.class_order import numbered_by_file
from ..models import annotation_file, class_of, dataset_configs, type_name
from .settings import metric_configs

_COCO = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_IOU = dict(mIoU=('mIoU', 'mAcc'), mDice=('mDice', 'mAcc'),
            mFscore=('mFscore', 'mPrecision', 'mRecall'))


def wrong_metrics(cfg: Config, loader: str, training: bool) -> Iterator[str]:
    """Find evaluators that would fail after the last image.

    Args:
        cfg: A config.
        loader: Name of the data loader whose evaluator will be used.
        training: Whether the config will be trained.
    """
    data = list(dataset_configs(cfg, loader))
    for place, metric, file in coco_metrics(cfg, loader.replace('dataloader', 'evaluator')):
        if metric.get('format_only'):
            continue
        masks = 'segm' in metric.get('metric', ())
        if masks and not _predicts_masks(cfg):
            yield (f'{place}.metric={metric["metric"]!r}: segm scores masks, which this model does '
                   f'not predict. Set {place}.metric=\'bbox\'')
            masks = False
        if file is None:
            if type_name(metric) == 'CocoMetric' and any(
                    _without_truth(dataset) for _, dataset in data):
                yield (f'{place}: has no ann_file, and the images come without their annotations. '
                       f'Set {place}.ann_file to the annotation file that {loader} reads; for data '
                       "without one add 'instances' to the meta_keys of its PackDetInputs")
        elif os.path.isfile(file):
            yield from _unscorable(place, file, masks)
            if len(data) == 1:
                yield from _other_images(place, file, *data[0], cfg)
    if training and loader == 'val_dataloader':
        yield from _unknown_names(cfg)


def coco_metrics(cfg: Config, name: str) -> Iterator[Tuple[str, Dict, Optional[str]]]:
    """List an evaluator's COCO metrics.

    Args:
        cfg: A config.
        name: Such as ``'val_evaluator'``.

    Yields:
        Its dotted name in the config, its settings and its annotation file.
    """
    for place, metric in metric_configs(cfg, name):
        kind = class_of(metric, cfg, METRICS)
        if {'CocoMetric', 'CocoPanopticMetric'} & {c.__name__ for c in getattr(kind, '__mro__', ())
                                                   }:
            yield place, metric, metric.get('ann_file')


def missing_file(cfg: Config, name: str) -> Iterator[str]:
    """Find missing annotation files of an evaluator, such as ``'val_evaluator'``."""
    for place, metric in metric_configs(cfg, name):
        path = metric.get('ann_file')
        if path and '://' not in path and not os.path.isfile(path):
            yield (f'{place}.ann_file={path!r}: no such file ({os.path.abspath(path)}). It does '
                   f'not follow data_root; set {place}.ann_file to the annotation file that '
                   f'{name.replace("evaluator", "dataloader")} reads')


def _predicts_masks(cfg: Config) -> bool:
    """Whether a model has mask heads or trains on masks."""
    if isinstance(cfg.model.get('roi_head'), dict):
        return bool(cfg.model.roi_head.get('mask_head'))
    parts = {key: value for key, value in cfg.model.items() if key not in ('train_cfg', 'test_cfg')}
    return _names_masks(parts) or _names_masks(cfg.get('train_dataloader'))


def _names_masks(node: Any) -> bool:
    if isinstance(node, dict):
        return 'type' in node and 'mask' in type_name(node).lower() or any(
            value and ('mask' in str(key) or _names_masks(value)) for key, value in node.items())
    return isinstance(node, (list, tuple)) and any(map(_names_masks, node))


def _without_truth(dataset: Dict) -> bool:
    """Whether a dataset's images come without annotations."""
    last = (dataset.get('pipeline') or [{}])[-1]
    return (isinstance(last, dict) and 'type' in last and type_name(last) == 'PackDetInputs'
            and 'instances' not in last.get('meta_keys', ()))


def _unscorable(place: str, file: str, masks: bool) -> Iterator[str]:
    """Find annotations that pycocotools fails on.

    A file is parsed only if a search of its text makes that likely.
    """
    if not masks and not holds(file, rb'"id"\s*:\s*"'):
        return
    annotations = read_json(file).get('annotations') or ()
    ids = [a['id'] for a in annotations if isinstance(a.get('id'), str)]
    if ids:
        yield (f'{place}.ann_file={file!r}: annotations have ids that are words, such as '
               f'{ids[0]!r}, on which pycocotools fails after the last image. Give each '
               'annotation its own whole number as its id')
    bare = [a.get('id') for a in annotations if masks and not a.get('segmentation')]
    if bare:
        yield (f'{place}.ann_file={file!r}: {len(bare)} of {len(annotations)} annotations have no '
               f'segmentation, such as that with id {bare[0]!r}, and segm scores masks. Set '
               f'{place}.metric=\'bbox\', or give each its segmentation')


def _other_images(place: str, file: str, where: str, dataset: Dict, cfg: Config) -> Iterator[str]:
    """Find an evaluator's file that describes other images.

    mmdet compares only ids.
    """
    own = annotation_file(dataset)
    if (not numbered_by_file(class_of(dataset, cfg, DATASETS)) or not os.path.isfile(own)
            or os.path.samefile(own, file)):
        return
    here, there = ({image['id']: Path(image.get('file_name') or image.get('coco_url') or '').stem
                    for image in read_json(path).get('images') or ()} for path in (file, own))
    for number in {**there, **here}:
        if here.get(number) != there.get(number):
            yield (f'{place}.ann_file={file!r}: has other images than {where}.ann_file={own!r}: '
                   f'that with id {number!r} is {here.get(number, "absent")} here and '
                   f'{there.get(number, "absent")} there. Set {place}.ann_file={own!r}')
            return


def holds(file: str, pattern: bytes) -> bool:
    """Whether a regular expression occurs in a file."""
    return occurrences(file, pattern, 1) > 0


def occurrences(file: str, pattern: bytes, most: Optional[int] = None) -> int:
    """Count matches of a regular expression, up to ``most``."""
    if not os.path.getsize(file):
        return 0
    with open(file, 'rb') as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return sum(1 for _ in islice(re.finditer(pattern, text), most))


def read_json(file: str) -> Dict:
    """Content of an annotation file."""
    return json.loads(Path(file).read_text(encoding='utf-8-sig'))


def _unknown_names(cfg: Config) -> Iterator[str]:
    """Find watched metrics that validation does not give."""
    evaluator, loop = cfg.get('val_evaluator') or (), cfg.get('val_cfg') or {}
    if type_name({'type': 'ValLoop', **loop}) != 'ValLoop' or (
            isinstance(evaluator, dict) and 'metrics' in evaluator):
        return  # they add their own prefixes to the names
    given = [_measured(metric, cfg) for _, metric in metric_configs(cfg, 'val_evaluator')]
    known = [prefix + name for prefix, names in given for name in names or ()]
    for place, name in _watched(cfg):
        if given and name != 'auto' and name not in known and not any(
                names is None and name.startswith(prefix) for prefix, names in given):
            open_ended = [f'{prefix}{name}' for prefix, names in given if names is None]
            near = difflib.get_close_matches(name, known, 1, 0.5) or open_ended or known[:3]
            yield (f'{place}={name!r}: val_evaluator does not measure that. Give a name that it '
                   f'measures, such as {" or ".join(map(repr, near))}')


def _watched(cfg: Config) -> Iterator[Tuple[str, str]]:
    """Metrics that hooks and schedules watch, with their dotted names."""
    hooks = [(f'default_hooks.{key}', hook) for key, hook in (
        cfg.get('default_hooks') or {}).items()]
    hooks += [(f'custom_hooks.{i}', hook) for i, hook in enumerate(cfg.get('custom_hooks') or ())]
    for place, hook in hooks:
        if isinstance(hook, dict) and 'type' in hook:
            kind = type_name(hook)
            if kind.endswith('CheckpointHook'):
                for name in _listed(hook.get('save_best') or ()):
                    yield f'{place}.save_best', name
            elif kind.endswith('EarlyStoppingHook'):
                yield f'{place}.monitor', hook['monitor']
    schedules = cfg.get('param_scheduler') or ()
    for i, schedule in enumerate([schedules] if isinstance(schedules, dict) else schedules):
        if 'type' in schedule and type_name(schedule).startswith('ReduceOnPlateau'):
            place = 'param_scheduler' + f'.{i}' * (schedule is not schedules)
            yield f'{place}.monitor', schedule.get('monitor', 'loss')


def _measured(metric: Dict, cfg: Config) -> Tuple[str, Optional[List[str]]]:
    """Prefix and names of a metric's results; None where unknown."""
    kind = class_of(metric, cfg, METRICS)
    prefix = metric.get('prefix') or getattr(kind, 'default_prefix', None)
    name, names = getattr(kind, '__name__', ''), None
    if name == 'CocoMetric' and not metric.get('classwise'):
        measures = _listed(metric.get('metric', 'bbox'))
        if set(measures) <= {'bbox', 'segm'}:
            names = [f'{measure}_{item}' for measure in measures
                     for item in metric.get('metric_items') or _COCO]
    elif name == 'IoUMetric':
        names = ['aAcc', *(name for measure in metric.get('iou_metrics', ['mIoU'])
                           for name in _IOU.get(measure, ()))]
    elif name == 'Accuracy' and not isinstance(metric.get('thrs'), (list, tuple)):
        names = [f'top{k}' for k in _listed(metric.get('topk', 1))]
    return f'{prefix}/' if prefix else '', names


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]
