"""Names of tensors: the authors', former and present ones."""
import re
from typing import Dict, Mapping

import torch
from torch import Tensor

# (1, 2n - 1, 2n - 1, 2) for windows of n cells a side; the only trace of n in a file.
_OFFSETS = re.compile(r'levels\.([23])\.blocks\.0\.attn\.pos_emb_funct\.relative_coords_table$')

# The classifier after the backbone, cached values that depend on the grid, and carrier_init.conv
# for the second time.
_DROPPED = re.compile(r'(norm|head)\.|.*\.(relative_(bias|coords_table|position_index)$'
                      r'|to_global_feature\.pos\.)')

_AUTHORS = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r'^patch_embed\.conv_down\.0\.', 'stem.conv1.'),
    (r'^patch_embed\.conv_down\.1\.', 'stem.norm1.'),
    (r'^patch_embed\.conv_down\.3\.', 'stem.conv2.'),
    (r'^patch_embed\.conv_down\.4\.', 'stem.norm2.'),
    (r'^levels\.(\d)\.downsample\.', r'downsamples.\1.'),
    (r'\.reduction\.0\.', '.conv.'),
    (r'^levels\.', 'stages.'),
    (r'\.global_tokenizer\.pos_embed\.', '.carrier_init.conv.'),
    (r'\.hat_', '.carrier_'),
    (r'pos_emb_funct\.', 'position_bias.'),
    (r'pos_embed\.', 'position.'),
    (r'\.cpb_mlp\.0\.', '.mlp.fc1.'),
    (r'\.cpb_mlp\.2\.', '.mlp.fc2.'),
    (r'\.gamma([12])$', r'.carrier_layer_scale\1.gamma'),
    (r'\.gamma3$', '.layer_scale1.gamma'),
    (r'\.gamma4$', '.layer_scale2.gamma'),
]]

# Until 0.1 each block had its own position terms: those of a stage are stacked in the order of the
# number that follows the name here.
_FORMER = [(re.compile(rf'^(stages\.\d\.)blocks\.(\d+)\.{pattern}'), replacement)
           for pattern, replacement in [
    (r'(carrier_)?position\.mlp\.fc(\d)\.(\w+)$', r'\1\3positions.\5\4 \2'),
    (r'(carrier_)?attn\.position_bias\.mlp\.fc(\d)\.(\w+)$', r'\1\3position_biases.\5\4 \2'),
    (r'attn\.position_bias\.carrier_bias$', r'\1carrier_bias \2'),
    (r'attn\.position_bias\.relative', r'\1blocks.\2.relative'),  # SwinHAT's
    (r'carrier_', r'\1blocks.\2.carriers.'),
]]


def is_authors(tensors: Mapping[str, Tensor], prefix: str = '') -> bool:
    """Whether the names after a prefix are the authors'."""
    return any(key.startswith((f'{prefix}patch_embed.conv_down.', f'{prefix}levels.'))
               for key in tensors)


def window_sizes(tensors: Mapping[str, Tensor]) -> Dict[int, int]:
    """Window sides, in cells, that tensors were trained with.

    Args:
        tensors: A state dict, whatever is before its names.

    Returns:
        By stage, 2 and 3, counted from 0. Only the authors' files tell; of others, nothing.
    """
    return {int(name[1]): (tensor.shape[1] + 1) // 2 for key, tensor in tensors.items()
            if (name := _OFFSETS.search(key)) and tensor.ndim == 4}


def to_current(tensors: Dict[str, Tensor], prefix: str = '') -> None:
    """Give tensors this backbone's names, in place.

    The classifier and cached values are dropped. Position terms of a stage's blocks become one
    tensor. Carrier biases, which the authors' and early files of this backbone lack, are 0.

    Args:
        tensors: A state dict. What is not below the prefix stays as it is.
        prefix: Where the backbone is in a larger model, such as ``'backbone.'``.
    """
    renamed = [*(_AUTHORS if (authors := is_authors(tensors, prefix)) else ()), *_FORMER]
    terms: Dict[str, Dict[int, Tensor]] = {}
    for key in [key for key in tensors if key.startswith(prefix)]:
        tensor, name = tensors.pop(key), key[len(prefix):]
        if authors and _DROPPED.match(name):
            continue
        for pattern, replacement in renamed:
            name = pattern.sub(replacement, name)
        name, *block = name.split(' ')
        if block:
            terms.setdefault(prefix + name, {})[int(block[0])] = tensor
        else:
            tensors[prefix + name] = tensor
    for name, blocks in terms.items():
        stacked = torch.stack([tensor for _, tensor in sorted(blocks.items())])
        tensors[name] = stacked[..., None, None] if name.endswith('carrier_bias') else stacked
    last = 'carrier_position_biases.weight2'
    for key in [key for key in tensors if key.startswith(prefix) and key.endswith(last)]:
        tensors.setdefault(key.replace(last, 'carrier_bias'),
                           tensors[key].new_zeros(*tensors[key].shape[:2], 1, 1))
