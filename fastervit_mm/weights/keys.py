"""From the names of tensors in the authors' files to the backbone's."""
import re
from typing import Dict, Mapping, Optional

from torch import Tensor

# Cached values that depend on the grid, and the classifier behind the backbone.
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


def is_authors(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are the authors'."""
    return any(key.startswith(('patch_embed.conv_down.', 'levels.')) for key in state_dict)


def translate(state_dict: Mapping[str, Tensor],
              prefix: Optional[str] = None) -> Dict[str, Tensor]:
    """Tensors of the backbone under the backbone's names, whatever the file calls them.

    Args:
        state_dict: Tensors as the authors publish them, as this backbone saves them, or a whole
            detector's, segmentor's or classifier's.
        prefix: Where the backbone is in a larger model. Default: ``backbone.``, where any tensor
            has that prefix.

    Returns:
        What belongs to the backbone; the classifier and cached position values are left out.
    """
    tensors = dict(state_dict)
    if tensors and all(key.startswith('module.') for key in tensors):
        tensors = _below('module.', tensors)
    if prefix is None and any(key.startswith('backbone.') for key in tensors):
        prefix = 'backbone.'
    if prefix:
        tensors = _below(prefix.rstrip('.') + '.', tensors)
    if not is_authors(tensors):
        return tensors
    translated = {}
    for key, tensor in tensors.items():
        if _DROPPED.match(key):
            continue
        for pattern, replacement in _RENAMED:
            key = pattern.sub(replacement, key)
        translated[key] = tensor
    return translated


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    return {key[len(prefix):]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
