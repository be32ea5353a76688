"""Complete loading of a backbone; errors name what is missing."""
import logging
from collections import OrderedDict
from typing import Dict, List, Mapping, NamedTuple, Optional

from mmengine.logging import print_log
from mmengine.model import update_init_info
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ..backbone import VARIANTS, SwinHAT
from .errors import CheckpointError, check_finite, some
from .finding import backbone_place, translate
from .reading import entry_and_prefix, read_checkpoint, tensors_of, where_from
from .swin import (
    carrier_parts,
    convert_microsoft,
    describe_swin,
    is_carrier_part,
    rename_swin,
)

NO_FASTERVIT = 'no FasterViT'
_OUT_NORMS = 'out_norms.'


class LoadReport(NamedTuple):
    """Result of :func:`load_backbone`.

    Attributes:
        loaded: Names of tensors that came from the file.
        fresh: Names of the backbone's tensors that kept their initial values.
        unused: Names in the file, translated, that this backbone does not have.
        mismatched: Names whose shapes in file and backbone differ, with both shapes.
    """
    loaded: List[str]
    fresh: List[str]
    unused: List[str]
    mismatched: Dict[str, str]


def load_backbone(backbone: nn.Module, checkpoint: str, prefix: Optional[str] = None,
                  allow_partial: bool = False, map_location='cpu') -> LoadReport:
    """Load a FasterViT from a checkpoint, and log a summary.

    The output norms may keep their initial values: no published file contains them. Carrier biases
    that a file lacks, such as the authors', become 0. With a Swin's file, the carriers of a
    :class:`~fastervit_mm.backbone.SwinHAT` keep their initial values too. Weights for RGB images
    are adapted to a backbone of other ``in_channels`` (:func:`adapt_channels`).

    Args:
        backbone: The :class:`~fastervit_mm.FasterViT` to load into.
        checkpoint: Path, URL or ``fastervit://`` name; the authors' file, this backbone's, or a
            whole detector's, segmentor's or classifier's. For a SwinHAT, a Swin's.
        prefix: Prefix of the backbone's names in the file, such as ``'student.backbone.'``; it may
            begin with an entry of the file, such as ``'state_dict_ema'``. Default: found;
            averaged weights are taken only if there are no others.
        allow_partial: Accept a file in which tensors are missing or have other shapes.
        map_location: Argument of :func:`torch.load`. Default the CPU.

    Raises:
        FileNotFoundError: For a path without a file.
        CheckpointError: For a file that is truncated, contains code, is of another network, was
            trained with other windows (:meth:`~fastervit_mm.FasterViT.wrong_windows`), or has
            values that are not finite. The backbone is then unchanged.
    """
    content = read_checkpoint(checkpoint, map_location, mapped=True)
    entry, prefix = entry_and_prefix(content, prefix)
    found = tensors_of(content, checkpoint, entry)
    place = where_from(content, found, entry, backbone_place(found, prefix, checkpoint))
    tensors, own = _renamed(backbone, found, prefix, checkpoint), backbone.state_dict()
    adapted = adapt_channels(tensors, next(iter(own)), backbone.in_channels)
    fitting = {k: v for k, v in tensors.items() if k in own and v.shape == own[k].shape}
    mismatched = {k: f'{tuple(v.shape)} in the file, {tuple(own[k].shape)} in the backbone'
                  for k, v in tensors.items() if k in own and v.shape != own[k].shape}
    new = _new_carriers(backbone, tensors)
    needed = [k for k in own if _must_be_filled(k) and k not in new]
    unfilled = [k for k in needed if k not in fitting]
    if len(unfilled) == len(needed):
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: not a {type(backbone).__name__}: no tensor in it has a '
            f'name and a shape of the backbone\'s. It looks like '
            f'{describe(tensors)}; its first names are {list(tensors)[:4]}'
            + ('' if prefix is None else f' below prefix={prefix!r}'))
    unused = [k for k in tensors if k not in own]
    surplus = [k for k in unused if _must_be_filled(k) and _belongs_to_built_part(k, own)]
    if (unfilled or surplus) and not allow_partial:
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: does not fit this backbone (arch='
            f'{getattr(backbone, "arch", "?")!r}): {_problems(unfilled, mismatched, surplus)}. '
            f'{_remedy(backbone, tensors, mismatched)}allow_partial=True in init_cfg loads what '
            'fits')
    check_windows(backbone, found, checkpoint, prefix)
    check_finite(fitting, checkpoint)
    backbone.load_state_dict(OrderedDict(fitting), strict=False)

    zero = [k for k in fitting if k.endswith('carrier_bias')
            and not any(k.endswith('carrier_bias') for k in found)]
    report = LoadReport([k for k in fitting if k not in zero], [k for k in own if k not in fitting],
                        unused, mismatched)
    print_log(f'{type(backbone).__name__}: {len(report.loaded)} of {len(own)} tensors loaded from '
              f'{checkpoint}{place}{adapted}{_rest(report, new, zero)}', logger='current',
              level=logging.WARNING if unfilled or surplus else logging.INFO)
    return report


def _renamed(backbone: nn.Module, found: Mapping[str, Tensor], prefix: Optional[str],
             checkpoint: str) -> Dict[str, Tensor]:
    """A file's backbone tensors, by the backbone's own names."""
    swin = isinstance(backbone, SwinHAT)
    if swin and backbone.convert_weights:
        found = convert_microsoft(found, checkpoint)
    tensors = translate(found, prefix, checkpoint)
    return rename_swin(tensors, checkpoint) if swin else tensors


def adapt_channels(tensors: Dict[str, Tensor], name: str, channels: int) -> str:
    """Adapt an RGB network's first convolution to other channels, as timm does.

    One channel gets the sum of the three weights. More get them in turn, red, green, blue, red, …,
    times 3 / ``channels``.

    Args:
        tensors: A network's tensors, changed in place.
        name: Name of the first convolution's weight; nothing happens if it is absent.
        channels: Channels of the images.

    Returns:
        What was done, for the log; ``''`` for nothing.
    """
    weight = tensors.get(name)
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or channels == 3:
        return ''
    tensors[name] = adapt_input_conv(channels, weight.clone())
    return f'; {name} adapted from 3 channels to {channels}'


def _new_carriers(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> List[str]:
    """A SwinHAT's carrier tensors that a Swin's file lacks."""
    new = [k for k in backbone.state_dict() if isinstance(backbone, SwinHAT) and is_carrier_part(k)]
    return [] if any(k in tensors for k in new) else new


def _problems(unfilled: List[str], mismatched: Mapping[str, str], surplus: List[str]) -> str:
    said = [f'{len(unfilled)} tensors of the backbone would stay random ({some(unfilled)})'] * bool(
        unfilled)
    if mismatched:
        name, shapes = next(iter(mismatched.items()))
        said.append(f'{len(mismatched)} have another shape ({name}: {shapes})')
    if surplus:
        said.append(f'{len(surplus)} tensors of the file have no place ({some(surplus)})')
    return '; '.join(said)


def check_windows(backbone: nn.Module, state_dict: Mapping[str, Tensor], checkpoint: str,
                  prefix: Optional[str] = None) -> None:
    """Raise an error for weights trained with other windows.

    Args:
        backbone: The :class:`~fastervit_mm.FasterViT`.
        state_dict: The file's tensors under its own names.
        checkpoint: The file's name, for the message.
        prefix: Prefix of the backbone's names in a larger model. Default: found.

    Raises:
        CheckpointError: Says which windows, and what to set.
    """
    wrong = backbone.wrong_windows(state_dict)
    if wrong is None:
        return
    tensors, own = translate(state_dict, prefix, checkpoint), backbone.state_dict()
    adapt_channels(tensors, next(iter(own)), backbone.in_channels)
    if all(key in tensors and tensors[key].shape == value.shape
           for key, value in own.items() if _must_be_filled(key)):
        raise CheckpointError(f'checkpoint={checkpoint!r}: {wrong}')


def describe(tensors: Mapping[str, Tensor]) -> str:
    """Name the variant with tensors of these shapes."""
    shapes = {k: tuple(v.shape) for k, v in tensors.items()}
    try:
        seen = dict(
            stem_channels=shapes['stem.conv1.weight'][0],
            embed_dim=shapes['stem.conv2.weight'][0],
            depths=tuple(len({k.split('.')[3] for k in shapes
                              if k.startswith(f'stages.{s}.blocks.')}) for s in range(4)),
            num_heads=tuple(shapes[f'stages.{s}.position_biases.weight2'][1]
                            for s in (2, 3)),
            hierarchical='stages.2.carrier_init.conv.weight' in shapes)
    except (KeyError, IndexError):
        return NO_FASTERVIT
    names = [name for name, v in VARIANTS.items()
             if dict(stem_channels=v.stem_channels, embed_dim=v.embed_dim, depths=v.depths,
                     num_heads=v.num_heads[2:], hierarchical=v.hierarchical) == seen]
    if names:
        return ' or '.join(f'arch={name!r}' for name in names)
    return f'a custom FasterViT with {seen}'


class PretrainedBackbone:
    """Initializer for a FasterViT's ``init_cfg=dict(type='Pretrained', ...)``.

    The arguments are those of :func:`load_backbone`.
    """

    def __init__(self, checkpoint: str, prefix: Optional[str] = None, allow_partial: bool = False,
                 map_location='cpu'):
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.allow_partial = allow_partial
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        load_backbone(module, self.checkpoint, self.prefix, self.allow_partial, self.map_location)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'Pretrained: load from {self.checkpoint}')


def _remedy(backbone: nn.Module, tensors: Mapping[str, Tensor], mismatched: Mapping[str, str]
            ) -> str:
    first = next(iter(backbone.state_dict()))
    if list(mismatched) == [first]:
        channels = tensors[first].shape[1]
        return f'The file is for images of {channels} channels. Set in_channels={channels}; '
    swin, looks_like = isinstance(backbone, SwinHAT), describe(tensors)
    if swin and (other := describe_swin(tensors)):
        return f'The file looks like {other}. Set arch and window_size to that; '
    if looks_like == NO_FASTERVIT:
        return 'Stages are missing in the file. '
    if swin:
        return (f'The file looks like a FasterViT, {looks_like}, and a SwinHAT takes files of a '
                'Swin. ')
    return f'The file looks like {looks_like}. Set arch to that; '


def _must_be_filled(key: str) -> bool:
    # BatchNorm uses its counter only with momentum=None, and old files lack it.
    return not key.startswith(_OUT_NORMS) and not key.endswith('num_batches_tracked')


def _belongs_to_built_part(key: str, own: Mapping[str, Tensor]) -> bool:
    """Whether an unknown tensor belongs to a built stage.

    Stages after the last output are not built, and stages that are not outputs have no output
    norm, so their tensors are unused. Unknown tensors of a built stage mean another network.
    """
    part = '.'.join(key.split('.')[:2]) + '.'
    return key.startswith(('stem.', 'stages.', 'downsamples.')) and any(
        k.startswith(part) for k in own)


def _rest(report: LoadReport, new: List[str], zero: List[str]) -> str:
    """Describe what was not loaded, for the log."""
    norms = [k for k in report.fresh if k.startswith(_OUT_NORMS)]
    others = [k for k in report.fresh if k not in norms and k not in new]
    keep = ([f'{len(norms)} of output norms'] if norms else []) + (
        [f'{len(new)} of carriers ({carrier_parts(new)})'] if new else []) + (
        [f'{len(others)} others ({some(others)})'] if others else [])
    return (f'; {" and ".join(keep)} keep their initial values' * bool(keep)
            + '; carrier biases absent, set to 0' * bool(zero)
            + f'; {len(report.unused)} of the file not needed' * bool(report.unused))
