"""The backbone's tensors out of a file, under the backbone's names."""
from typing import Dict, Mapping, Optional

from torch import Tensor

from ..backbone.names import is_authors, rename_authors
from .dino import convert_dino, is_official_dino


def translate(state_dict: Mapping[str, Tensor],
              prefix: Optional[str] = None, checkpoint: str = '') -> Dict[str, Tensor]:
    """Tensors of the backbone under the backbone's names, whatever the file calls them.

    Args:
        state_dict: Tensors as the authors publish them, as this backbone saves them, or a whole
            detector's, segmentor's or classifier's.
        prefix: Where the backbone is in a larger model. Default: ``backbone.``, where any tensor
            has that prefix.
        checkpoint: The file's name, for messages. Default none.

    Returns:
        What belongs to the backbone; the classifier and cached position values are left out.

    Raises:
        CheckpointError: For an official DINO detector that cannot be converted.
    """
    tensors = dict(state_dict)
    if is_official_dino(tensors):
        tensors = convert_dino(tensors, checkpoint)
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
