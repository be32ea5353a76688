"""The tensors of a file under the names of the backbone, or of a classifier that holds it."""
from typing import Dict, Mapping, Optional

from torch import Tensor

from ..backbone.names import is_authors, rename_authors
from .dino import convert_dino, is_official_dino

# Where a classifier of mmpretrain has what follows the backbone in the authors' files.
_CLASSIFIER = {'norm.': 'backbone.out_norms.3.', 'head.': 'head.fc.'}


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
    tensors = _without_module(state_dict)
    if is_official_dino(tensors):
        tensors = convert_dino(tensors, checkpoint)
    if prefix is None and any(key.startswith('backbone.') for key in tensors):
        prefix = 'backbone.'
    if prefix:
        tensors = _below(prefix.rstrip('.') + '.', tensors)
    if is_authors(tensors):
        rename_authors(tensors)
    return tensors


def translate_whole(state_dict: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """All tensors of the authors' file under the names of a model that holds the backbone.

    The model has the backbone as ``backbone``, with a BatchNorm on its last map, and the linear
    layer as ``head.fc``: mmpretrain's ``ImageClassifier`` with a ``LinearClsHead``.

    Args:
        state_dict: Tensors as the authors publish them, or of this backbone alone. Others keep
            their names.

    Returns:
        A new dict; cached position values are left out.
    """
    tensors = _without_module(state_dict)
    classifier = {}
    if is_authors(tensors):
        for key, tensor in tensors.items():
            for old, new in _CLASSIFIER.items():
                if key.startswith(old):
                    classifier[new + key[len(old):]] = tensor
        rename_authors(tensors)
    elif not any(key.startswith('stem.') for key in tensors):
        return tensors
    return {**{f'backbone.{key}': tensor for key, tensor in tensors.items()}, **classifier}


def _without_module(state_dict: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Without the prefix that data parallel training puts before every name."""
    tensors = dict(state_dict)
    if tensors and all(key.startswith('module.') for key in tensors):
        tensors = _below('module.', tensors)
    return tensors


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    return {key[len(prefix):]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
