"""Conversion of official DINO detectors with FasterViT to mmdet's DINO.

``docs/dino.md`` lists what was checked.
"""
import re
from typing import Dict, Iterable, List, Mapping, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbone import FasterViT
from ..backbone.names import to_current
from .errors import CheckpointError, check_finite, some

_BACKBONE = 'backbone.0.'
_UNUSED_IDS = {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Unused COCO category ids below 91; the official classes are category ids."""
COCO_IDS = tuple(sorted(set(range(91)) - _UNUSED_IDS))
_CLASSES = 'bbox_head.cls_branches.'
_LABELS = 'dn_query_generator.label_embedding.weight'

# The decoder's heads are in a file twice, under these names too.
_TWICE = re.compile(r'transformer\.decoder\.(class|bbox)_embed\.')
# Values that the authors' backbone keeps from its last step.
_CACHED = ('.relative_bias', '.relative_coords_table', '.relative_position_index')
_DEFORMABLE = ('sampling_offsets', 'attention_weights', 'value_proj', 'output_proj')
# In mmdet's order, that of use: self-attention, cross-attention, MLP.
_NORMS = dict(encoder=('norm1', 'norm2'), decoder=('norm2', 'norm1', 'norm3'))


def is_official_dino(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors are an official DINO detector's with FasterViT."""
    return (any(re.match(r'(module\.)?transformer\.decoder\.layers\.', key) for key in tensors)
            and any(re.match(r'(module\.)?backbone\.0\.(patch_embed|levels)\.', key)
                    for key in tensors))


def convert_dino(tensors: Mapping[str, Tensor], checkpoint: str,
                 num_classes: int = 80) -> Dict[str, Tensor]:
    """Rename all tensors of an official DINO detector to mmdet's.

    The detector is that of ``configs/mmdet/dino_fvit_4_21k_224.py``: mmdet's ``DINO`` with biases
    in the neck, a FasterViT with ``pad_conv_stages=7`` and
    :class:`~fastervit_mm.dino.OfficialDINOHead`; its outputs are the official code's.

    Args:
        tensors: The official detector's, by name.
        checkpoint: The file's name, for messages.
        num_classes: For a file with 91 classes, COCO's category ids: 80 keeps the used ids, in
            mmdet's order; 91 keeps all, to choose queries as the official code does even where an
            unused id scores highest. Files with other classes stay as they are. Default 80.

    Returns:
        Tensors by mmdet's names. Decoder layers share heads in the file, but have copies here.

    Raises:
        CheckpointError: For tensors that are missing, have no place in this detector, have another
            shape or are not finite; for carrier tokens, which the detectors' code orders in a way
            that this backbone cannot reproduce; and for position terms that neither of the
            authors' formulas gives.
    """
    tensors = {key.removeprefix('module.'): value for key, value in tensors.items()}
    tensors = {key: value for key, value in tensors.items() if not _TWICE.match(key)}
    if any(key.startswith(_BACKBONE) and ('.hat_' in key or '.global_tokenizer.' in key)
           for key in tensors):
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: a DINO detector whose FasterViT has carrier tokens (0 to '
            '6), in an order that this backbone cannot reproduce with any weights. Detectors '
            'without carriers (4-21k) can be converted')
    check_finite(tensors, checkpoint)
    names = _names(tensors)
    backbone, unknown = _backbone(tensors)
    converted = {names[key]: tensors[key] for key in names if key in tensors}
    converted.update((f'backbone.{name}', value) for name, value in _renamed(backbone).items())
    unknown += [key for key in tensors if key not in names and not key.startswith(_BACKBONE)]
    _check_whole(converted, names, unknown, checkpoint)
    _fold_positions(backbone, tensors, checkpoint)
    converted.update((f'backbone.{name}', value) for name, value in _renamed(backbone).items())
    _keep_classes(converted, num_classes, checkpoint)
    return converted


def _check_whole(converted: Mapping[str, Tensor], names: Mapping[str, str], unknown: List[str],
                 checkpoint: str) -> None:
    """Raise an error unless tensors are a whole, consistent detector's."""
    built, widths = _built(below('backbone.', converted))
    classes = [key for key in converted if key.startswith(_CLASSES)]
    shapes = {f'backbone.{key}': value.shape for key, value in built.items()}
    shapes.update((f'neck.convs.{i}.conv.weight', (256, width, 1, 1))
                  for i, width in enumerate(widths))
    shapes.update((key, (*converted[classes[0]].shape[:1], *converted[key].shape[1:]))
                  for key in classes)
    problems = dict(
        missing=[before for before, after in names.items() if after not in converted] + [
            f'backbone.{key}' for key in built if f'backbone.{key}' not in converted])
    problems['without a place'] = unknown + [
        f'backbone.{key}' for key in below('backbone.', converted) if key not in built]
    problems['of another shape'] = [
        f'{key} {tuple(converted[key].shape)}' for key, shape in shapes.items()
        if key in converted and converted[key].shape != shape]
    if any(problems.values()):
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: not a whole DINO detector with FasterViT: ' + '; '.join(
                f'tensors {text}: {len(found)} ({some(found)})'
                for text, found in problems.items() if found)
            + '. Take the file from its original source')


def _keep_classes(converted: Dict[str, Tensor], num_classes: int, checkpoint: str) -> None:
    """Drop rows of COCO's unused ids, in place."""
    classes = [key for key in converted if key.startswith(_CLASSES)]
    num_rows = len(converted[classes[0]])
    rows = torch.tensor([i for i in range(num_rows) if i not in _UNUSED_IDS]
                        if (num_rows, num_classes) == (91, 80) else range(num_rows))
    for key in (*classes, _LABELS):  # the denoising labels have one more row, never used
        if not converted[key].dim() or len(converted[key]) < num_rows:
            raise CheckpointError(
                f'checkpoint={checkpoint!r}: {key} of shape {tuple(converted[key].shape)} lacks '
                f'rows for {num_rows} classes. Take the file from its original source')
        converted[key] = converted[key][rows]


def below(prefix: str, tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Tensors below a prefix, by names without it."""
    return {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}


def _names(tensors: Mapping[str, Tensor]) -> Dict[str, str]:
    """Map official names outside the backbone to mmdet's.

    Numbers of layers and maps are the file's.
    """
    layers = {part: _count(rf'transformer\.{part}\.layers\.(\d+)\.', tensors)
              for part in ('encoder', 'decoder')}
    last = layers['decoder']
    maps = sum(f'{_BACKBONE}norm{stage}.weight' in tensors for stage in range(4))
    modules = {
        'transformer.enc_output': 'memory_trans_fc',
        'transformer.enc_output_norm': 'memory_trans_norm',
        'transformer.enc_out_class_embed': f'bbox_head.cls_branches.{last}',
        'transformer.decoder.norm': 'decoder.norm',
        **{f'transformer.decoder.ref_point_head.layers.{i}': f'decoder.ref_point_head.layers.{i}'
           for i in range(2)},
        **{f'class_embed.{i}': f'bbox_head.cls_branches.{i}' for i in range(last)},
    }
    heads = [f'bbox_embed.{i}' for i in range(last)] + ['transformer.enc_out_bbox_embed']
    for i, head in enumerate(heads):
        for part in range(3):  # in mmdet with a ReLU after each
            modules[f'{head}.layers.{part}'] = f'bbox_head.reg_branches.{i}.{2 * part}'
    for i in range(_count(r'input_proj\.(\d+)\.', tensors)):
        neck = f'neck.convs.{i}' if i < maps else f'neck.extra_convs.{i - maps}'
        modules.update({f'input_proj.{i}.0': f'{neck}.conv', f'input_proj.{i}.1': f'{neck}.gn'})
    names = {'transformer.level_embed': 'level_embed',
             'transformer.tgt_embed.weight': 'query_embedding.weight', 'label_enc.weight': _LABELS}
    for part, number in layers.items():
        deformable = dict(encoder='self_attn', decoder='cross_attn')[part]
        for i in range(number):
            before, after = f'transformer.{part}.layers.{i}', f'{part}.layers.{i}'
            for name in _DEFORMABLE:
                modules[f'{before}.{deformable}.{name}'] = f'{after}.{deformable}.{name}'
            for place, norm in enumerate(_NORMS[part]):
                modules[f'{before}.{norm}'] = f'{after}.norms.{place}'
            modules[f'{before}.linear1'] = f'{after}.ffn.layers.0.0'
            modules[f'{before}.linear2'] = f'{after}.ffn.layers.1'
            if part == 'decoder':
                modules[f'{before}.self_attn.out_proj'] = f'{after}.self_attn.attn.out_proj'
                for name in ('in_proj_weight', 'in_proj_bias'):
                    names[f'{before}.self_attn.{name}'] = f'{after}.self_attn.attn.{name}'
    names.update((f'{before}.{name}', f'{after}.{name}') for before, after in modules.items()
                 for name in ('weight', 'bias'))
    return names


def _count(pattern: str, names: Iterable[str]) -> int:
    """Count numbers in names; a gap becomes a missing name."""
    return len({found[1] for found in map(re.compile(pattern).match, names) if found})


def _backbone(tensors: Mapping[str, Tensor]) -> Tuple[Dict[str, Tensor], List[str]]:
    """Backbone's tensors by the authors' names, and unknown names."""
    found = {key: value for key, value in below(_BACKBONE, tensors).items()
             if not key.endswith(_CACHED)}
    return found, [f'{_BACKBONE}{key}' for key in found if key.startswith(('norm.', 'head.'))]


def _renamed(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Backbone's tensors by its own names, output norms included."""
    own = {re.sub(r'^norm(\d)\.', r'out_norms.\1.', key): value for key, value in tensors.items()}
    to_current(own)
    return own


def _built(tensors: Mapping[str, Tensor]) -> Tuple[Mapping[str, Tensor], Tuple[int, ...]]:
    """The tensors' whole backbone: names, shapes and map widths.

    If tensors are missing, this is a guess; the check then names them.
    """
    def shape(name: str) -> Tuple[int, ...]:
        found = tensors.get(name)
        return (1, 1) if found is None or found.dim() < 2 or not found.numel() else (
            tuple(found.shape))

    def heads(stage: int) -> int:
        return shape(f'stages.{stage}.position_biases.weight2')[1]

    def fits(stage: int) -> int:
        return heads(stage) if shape(narrow)[0] * 2**stage % heads(stage) == 0 else 1

    narrow = 'stem.conv2.weight'
    depths = [max(_count(rf'stages\.{stage}\.blocks\.(\d+)\.', tensors), 1)
              for stage in range(4)]
    out_indices = [stage for stage in range(4) if f'out_norms.{stage}.weight' in tensors]
    with torch.device('meta'):
        whole = FasterViT(
            dict(embed_dim=shape(narrow)[0], stem_channels=shape('stem.conv1.weight')[0],
                 depths=depths, num_heads=(1, 1, fits(2), fits(3)), hierarchical=False,
                 layer_scale=1. if any('layer_scale' in key for key in tensors) else None),
            out_indices=out_indices or [3])
    return whole.state_dict(), whole.out_channels


def _fold_positions(backbone: Dict[str, Tensor], tensors: Mapping[str, Tensor],
                    checkpoint: str) -> None:
    """Fold the detectors' formula of window positions into the classifier's.

    Along an axis of n cells, the detectors' code has (i - n^2 // 2) / (n^2 // 2), the classifier
    and this backbone (i - n // 2) / (n // 2). Each is a linear function of the other, which is
    folded into the first layer. The term of the last training step, which the file keeps, shows
    which of them it was trained with.
    """
    for key in [key for key in backbone if key.endswith('.pos_embed.cpb_mlp.0.weight')]:
        root = key[:-len('0.weight')]
        place = f'{_BACKBONE}{root.replace("cpb_mlp.", "relative_bias")}'
        weight, bias, last = (backbone[f'{root}{name}'].float() for name in (
            '0.weight', '0.bias', '2.weight'))
        kept = tensors.get(place)
        n = 0 if kept is None or kept.dim() != 3 else round(kept.shape[1]**0.5)
        if n < 2 or kept.shape != (1, n * n, last.shape[0]):
            raise CheckpointError(
                f'checkpoint={checkpoint!r}: '
                + (f'{place} is missing' if kept is None else
                   f'{place} of shape {tuple(kept.shape)} fits no window')
                + ', which shows how its positions were computed. The official code saves it; take '
                'the file as that code wrote it')
        scale = (n // 2) / (n * n // 2)
        shift = (n // 2 - n * n // 2) / (n * n // 2)
        folded = scale * weight, bias + shift * weight.sum(1)
        axis = (torch.arange(n) - n // 2) / (n // 2)
        cells = torch.cartesian_prod(axis, axis)

        # Computed before the last update of the weights.
        as_classifier, as_detector = (
            ((F.linear(F.linear(cells, *first).relu(), last) - kept[0].float()).abs().max()
             / kept.float().abs().max().clamp(min=1e-12)).item()
            for first in ((weight, bias), folded))
        if min(as_classifier, as_detector) > 0.05:
            raise CheckpointError(
                f'checkpoint={checkpoint!r}: {place} fits neither of the authors\' formulas for '
                f'positions: its relative error is {as_detector:.2f} by that of their detectors, '
                f'{as_classifier:.2f} by that of their classifiers. Take the file as the official '
                'code wrote it')
        if as_detector < as_classifier:
            dtype = backbone[key].dtype
            backbone[key], backbone[f'{root}0.bias'] = (t.to(dtype) for t in folded)
