"""Maps of backbones and necks, found by running them."""
import itertools
import math
import warnings
from copy import deepcopy
from typing import Any, Callable, List, NamedTuple, Sequence, Tuple

import torch
from mmengine.registry import MODELS
from torch import Tensor

from ..config_files import ConfigError
from ..models import type_name

# Image sides in pixels, tried in turn: SSD's last maps need the first; some ViTs and necks take
# only the size of their config's crops.
_SIDES = (320, 512, 640)
_STRIDES = (4, 8, 16, 32)  # of FasterViT's stages


class Map(NamedTuple):
    """Channels of a feature map, and its stride in pixels."""
    width: int
    stride: int


def backbone_maps(settings: dict) -> List[Map]:
    """Run a backbone to find its maps.

    Args:
        settings: The backbone's in a config; pretrained weights are not loaded.

    Raises:
        ConfigError: If it cannot be built or run here, or gives anything but maps.
    """
    settings = dict(deepcopy(settings), init_cfg=None)
    if 'pretrained' in settings:  # timm loads weights while building
        settings['pretrained'] = type(settings['pretrained'] or '')()
    with torch.no_grad():
        return _run('backbone', settings, lambda side, device: torch.zeros(
            1, settings.get('in_channels', 3), side, side, device=device))[0]


def fastervit_maps(widths: Sequence[int]) -> List[Map]:
    """Maps of FasterViT's four stages, from their widths."""
    return [Map(*both) for both in zip(widths, _STRIDES)]


def neck_maps(neck: Any, maps: Sequence[Map]) -> Tuple[List[Map], List[int]]:
    """Run a neck to find its maps.

    Args:
        neck: Its settings in a config, or a list of settings.
        maps: The backbone's.

    Returns:
        The neck's maps, and the indices of the backbone's maps that they depend on; output norms of
        the others would get no gradient.

    Raises:
        ConfigError: For a neck that cannot be built or run here.
    """
    given: List[Tensor] = []

    def inputs(side: int, device: str) -> Tuple[Tensor, ...]:
        given[:] = [torch.zeros(1, m.width, side // m.stride, side // m.stride, device=device,
                                requires_grad=True) for m in maps]
        return tuple(given)

    made, out = _run('neck', deepcopy(neck), inputs)
    grads = torch.autograd.grad(sum(m.sum() for m in out), given, allow_unused=True)
    return made, [i for i, grad in enumerate(grads) if grad is not None]


def choose_stages(maps: Sequence[Map]) -> Tuple[int, ...]:
    """FasterViT's stages nearest to a backbone's maps, in order.

    All four for a ResNet dilated after its second stage, with strides 4, 8, 8 and 8.

    Raises:
        ConfigError: For more than four maps, or maps of one stride.
    """
    strides = [m.stride for m in maps]
    if len(maps) > len(_STRIDES) or strides != sorted(strides):
        raise ConfigError(f'model.backbone: its maps have strides {strides}, which FasterViT\'s '
                          f'stages, of strides {list(_STRIDES)}, cannot replace')

    def distance(stages: Tuple[int, ...]) -> Tuple[float, int]:
        return (sum(abs(math.log2(_STRIDES[stage] / stride))
                    for stage, stride in zip(stages, strides)), -sum(stages))

    return min(itertools.combinations(range(len(_STRIDES)), len(maps)), key=distance)


def _run(what: str, settings: Any, inputs: Callable) -> Tuple[List[Map], List[Tensor]]:
    """Build and run a part, preferably on the meta device."""
    kinds = ', '.join(type_name(s) for s in (settings if isinstance(settings, list)
                                             else [settings]))
    reason = ''
    for side, device in itertools.product(_SIDES, ('meta', 'cpu')):
        try:
            with warnings.catch_warnings(), torch.device(device):
                warnings.simplefilter('ignore')
                part = MODELS.build(settings)
                part.eval()  # some return None
                out = part(inputs(side, device))
        except Exception as error:  # anybody's code
            if device == 'cpu':
                reason = reason or f'{type(error).__name__}: {" ".join(str(error).split())}'
        else:
            out = list(out) if isinstance(out, (tuple, list)) else [out]
            if not all(isinstance(m, Tensor) and m.ndim == 4 for m in out):
                raise ConfigError(f'model.{what}: {kinds} does not give feature maps')
            return [Map(m.shape[1], 2**round(math.log2(side / m.shape[-1]))) for m in out], out
    raise ConfigError(f'model.{what}: {kinds} cannot be run here, so its maps are not known '
                      f'({reason})')
