"""The names of tensors in the authors' files, and this backbone's."""
import re
from typing import Dict, List, Mapping

import torch
from torch import Tensor

# Cached values that depend on the grid, and the classifier after the backbone.
_DROPPED = re.compile(r'(.*\.(relative_bias|relative_coords_table|relative_position_index)'
                      r'|.*global_tokenizer\.to_global_feature\.pos\..*'  # the same tensors twice
                      r'|norm\..*|head\..*)$')

_RENAMED = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r'^patch_embed\.conv_down\.0\.', 'stem.conv1.'),
    (r'^patch_embed\.conv_down\.1\.', 'stem.norm1.'),
    (r'^patch_embed\.conv_down\.3\.', 'stem.conv2.'),
    (r'^patch_embed\.conv_down\.4\.', 'stem.norm2.'),
    (r'^levels\.(\d)\.downsample\.norm\.', r'downsamples.\1.norm.'),
    (r'^levels\.(\d)\.downsample\.reduction\.0\.', r'downsamples.\1.conv.'),
    (r'^levels\.(\d)\.global_tokenizer\.pos_embed\.', r'stages.\1.carrier_init.conv.'),
    (r'^levels\.', 'stages.'),
    (r'\.hat_pos_embed\.cpb_mlp\.', '.carrier_position.cpb_mlp.'),
    (r'\.attn\.pos_emb_funct\.cpb_mlp\.', '.attn.position_bias.cpb_mlp.'),
    (r'\.hat_attn\.pos_emb_funct\.cpb_mlp\.', '.carrier_attn.position_bias.cpb_mlp.'),
    (r'\.pos_embed\.cpb_mlp\.', '.position.cpb_mlp.'),
    (r'\.cpb_mlp\.0\.', '.mlp.fc1.'),
    (r'\.cpb_mlp\.2\.', '.mlp.fc2.'),
    (r'\.hat_(norm[12]|attn|mlp)\.', r'.carrier_\1.'),
    (r'\.gamma1$', '.carrier_layer_scale1.gamma'),
    (r'\.gamma2$', '.carrier_layer_scale2.gamma'),
    (r'\.gamma3$', '.layer_scale1.gamma'),
    (r'\.gamma4$', '.layer_scale2.gamma'),
]]


# The learned bias of cells towards carriers. The authors have none, nor has a file of this backbone
# from before it.
_CARRIER_BIAS = '.position_bias.carrier_bias'
_OF_CARRIERS = '.carrier_attn.position_bias.mlp.fc2.weight'


def is_authors(tensors: Mapping[str, Tensor], prefix: str = '') -> bool:
    """Whether the names after a prefix are the authors'."""
    return any(key.startswith((f'{prefix}patch_embed.conv_down.', f'{prefix}levels.'))
               for key in tensors)


def rename_authors(tensors: Dict[str, Tensor], prefix: str = '') -> None:
    """Give tensors this backbone's names, in place; drop the classifier and what is cached.

    Args:
        tensors: A state dict. What is not below the prefix stays as it is.
        prefix: Where the backbone is in a larger model, such as ``'backbone.'``.
    """
    for key in [key for key in tensors if key.startswith(prefix)]:
        tensor, name = tensors.pop(key), key[len(prefix):]
        if _DROPPED.match(name):
            continue
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        tensors[prefix + name] = tensor
        if name.endswith(_OF_CARRIERS):
            bias = name.replace(_OF_CARRIERS, f'.attn{_CARRIER_BIAS}')
            tensors[prefix + bias] = tensor.new_zeros(tensor.shape[:1])


def fit_carrier_bias(tensors: Dict[str, Tensor], own: Mapping[str, Tensor]) -> List[str]:
    """Give tensors the carrier biases of a network, 0 where a file has none, in place.

    Those of 0 that the network does not have are taken away: it computes the same.

    Args:
        tensors: Of a file, by this backbone's names.
        own: The network's.

    Returns:
        Names of those that were added.
    """
    added = [key for key in own if is_carrier_bias(key) and key not in tensors
             and key.replace('carrier_bias', 'mlp.fc2.weight') in tensors]
    tensors.update((key, torch.zeros_like(own[key])) for key in added)
    for key in [key for key in tensors if is_carrier_bias(key) and key not in own]:
        if not tensors[key].any():
            del tensors[key]
    return added


def is_carrier_bias(name: str) -> bool:
    """Whether a tensor's name is that of a carrier bias."""
    return name.endswith(_CARRIER_BIAS)
