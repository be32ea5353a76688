"""Checks of classes: order in each split, size of heads."""
import os
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.registry import DATASETS

from ..config_files import typed
from ..datasets.class_order import (
    category_names,
    class_folders,
    declared_classes,
    label_order,
    numbered_by_file,
)
from ..models import annotation_file, class_of, dataset_configs, learned_meta, type_name
from .metric_checks import coco_metrics

_MOST = 12  # names that a message lists


class Classes(NamedTuple):
    """The classes of one dataset.

    Attributes:
        place: The dataset's dotted name in the config.
        names: Those that the config, or the dataset's class, lists.
        order: The names by label.
        file: The annotation file that numbers them; None where the config does.
        things: How many of the names are countable, of a panoptic dataset; else all.
    """
    place: str
    names: Tuple[str, ...]
    order: Tuple[str, ...]
    file: Optional[str]
    things: int


def wrong_classes(cfg: Config, loaders: Sequence[str], training: bool) -> Iterator[str]:
    """Find absent or reordered classes, and heads of wrong size.

    Args:
        cfg: A config.
        loaders: Names of the data loaders that will be used.
        training: Whether the config will be trained.
    """
    found: List[Classes] = []
    for loader in loaders:
        begin = len(found)
        yield from _read(cfg, loader, found)
        if begin < len(found):
            yield from _wrong_evaluation(
                cfg, loader.replace('dataloader', 'evaluator'), found[begin])
    if found:
        yield from _other_orders(found, 'language_model' in cfg.model)
        yield from _wrong_num_classes(cfg, found, training)
        yield from _other_folders(cfg, loaders, {one.place: one.names for one in found})


def reordered_checkpoint(cfg: Config, loader: str, content: Mapping) -> Iterator[str]:
    """Find a checkpoint with the data's classes in another order.

    Args:
        cfg: The config that will be tested, or trained further.
        loader: Name of its data loader.
        content: What was read from the checkpoint, ``cfg.load_from``.
    """
    found: List[Classes] = []
    list(_read(cfg, loader, found))  # wrong_classes reports its findings
    learned = learned_meta(content).get('classes')
    if found and isinstance(learned, (list, tuple)) and _reordered(learned, found[0].order):
        yield (f'load_from={cfg.load_from!r}: was trained with its classes in another order than '
               f'that of {found[0].place}: '
               f'{_orders("in the checkpoint", learned, "in the data", found[0].order)}. '
               f'{_remedy(found[0], "the checkpoint")}')


def _read(cfg: Config, loader: str, found: List[Classes]) -> Iterator[str]:
    """Add a loader's classes to ``found``; yield mistakes in names."""
    for place, dataset in dataset_configs(cfg, loader):
        kind = class_of(dataset, cfg, DATASETS)
        try:
            names = declared_classes(dataset, kind)
        except ValueError as error:
            yield f'{place}.{error}'
            continue
        own = dataset.get('metainfo') or {}
        if 'CLASSES' in own and 'classes' not in own:
            yield (f'{place}.metainfo.CLASSES: is ignored; the key is classes, in lower case. '
                   f'Set {place}.metainfo.classes={own["CLASSES"]!r}')
            continue
        if names is None:
            continue
        meta = {**(getattr(kind, 'METAINFO', None) or {}), **own}
        things = len(meta.get('thing_classes') or names)
        file = annotation_file(dataset)
        numbering, order = numbered_by_file(kind), names
        if numbering and os.path.isfile(file):
            try:
                order = label_order(names, file, numbering)
            except ValueError as error:  # also JSON's and decoding errors
                yield (f'{place}.ann_file={file!r}: not an annotation file as COCO has them '
                       f'({error}). "{typed("prepare_data.py")} check" lists all that is '
                       'wrong in one')
                continue
            if problem := _misnamed(place, names, order, file, numbering):
                yield problem
                continue
        found.append(Classes(place, names, order, file if order is not names else None, things))


def _misnamed(place: str, names: Sequence[str], order: Sequence[str], file: str, numbering: str
              ) -> Optional[str]:
    """Find missing or repeated names in a file's categories."""
    absent = [n for n in names if n not in order]
    twice = [n for n, count in Counter(order).items() if count > 1]
    if twice:
        return (f'{place}.ann_file={file!r}: several categories are named {_few(twice)}, and mmdet '
                'would give each a label of its own. Give their annotations one category_id and '
                'take the others from the list, or give them different names')
    listed = category_names(file)
    if absent and listed and numbering != 'all':
        return (f'{place}.ann_file={file!r}: has no category named {_few(absent)}, which the '
                f'config lists; mmdet would silently drop them. It has {len(listed)}: '
                f'{_few(listed)}. Set {place}.metainfo.classes to those')
    return None


def _other_orders(found: Sequence[Classes], apart: bool) -> Iterator[str]:
    """Find datasets labelled unlike the config or first dataset.

    Args:
        found: The datasets.
        apart: Whether datasets may have different labels.
    """
    agree = len({one.order for one in found if one.file}) == 1
    for one in found:
        if any(name in one.names and one.names[label:label + 1] != (name,)
               for label, name in enumerate(one.order)):
            remedy = (f'Set {one.place}.metainfo.classes to the order of the file' if agree
                      else _remedy(one, 'the config'))
            yield (f'{one.place}.ann_file={one.file!r}: lists its categories in another order than '
                   'the config, and mmdet numbers labels as the file does: '
                   f'{_orders("in the file", one.order, "in the config", one.names)}. {remedy}')
        elif _reordered(found[0].names, one.names) and not apart:
            yield (f'{one.place}: its classes have another order than those of {found[0].place}: '
                   f'{_orders("here", one.names, "there", found[0].names)}. '
                   f'{_remedy(one, found[0].place)}')


def _wrong_evaluation(cfg: Config, name: str, data: Classes) -> Iterator[str]:
    """Find COCO metrics' files with other labels than the dataset."""
    for place, metric, file in coco_metrics(cfg, name):
        if not file or not os.path.isfile(file):
            continue
        numbering = 'by id' if metric.get('sort_categories') else (
            'all' if type_name(metric) == 'LVISMetric' else 'listed')
        try:
            order = label_order(data.names, file, numbering)
        except ValueError as error:
            yield f'{place}.ann_file={file!r}: not an annotation file as COCO has them ({error})'
            continue
        if _reordered(data.order, order):
            yield (f'{place}.ann_file={file!r}: lists its categories in another order than '
                   f'{data.place} has labels: '
                   f'{_orders("in this file", order, "in the dataset", data.order)}. '
                   f'Set {place}.ann_file to the annotation file that the dataset reads')


def _wrong_num_classes(cfg: Config, found: Sequence[Classes], training: bool) -> Iterator[str]:
    """Find heads with too few or too many classes.

    mmdet fails where a prediction has no category; to test a segmentor or classifier on data of
    other classes is possible.
    """
    if 'language_model' in cfg.model:  # its heads score words, up to num_classes of them
        return
    names, place = found[0].names, found[0].place
    right = {number for one in found for number in (len(one.names), one.things)}
    scope = cfg.get('default_scope')
    more_fail = scope == 'mmdet' or (training and scope == 'mmseg')
    for where, head in heads(cfg.model, 'model'):
        number = head.get('num_classes', len(names))
        if head.get('out_channels') == 1 and 'num_classes' in head:  # num_classes is 1 or 2
            if training and len(names) != 2:
                yield (f'{where}.out_channels=1: tells two classes apart, but the data have '
                       f'{len(names)} ({_few(names)}). Name two in {place}.metainfo.classes, such '
                       "as ('background', 'thing'), or leave out_channels out")
        elif number in right or _has_other_labels(where, head):
            if number == 1 and training and _is_softmax(head):
                yield (f'{where}.num_classes=1: a softmax over one class tells nothing apart, and '
                       'its loss is 0 from the start. Add a class for the background: '
                       f'{place}.metainfo.classes=(\'background\', {names[0]!r}) and '
                       f'{where}.num_classes=2')
        elif more_fail if number > len(names) else training:
            yield (f'{where}.num_classes={number}, but the data have {len(names)} '
                   f'({_few(names)}). Set {where}.num_classes={len(names)}')


def _is_softmax(head: Dict) -> bool:
    """Whether a segmentor's or classifier's head has only softmax losses."""
    losses = head.get('loss_decode', head.get('loss'))
    losses = losses if isinstance(losses, (list, tuple)) else [losses]
    return all(loss and type_name(loss).endswith('CrossEntropyLoss')
               and not loss.get('use_sigmoid') for loss in losses)


def _has_other_labels(place: str, head: Dict) -> bool:
    """Whether a head's labels differ from the data's classes.

    A proposal head has one class, object; a detector's semantic head also has stuff; a tracker has
    identities; a boundary head has two classes.
    """
    return any(part in place for part in ('rpn', 'semantic', '.reid')) or (
        'type' in head and type_name(head) == 'STDCHead')


def heads(node: Any, place: str) -> Iterator[Tuple[str, Dict]]:
    """List a model's prediction heads with their dotted names.

    Args:
        node: Settings of the model, or of a part.
        place: Its dotted name.
    """
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if not isinstance(value, (dict, list)) or key in ('backbone', 'neck', 'train_cfg',
                                                          'test_cfg', 'tta_cfg'):
            continue
        inner = f'{place}.{key}'
        if isinstance(value, dict) and ('head' in str(key) or 'head' in place.split('.')[-1]):
            yield inner, value
        yield from heads(value, inner)


def _other_folders(cfg: Config, loaders: Sequence[str], names: Mapping[str, Sequence[str]]
                   ) -> Iterator[str]:
    """Find class folders that differ between splits or from names."""
    first: Tuple[str, ...] = ()
    for place, dataset in (item for loader in loaders for item in dataset_configs(cfg, loader)):
        folders = class_folders(dataset, class_of(dataset, cfg, DATASETS))
        if not folders or place not in names:
            continue
        if not first:
            first, begin = folders, place
        if folders != first[:len(folders)]:
            yield (f'{place}: its class folders, which number the labels in alphabetical order, '
                   f'differ from those of {begin}: '
                   f'{_orders("here", folders, "there", first)}. Make a folder for each class in '
                   'both, empty if it has no images')
        elif len(names[place]) != len(folders) or _reordered(names[place], folders):
            yield (f'{place}.metainfo.classes: {_few(names[place], _MOST)}, but {len(folders)} '
                   'folders number the labels in alphabetical order: '
                   f'{_few(folders, _MOST)}. Name a class for each folder, in that order')


def _reordered(one: Sequence[str], other: Sequence[str]) -> bool:
    return list(one) != list(other) and sorted(one) == sorted(other)


def _remedy(classes: Classes, whose: str) -> str:
    change = f'set {classes.place}.metainfo.classes to it' if whose != 'the config' else ''
    if classes.file is None:
        return f'Take the order of {whose}: {change}'
    return (f'Write the categories of {classes.file} in the order of {whose}; their ids and the '
            f'annotations stay as they are' + (f'; and {change}' if change else ''))


def _orders(here: str, one: Sequence[str], there: str, other: Sequence[str]) -> str:
    """Describe two orders, long ones from the first difference on."""
    begin = 0
    if len(one) > _MOST:
        begin = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), 0)
    said = f'from label {begin} on ' if begin else ''
    return (f'{here} {said}{_few(one[begin:], _MOST)}; {there} {said}'
            f'{_few(other[begin:], _MOST)}')


def _few(names: Sequence[str], most: int = 5) -> str:
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(map(repr, names[:most])) + more
