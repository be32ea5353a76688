"""Finding a network among a file's tensors, whatever trainers and wrappers put before its names.

The authors' own names become this backbone's in :mod:`fastervit_mm.backbone.names`.
"""
import re
from typing import Dict, Iterable, Mapping, Optional, Sequence, Set

from torch import Tensor

from ..backbone.names import is_authors, to_current
from .dino import below, convert_dino, is_official_dino
from .errors import CheckpointError

# Where a classifier of mmpretrain has what follows the backbone in the authors' files.
_CLASSIFIER = {'norm.': 'backbone.out_norms.3.', 'head.': 'head.fc.'}
# The first tensors of a FasterViT, its own and the authors'; and of a SwinHAT and a Swin.
_FIRST = (('stem.conv1.weight', 'patch_embed.conv_down.0.weight'),
          ('stem.conv.weight', 'patch_embed.projection.weight', 'patch_embed.proj.weight'))
_USUAL = {'module', 'model', 'backbone'}
# Put between names by torch.compile, FSDP and checkpoint_wrapper.
WRAPPERS = re.compile(r'\b_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.')


def unwrapped(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Remove the names of torch's wrappers of modules from tensors' names."""
    return {WRAPPERS.sub('', name): tensor for name, tensor in tensors.items()}


def is_averaged(name: str) -> bool:
    """Whether an entry or a prefix, such as ``model_ema``, names averaged weights."""
    return 'ema' in re.split('[._]', name.lower())


def find_place(tensors: Mapping[str, Tensor], names: Sequence[Sequence[str]], usual: Set[str],
               checkpoint: str, remedy: str) -> Optional[str]:
    """The prefix of a network's names in a file.

    Args:
        tensors: By the file's names.
        names: Names of the network's tensors, in groups; the first group that is found tells.
        usual: Words of the prefix that is taken where there are several.
        checkpoint: The file's name, for the message.
        remedy: What to do about several, for the message; ``{}`` in it is the first prefix.

    Returns:
        Such as ``'model.backbone.'``; None for a file that has none of the names.

    Raises:
        CheckpointError: For several, none of which is the usual one.
    """
    for group in names:
        # A network that a trainer holds under two names is one.
        found = {tensor.data_ptr(): key[:len(key) - len(name)]
                 for key, tensor in reversed(tensors.items()) for name in group
                 if key == name or key.endswith(f'.{name}')}
        places = list(dict.fromkeys(found.values()))[::-1]
        plain = [place for place in places if set(place.split('.')) <= {'', *usual}]
        if len(places) == 1 or len(plain) == 1:
            return (plain or places)[0]
        if places:
            raise CheckpointError(
                f'checkpoint={checkpoint!r}: holds this network {len(places)} times, below '
                f'{", ".join(map(repr, places))}. {remedy.format(repr(places[0]))}')
    return None


def backbone_place(tensors: Mapping[str, Tensor], prefix: Optional[str] = None,
                   checkpoint: str = '') -> str:
    """The prefix of a backbone's names in a file.

    Args:
        tensors: By the file's names.
        prefix: The one that was asked for. Default none: found.
        checkpoint: The file's name, for messages. Default none.

    Raises:
        CheckpointError: For several backbones.
    """
    tensors = unwrapped(tensors)
    if prefix is None:
        found = find_place(tensors, _FIRST, _USUAL, checkpoint,
                           'Say which: prefix={} (tools/convert_weights.py: --prefix)')
        return found if found is not None else 'backbone.' * any(
            key.startswith('backbone.') for key in tensors)
    place = WRAPPERS.sub('', f'{prefix}.').rstrip('.')
    places = [f'{before}{place}.' for before in ('', 'module.')] if place else ['']
    return next((p for p in places if any(key.startswith(p) for key in tensors)), places[0])


def translate(state_dict: Mapping[str, Tensor],
              prefix: Optional[str] = None, checkpoint: str = '') -> Dict[str, Tensor]:
    """The backbone's tensors in a file, under the backbone's own names.

    Args:
        state_dict: Tensors as the authors publish them, as this backbone saves them, or of a larger
            model.
        prefix: Where the backbone is in a larger model. Default: where the file has a backbone's
            first tensor.
        checkpoint: The file's name, for messages. Default none.

    Returns:
        What belongs to the backbone; the classifier and cached position values are left out.

    Raises:
        CheckpointError: For an official DINO detector that cannot be converted, and for several
            backbones in a file.
    """
    tensors = unwrapped(state_dict)
    if is_official_dino(tensors):
        tensors = convert_dino(tensors, checkpoint)
    tensors = below(backbone_place(tensors, prefix, checkpoint), tensors)
    to_current(tensors)
    return tensors


def whole_place(tensors: Mapping[str, Tensor], own: Iterable[str] = (),
                checkpoint: str = '') -> str:
    """The prefix of a whole model's names in a file, or of the authors' there.

    Args:
        tensors: By the file's names.
        own: The model's names. Default not known.
        checkpoint: The file's name, for messages. Default none.

    Raises:
        CheckpointError: For several such models.
    """
    tensors = unwrapped(tensors)
    remedy = 'Save one of them alone, without {} before its names'
    # Short names such as level_embed are in other networks too.
    names = sorted((name for name in own if name.count('.') > 2), key=len, reverse=True)
    place = find_place(tensors, [[name] for name in names], _USUAL - {'backbone'}, checkpoint,
                       remedy)
    if place is None:
        place = find_place(tensors, _FIRST[:1], _USUAL, checkpoint, remedy) or ''
    return place.removesuffix('backbone.')


def translate_whole(state_dict: Mapping[str, Tensor], prefix: Optional[str] = None
                    ) -> Dict[str, Tensor]:
    """All tensors of a file, under the names of a model that holds the backbone.

    The authors' file has the model's backbone as ``backbone``, with a BatchNorm on its last map,
    and the linear layer as ``head.fc``: mmpretrain's ``ImageClassifier`` with a ``LinearClsHead``.

    Args:
        state_dict: Tensors as the authors publish them, of this backbone alone, or of the model,
            with any prefix. Others keep their names.
        prefix: Of the model's names. Default :func:`whole_place`.

    Returns:
        A new dict; cached position values are left out.
    """
    tensors = below(whole_place(state_dict) if prefix is None else prefix, unwrapped(state_dict))
    classifier = {}
    if is_authors(tensors):
        for key, tensor in tensors.items():
            for old, new in _CLASSIFIER.items():
                if key.startswith(old):
                    classifier[new + key[len(old):]] = tensor
    elif not any(key.startswith('stem.') for key in tensors):
        to_current(tensors, 'backbone.')
        return tensors
    to_current(tensors)
    return {**{f'backbone.{key}': tensor for key, tensor in tensors.items()}, **classifier}
