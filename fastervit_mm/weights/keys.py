"""The backbone's tensors out of a file, under the backbone's names."""
from typing import Dict, Mapping, Optional

from torch import Tensor

from ..backbone.names import is_authors, rename_authors


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
    if is_authors(tensors):
        rename_authors(tensors)
    return tensors


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    return {key[len(prefix):]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
