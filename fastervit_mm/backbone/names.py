"""The names of tensors: the authors', this backbone's former ones, and its present ones."""
import re
from collections import defaultdict
from typing import Dict, Mapping

import torch
from torch import Tensor

# (1, 2n - 1, 2n - 1, 2) for windows of n cells a side; the only trace of n in a file.
_OFFSETS = re.compile(r'(?:^|\.)levels\.([23])\.blocks\.0\.attn\.pos_emb_funct\.'
                      r'relative_coords_table$')

# Cached values that depend on the grid, and the classifier after the backbone.
_DROPPED = re.compile(r'(.*\.(relative_bias|relative_coords_table|relative_position_index)'
                      r'|.*global_tokenizer\.to_global_feature\.pos\..*'  # the same tensors twice
                      r'|norm\..*|head\..*)$')

_AUTHORS = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r'^patch_embed\.conv_down\.0\.', 'stem.conv1.'),
    (r'^patch_embed\.conv_down\.1\.', 'stem.norm1.'),
    (r'^patch_embed\.conv_down\.3\.', 'stem.conv2.'),
    (r'^patch_embed\.conv_down\.4\.', 'stem.norm2.'),
    (r'^levels\.(\d)\.downsample\.norm\.', r'downsamples.\1.norm.'),
    (r'^levels\.(\d)\.downsample\.reduction\.0\.', r'downsamples.\1.conv.'),
    (r'^levels\.(\d)\.global_tokenizer\.pos_embed\.', r'stages.\1.carrier_init.conv.'),
    (r'^levels\.', 'stages.'),
    (r'\.hat_pos_embed\.cpb_mlp\.', '.carrier_position.cpb_mlp.'),
    (r'\.pos_emb_funct\.cpb_mlp\.', '.position_bias.cpb_mlp.'),
    (r'\.pos_embed\.cpb_mlp\.', '.position.cpb_mlp.'),
    (r'\.cpb_mlp\.0\.', '.mlp.fc1.'),
    (r'\.cpb_mlp\.2\.', '.mlp.fc2.'),
    (r'\.hat_(norm[12]|attn|mlp)\.', r'.carrier_\1.'),
    (r'\.gamma([12])$', r'.carrier_layer_scale\1.gamma'),
    (r'\.gamma3$', '.layer_scale1.gamma'),
    (r'\.gamma4$', '.layer_scale2.gamma'),
]]

# Until 0.1 each block had its own position terms.
_FORMER = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r'^(stages\.\d\.blocks\.\d+\.)carrier_', r'\1carriers.'),
    (r'^(stages\.\d\.blocks\.\d+\.)attn\.position_bias\.relative', r'\1relative'),  # SwinHAT's
]]
_TERM = re.compile(r'(stages\.\d\.)blocks\.(\d+)\.(position|attn\.position_bias|carrier_position'
                   r'|carrier_attn\.position_bias)\.(mlp\.fc[12]\.(?:weight|bias)|carrier_bias)$')
_TERMS = {'position': 'positions', 'attn.position_bias': 'position_biases',
          'carrier_position': 'carrier_positions',
          'carrier_attn.position_bias': 'carrier_position_biases'}
_PARAMETERS = {'mlp.fc1.weight': 'weight1', 'mlp.fc1.bias': 'bias1', 'mlp.fc2.weight': 'weight2'}


def is_authors(tensors: Mapping[str, Tensor], prefix: str = '') -> bool:
    """Whether the names after a prefix are the authors'."""
    return any(key.startswith((f'{prefix}patch_embed.conv_down.', f'{prefix}levels.'))
               for key in tensors)


def window_sizes(tensors: Mapping[str, Tensor]) -> Dict[int, int]:
    """The side of the windows of stages 3 and 4, in cells, that tensors were trained with.

    Args:
        tensors: A state dict, whatever is before its names.

    Returns:
        By the stage, counted from 0. Only the authors' files tell; of others, nothing.
    """
    return {int(name[1]): (tensor.shape[1] + 1) // 2 for key, tensor in tensors.items()
            if (name := _OFFSETS.search(key)) and tensor.ndim == 4}


def to_current(tensors: Dict[str, Tensor], prefix: str = '') -> None:
    """Give tensors this backbone's names, in place; drop the classifier and what is cached.

    Position terms of a stage's blocks become one tensor. Carrier biases, which the authors and
    early files of this backbone have not, are 0.

    Args:
        tensors: A state dict. What is not below the prefix stays as it is.
        prefix: Where the backbone is in a larger model, such as ``'backbone.'``.
    """
    authors, terms = is_authors(tensors, prefix), defaultdict(dict)
    for key in [key for key in tensors if key.startswith(prefix)]:
        tensor, name = tensors.pop(key), key[len(prefix):]
        if authors:
            if _DROPPED.match(name):
                continue
            for pattern, replacement in _AUTHORS:
                name = pattern.sub(replacement, name)
        if term := _TERM.match(name):
            stage, block, kind, parameter = term.groups()
            if parameter == 'carrier_bias':
                name, tensor = f'{stage}carrier_bias', tensor[:, None, None]
            else:
                name = f'{stage}{_TERMS[kind]}.{_PARAMETERS.get(parameter, parameter)}'
            terms[prefix + name][int(block)] = tensor
        else:
            for pattern, replacement in _FORMER:
                name = pattern.sub(replacement, name)
            tensors[prefix + name] = tensor
    for name, blocks in terms.items():
        tensors[name] = torch.stack([tensor for _, tensor in sorted(blocks.items())])
    for key in [key for key in tensors if key.endswith('carrier_position_biases.weight2')]:
        name = key.replace('carrier_position_biases.weight2', 'carrier_bias')
        if key.startswith(prefix) and name not in tensors:
            tensors[name] = tensors[key].new_zeros(*tensors[key].shape[:2], 1, 1)
