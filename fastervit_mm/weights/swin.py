"""Swin's published weights under the names of a SwinHAT."""
import re
from math import isqrt
from typing import Dict, Iterable, Mapping, Optional

from torch import Tensor

from ..backbone.swin_hat import ARCHS
from .errors import CheckpointError

_RENAMED = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r'^patch_embed\.projection\.', 'stem.conv.'),
    (r'^patch_embed\.', 'stem.'),
    (r'^stages\.(\d)\.downsample\.', r'downsamples.\1.'),
    (r'^norm(\d)\.', r'out_norms.\1.'),
    (r'\.attn\.w_msa\.relative_position_bias_table$',
     '.relative_position_bias_table'),
    (r'\.attn\.w_msa\.', '.attn.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
]]
# Buffers that follow from window or image size, and the classifier.
_DROPPED = re.compile(r'(.*\.(relative_position_index|attn_mask)|norm\..*|head\..*)$')


def is_carrier_part(name: str) -> bool:
    """Whether a SwinHAT's tensor belongs to its carriers."""
    return '.carrier' in name


def carrier_parts(names: Iterable[str]) -> str:
    """List the parts that carriers' tensors belong to."""
    parts = {re.sub(r'^stages\.\d\.(blocks\.\d+\.)?', '', name) for name in names}
    parts = {re.sub(r'(carrier_\w+)\..*', r'\1', part) for part in parts}
    return ', '.join(sorted(parts))


def describe_swin(tensors: Mapping[str, Tensor]) -> Optional[str]:
    """Arguments of the SwinHAT for these tensors; None for others."""
    try:
        tables = [tensors[f'stages.{stage}.blocks.0.'
                          'relative_position_bias_table'].shape for stage in range(4)]
        seen = dict(embed_dims=tensors['stem.conv.weight'].shape[0], depths=tuple(
            len({k.split('.')[3] for k in tensors if k.startswith(f'stages.{stage}.blocks.')})
            for stage in range(4)), num_heads=tuple(table[1] for table in tables))
    except (KeyError, IndexError):
        return None
    arch = next((name for name, arch in ARCHS.items() if arch == seen), seen)
    return f'arch={arch!r}, window_size={(isqrt(tables[0][0]) + 1) // 2}'


def convert_microsoft(tensors: Mapping[str, Tensor], checkpoint: str) -> Dict[str, Tensor]:
    """Rename tensors of Microsoft's repository to mmdet's, below ``backbone.``.

    Args:
        tensors: By Microsoft's names; others stay as they are.
        checkpoint: The file's name, for messages.

    Raises:
        CheckpointError: Without mmdet, whose conversion is used, and for another network's file.
    """
    tensors = {key.removeprefix('module.'): value for key, value in tensors.items()}
    if not any(key.startswith('layers.') for key in tensors):
        return tensors
    try:
        from mmdet.models.backbones.swin import swin_converter
    except ImportError as error:
        raise CheckpointError(f'checkpoint={checkpoint!r}: convert_weights=True needs mmdet '
                              f'({error})') from error
    try:
        return swin_converter(tensors)
    except (RuntimeError, ValueError) as error:  # shapes are not a Swin's
        raise CheckpointError(f'checkpoint={checkpoint!r}: mmdet cannot convert it ({error}). '
                              'convert_weights=True is for files of '
                              'microsoft/Swin-Transformer') from error


def rename_swin(tensors: Mapping[str, Tensor], checkpoint: str) -> Dict[str, Tensor]:
    """Rename tensors of mmdet's Swin to a SwinHAT's.

    A SwinHAT's own stay unchanged.

    Args:
        tensors: Of the bare backbone.
        checkpoint: The file's name, for messages.

    Raises:
        CheckpointError: For Microsoft's names.
    """
    if any(key.startswith('layers.') for key in tensors):
        raise CheckpointError(f'checkpoint={checkpoint!r}: has the names of '
                              'microsoft/Swin-Transformer. Set convert_weights=True in the '
                              'backbone, as for mmdet\'s SwinTransformer')
    if not any(key.startswith('patch_embed.') for key in tensors):
        return dict(tensors)
    renamed = {}
    for name, tensor in tensors.items():
        if _DROPPED.match(name):
            continue
        if '.downsample.' in name and tensor.shape[-1:] and tensor.shape[-1] % 4 == 0:
            # In mmdet the four cells of each channel are adjacent.
            tensor = tensor.unflatten(-1, (-1, 4)).transpose(-1, -2).flatten(-2)
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        renamed[name] = tensor
    return renamed
