"""Finding a network in a file, below any prefix.

Trainers and wrappers add prefixes. :mod:`fastervit_mm.backbone.names` renames the authors' tensors.
"""
import re
from typing import Dict, Iterable, Mapping, Optional, Sequence, Set

from torch import Tensor

from ..backbone.names import is_authors, to_current
from .dino import below, convert_dino, is_official_dino
from .errors import CheckpointError

# Names in the authors' files after the backbone, and in mmpretrain's classifiers.
_CLASSIFIER = {'norm.': 'backbone.out_norms.3.', 'head.': 'head.fc.'}
# First tensors of a FasterViT, by its own and the authors' names; and of a SwinHAT and a Swin.
_FIRST = (('stem.conv1.weight', 'patch_embed.conv_down.0.weight'),
          ('stem.conv.weight', 'patch_embed.projection.weight', 'patch_embed.proj.weight'))
_USUAL = {'module', 'model', 'backbone'}
# Inserted into names by torch.compile, FSDP and checkpoint_wrapper.
WRAPPERS = re.compile(r'\b_(?:orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.')


def unwrapped(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Remove torch's wrappers from tensors' names."""
    return {WRAPPERS.sub('', name): tensor for name, tensor in tensors.items()}


def is_averaged(name: str) -> bool:
    """Whether a name such as ``model_ema`` means averaged weights."""
    return 'ema' in re.split('[._]', name.lower())


def find_place(tensors: Mapping[str, Tensor], names: Sequence[Sequence[str]], usual: Set[str],
               checkpoint: str, remedy: str) -> Optional[str]:
    """Prefix of a network's names in a file.

    Args:
        tensors: By the file's names.
        names: Names of the network's tensors, in groups; the first group found decides.
        usual: Words of the prefix to prefer among several.
        checkpoint: The file's name, for the message.
        remedy: Remedy for several prefixes, for the message; ``{}`` stands for the first.

    Returns:
        Such as ``'model.backbone.'``; None for a file without these names.

    Raises:
        CheckpointError: For several prefixes without a preferred one.
    """
    for group in names:
        # A network that a trainer holds under two names counts once.
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
    """Prefix of a backbone's names in a file.

    Args:
        tensors: By the file's names.
        prefix: The prefix, if known. Default: found.
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
    """A file's backbone tensors, by the backbone's own names.

    Args:
        state_dict: Tensors as the authors publish them, as this backbone saves them, or of a larger
            model.
        prefix: Prefix of the backbone in a larger model. Default: found by its first tensor.
        checkpoint: The file's name, for messages. Default none.

    Returns:
        The backbone's tensors, without classifier and cached position values.

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
    """Prefix of a whole model's names in a file.

    Args:
        tensors: By the file's names.
        own: The model's names. Default: unknown.
        checkpoint: The file's name, for messages. Default none.

    Raises:
        CheckpointError: For several such models.
    """
    tensors = unwrapped(tensors)
    remedy = 'Save one of them alone, without {} before its names'
    # Other networks have short names such as level_embed too.
    names = sorted((name for name in own if name.count('.') > 2), key=len, reverse=True)
    place = find_place(tensors, [[name] for name in names], _USUAL - {'backbone'}, checkpoint,
                       remedy)
    if place is None:
        place = find_place(tensors, _FIRST[:1], _USUAL, checkpoint, remedy) or ''
    return place.removesuffix('backbone.')


def translate_whole(state_dict: Mapping[str, Tensor], prefix: Optional[str] = None
                    ) -> Dict[str, Tensor]:
    """A file's tensors, by the names of a whole model.

    The authors' file becomes mmpretrain's ``ImageClassifier`` with a ``LinearClsHead``: the
    backbone as ``backbone``, with a BatchNorm on its last map, and the linear layer as ``head.fc``.

    Args:
        state_dict: Tensors as the authors publish them, of a bare backbone, or of the model, with
            any prefix. Others keep their names.
        prefix: Prefix of the model's names. Default :func:`whole_place`.

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
