"""Necks and heads, changed to read FasterViT's maps."""
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Set, Tuple

from ..config_files import ConfigError
from ..models import type_name
from .maps import Map, choose_stages, neck_maps

# Necks that make a pyramid of a plain ViT's maps, which all have one stride.
_PYRAMIDS = ('Feature2Pyramid', 'MultiLevelNeck')
_NO_GRADIENT = 'an output norm without a gradient stops distributed training'
# mmdet's heads that read maps through layers of fixed width.
_DETECTING = ('rpn_head', 'roi_head', 'bbox_head', 'mask_head')
# Parts of a model that read no maps.
_NO_READERS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg',
               'teacher_backbone', 'teacher_neck')


def swap_readers(model: Dict, old: Sequence[Map], stages: Sequence[Map], why: Dict[str, str]
                 ) -> Tuple[int, ...]:
    """Change a model's neck and heads, in place.

    Args:
        model: The settings of the model that holds the backbone.
        old: The maps of the old backbone.
        stages: The maps of FasterViT's four stages.
        why: Extended by reasons, by a setting's dotted name within the model.

    Returns:
        The stages that are read, the backbone's ``out_indices``.

    Raises:
        ConfigError: For a model that FasterViT does not fit.
    """
    neck = model.get('neck')
    first = (neck[0] if isinstance(neck, list) else neck) or {}
    if first and type_name(first) in _PYRAMIDS:
        made = neck_maps(neck, old)[0]
        model['neck'] = None
        why['neck'] = (f'{type_name(first)} makes a pyramid of a plain ViT\'s maps, and '
                       'FasterViT\'s are one already')
        return _swap_heads(model, made, stages, why)
    if len({m.stride for m in old}) == 1 < len(old):
        raise ConfigError(f'model.backbone: its {len(old)} maps all have stride {old[0].stride}, '
                          'and its neck or heads need that. Take a config whose backbone has '
                          'maps of strides 4 to 32')
    if neck:
        return _swap_neck(model, first, old, stages, why)
    if any(name in model for name in _DETECTING):
        return _add_neck(model, old, stages, why)
    return _swap_heads(model, old, stages, why)


def _swap_neck(model: Dict, first: Dict, old: Sequence[Map], stages: Sequence[Map],
               why: Dict[str, str]) -> Tuple[int, ...]:
    chosen = choose_stages(old)
    has, start = first.get('in_channels'), first.get('start_level', 0)
    place = 'neck.0' if isinstance(model['neck'], list) else 'neck'
    expected: List[Map] = []
    try:
        expected, read = neck_maps(model['neck'], old)
    except ConfigError as error:  # CARAFE may need a GPU
        read = list(range(start, len(old)))
        why['neck.in_channels'] = f'not checked: {error}'
    widths = [m.width for m in old]
    backwards = list(has) == widths[::-1] if _sequence(has) else False
    if not backwards and has != (type(has)(widths) if _sequence(has) else widths[-1]):
        raise ConfigError(f'model.{place}: {type_name(first)} has in_channels={has}, but the '
                          f'backbone\'s maps are {widths} wide')
    chosen = tuple(chosen[i] for i in read)
    new = [stages[i].width for i in chosen]
    first['in_channels'] = (type(has)(new[::-1] if backwards else new) if _sequence(has)
                            else new[-1])
    unread = [i for i in range(len(old)) if i not in read]
    if unread:
        why['backbone'] = f'the neck reads no other map: {_NO_GRADIENT}'
    if unread and _sequence(has):  # levels count from the first remaining map
        if start:
            first['start_level'] = start - sum(i < start for i in unread)
        if first.get('end_level', -1) > 0:
            first['end_level'] -= sum(i < first['end_level'] for i in unread)
    if type_name(first) == 'SSDNeck':
        _widen_ssd(model, first, why)
        expected[:len(new)] = [m._replace(width=width) for m, width in zip(expected, new)]
    if expected:
        given = neck_maps(model['neck'], [stages[i] for i in chosen])[0]
        if not any(name in model for name in _DETECTING) and len(given) == len(expected):
            _fill_heads(_readers(model, expected), given)  # JPU passes on the backbone's maps
            expected = [m._replace(width=g.width) for m, g in zip(expected, given)]
        _compare(place, type_name(first), expected, given)
    return chosen


def _widen_ssd(model: Dict, neck: Dict, why: Dict[str, str]) -> None:
    """Widen SSD's head, which also reads the backbone's maps."""
    new = neck['in_channels']
    for part in (neck, model['bbox_head']):
        key = 'out_channels' if part is neck else 'in_channels'
        part[key] = type(part[key])([*new, *part[key][len(new):]])
    why['bbox_head.in_channels'] = 'the neck passes on the backbone\'s maps'


def _compare(place: str, kind: str, expected: Sequence[Map], given: Sequence[Map]) -> None:
    """Refuse maps that the heads do not take."""
    wrong = [f'map {i} is {b.width} wide and of stride {b.stride}, not {a.width} and {a.stride}'
             for i, (a, b) in enumerate(zip(expected, given)) if a != b]
    if len(expected) != len(given):
        wrong = [f'it gives {len(given)} maps, not {len(expected)}']
    if wrong:
        raise ConfigError(f'model.{place}: {kind} on FasterViT, which has strides 4 to 32, does '
                          f'not give the maps that this config\'s heads need: {wrong[0]}')


def _add_neck(model: Dict, old: Sequence[Map], stages: Sequence[Map], why: Dict[str, str]
              ) -> Tuple[int, ...]:
    """Add a neck for heads that read the backbone directly."""
    chosen = choose_stages(old)
    if len({m.width for m in old}) > 1:
        raise ConfigError('model: its heads read the backbone, whose maps are '
                          f'{[m.width for m in old]} wide. Take a config with a neck')
    model['neck'] = dict(type='ChannelMapper', in_channels=[stages[i].width for i in chosen],
                         out_channels=old[0].width, kernel_size=1, num_outs=len(old))
    why['neck'] = 'the heads read the backbone directly, and need maps of that width'
    _compare('neck', 'ChannelMapper', old, neck_maps(model['neck'], [stages[i] for i in chosen])[0])
    return chosen


def _swap_heads(model: Dict, old: Sequence[Map], stages: Sequence[Map], why: Dict[str, str]
                ) -> Tuple[int, ...]:
    """Change heads with ``in_index`` and ``in_channels``, as in mmseg."""
    for _, head in _heads(model):
        if type_name(head) == 'EncHead' and not head.get('add_lateral'):  # reads only the last map
            for key in ('in_channels', 'in_index'):
                head[key] = type(head[key])(head[key][-1:])
    chosen = choose_stages(old)
    new = [stages[i] for i in chosen]
    readers = _readers(model, old)
    if not readers:
        raise ConfigError(f'model: no neck, and no head whose in_channels are the widths of the '
                          f'backbone\'s maps, {[m.width for m in old]}')
    _align_cascade(model, readers, old, new, why)
    read: Set[int] = set()
    for _, head, indices in readers:
        read |= set(indices) | ({0} if head.get('c1_in_channels') else set())
    kept = sorted(read)
    _fill_heads(readers, new)
    for place, head, indices in readers:
        _scale_dilations(place, head, [(old[i], new[i]) for i in indices], why)
        index, had = [kept.index(i) for i in indices], head.get('in_index')
        if had is None and len(index) == len(kept) or had == -1 and index == [len(kept) - 1]:
            continue  # still reads all maps, or the last
        head['in_index'] = type(had)(index) if _sequence(had) else (
            index if _sequence(head['in_channels']) else index[0])
    if len(kept) < len(old):
        why['backbone'] = f'no head reads other maps: {_NO_GRADIENT}'
    return tuple(chosen[i] for i in kept)


_Readers = List[Tuple[str, Dict, List[int]]]  # a head's dotted name, settings and maps


def _readers(model: Mapping, maps: Sequence[Map]) -> _Readers:
    """Heads of a model that read given maps."""
    widths = [m.width for m in maps]
    return [(place, head, indices) for place, head in _heads(model)
            if (indices := _indices(head, len(maps))) is not None
            and _picked(widths, indices, head['in_channels']) == head['in_channels']]


def _fill_heads(readers: _Readers, maps: Sequence[Map]) -> None:
    for _, head, indices in readers:
        head['in_channels'] = _picked([m.width for m in maps], indices, head['in_channels'])
        if head.get('c1_in_channels'):  # DeepLabV3+ reads the first map too
            head['c1_in_channels'] = maps[0].width


def _align_cascade(model: Mapping, readers: _Readers, old: Sequence[Map], new: Sequence[Map],
                   why: Dict[str, str]) -> None:
    """Give OCR's heads, which refine each other's predictions, one size."""
    if not isinstance(model.get('decode_head'), (list, tuple)):
        return
    cascade = [(place, head, indices) for place, head, indices in readers
               if place.startswith('decode_head.') and len(indices) == 1]
    last = max((indices[0] for *_, indices in cascade), default=0)
    for place, _, indices in cascade:
        before, after = ([maps[i].stride for i in (indices[0], last)] for maps in (old, new))
        if before[0] == before[1] and after[0] != after[1]:
            indices[:] = [last]
            why[f'{place}.in_index'] = 'the next head needs its prediction at its own map\'s size'


def _heads(model: Mapping) -> Iterator[Tuple[str, Dict]]:
    """Heads of a model and their parts, by dotted name."""
    for name, part in model.items():
        if name in _NO_READERS:
            continue
        for place, node in _dicts(name, part):
            if 'in_channels' in node and ('in_index' in node or place.count('.') == (
                    1 if isinstance(part, (list, tuple)) else 0)):
                yield place, node


def _dicts(place: str, node: Any) -> Iterator[Tuple[str, Dict]]:
    if isinstance(node, dict):
        yield place, node
    items = (node.items() if isinstance(node, dict)
             else enumerate(node) if isinstance(node, (list, tuple)) else ())
    for key, value in items:
        yield from _dicts(f'{place}.{key}', value)


def _indices(head: Mapping, count: int) -> Any:
    """Indices of maps that a head reads, or None."""
    index = head.get('in_index')
    if index is None:
        index = list(range(count)) if _sequence(head['in_channels']) else -1
    index = list(index) if _sequence(index) else [index]
    return [i % count for i in index] if all(-count <= i < count for i in index) else None


def _picked(widths: Sequence[int], indices: Sequence[int], like: Any) -> Any:
    picked = [widths[i] for i in indices]
    return type(like)(picked) if _sequence(like) else picked[0] if len(picked) == 1 else None


def _scale_dilations(place: str, head: Dict, pairs: List[Tuple[Map, Map]], why: Dict[str, str]
                     ) -> None:
    """Scale ASPP's dilations to keep their reach in the image."""
    (before, after), *others = pairs
    times = after.stride // before.stride
    if times <= 1 or others:
        return
    why[f'{place}.in_channels'] = (
        f'its map had stride {before.stride} and has {after.stride}: FasterViT has no dilated '
        'stages')
    if 'dilations' in head:
        head['dilations'] = type(head['dilations'])(max(1, d // times) for d in head['dilations'])
        why[f'{place}.dilations'] = f'divided by {times}, for the same reach in the image'


def _sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple))
