"""SwinHAT: Swin (arXiv 2103.14030) with carrier tokens in place of shifted windows."""
from typing import Any, Mapping, Optional, Sequence, Union

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..compat import is_compiling
from . import windows
from .fastervit import NUM_STAGES, FasterViT, checked_init_cfg, checked_out_indices
from .stages import HierarchicalAttention

ARCHS: Mapping[str, Mapping[str, Any]] = {
    'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'small': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    'base': dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}
_EPS = 1e-5  # of Swin's norms


class PatchEmbed(nn.Sequential):
    """(B, in_channels, H, W) -> (B, dim, ceil(H / 4), ceil(W / 4)).

    Args:
        in_channels: Channels of the image.
        dim: Channels of the output.
    """

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, dim, 4, stride=4)
        self.norm = LayerNorm2d(dim, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(windows.pad(x, 4, is_compiling()))


class PatchMerging(nn.Module):
    """(B, C, H, W) -> (B, 2C, ceil(H / 2), ceil(W / 2)).

    Channels of the four cells that become one are after each other, row by row.

    Args:
        dim: Channels of the input, C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=_EPS)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        symbolic = is_compiling()
        cells, grid = windows.partition(windows.pad(x, 2, symbolic), 2, symbolic)
        x = self.reduction(self.norm(cells.flatten(2)))  # (B, h * w, 2C)
        return x.view(x.shape[0], *grid, x.shape[2]).permute(0, 3, 1, 2)


@MODELS.register_module()
class SwinHAT(FasterViT):
    """Swin whose second block of each pair has carrier tokens where Swin shifts its windows.

    Swin's first block of a pair attends within windows; so does the first one here, with the same
    weights. Its second block attends within shifted windows, under a mask. Here the windows stay
    where they are, and exchange information through :class:`~fastervit_mm.HierarchicalAttention`'s
    carriers: nothing is shifted or masked. Position terms are Swin's: a table of relative biases
    within windows, no embedding. Carriers have a relative bias of their own, computed from their
    grid. Any image of at least 32 x 32 goes through it.

    The FasterViT paper puts its attention into Swin without a description of the details: these
    are this project's. See ``docs/swin_hat.md``.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, or a dict of ``embed_dims``, ``depths`` and
            ``num_heads``. Default ``'tiny'``.
        in_channels: Channels of the image. Default 3.
        window_size: Side of a window, in cells. Default 7.
        mlp_ratio: Hidden width of a block's MLP over its own width. Default 4.
        ct_size: Carriers along one side of a window, for each of the four stages or one for all;
            None for none, and so no exchange between windows. Default 1: each token more costs
            what a cell does, and Swin has none.
        propagate_carriers: Whether the last block of a stage adds its carriers to the map. Default
            False.
        carrier_bias: Initial value of the learned bias of cells towards carriers, as of
            :class:`~fastervit_mm.HierarchicalAttention`. Default ``'equal'``: 0, with which
            carriers count as cells do, whose biases start near 0.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0. Default 0.2.
        out_indices, frozen_stages, with_cp: As of :class:`~fastervit_mm.FasterViT`.
        convert_weights: Whether ``init_cfg``'s checkpoint may have the names of Microsoft's
            repository, for which mmdet's conversion is used. Default False.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=...)`` takes a file of a Swin,
            and fills all that the two networks share or raises an error; or a file of this
            network. Default: linear layers from a truncated normal of std 0.02.

    Attributes:
        out_channels (tuple[int]): Width of each output.

    Raises:
        ValueError: For an argument out of range; the message says what would be right.
    """

    def __init__(self,
                 arch: Union[str, Mapping[str, Any]] = 'tiny',
                 in_channels: int = 3,
                 window_size: int = 7,
                 mlp_ratio: float = 4.0,
                 ct_size: Union[int, Sequence[Optional[int]], None] = 1,
                 propagate_carriers: bool = False,
                 carrier_bias: Union[float, str, None] = 'equal',
                 drop_path_rate: float = 0.2,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1,
                 with_cp: bool = False,
                 convert_weights: bool = False,
                 init_cfg: Union[dict, Sequence[dict], None] = None):
        settings = _settings(arch)
        out_indices = checked_out_indices(out_indices, 'SwinHAT')
        sizes = (ct_size,) * NUM_STAGES if ct_size is None or isinstance(ct_size, int) else (
            tuple(ct_size))
        if len(sizes) != NUM_STAGES:
            raise ValueError(f'ct_size={ct_size!r}: give one number, or one for each of '
                             f'{NUM_STAGES} stages')
        if not (isinstance(drop_path_rate, (int, float)) and 0 <= drop_path_rate < 1):
            raise ValueError(f'drop_path_rate={drop_path_rate!r}: give a rate from 0 up to, not '
                             'including, 1')
        BaseModule.__init__(self, checked_init_cfg(init_cfg))
        self.arch = arch
        self.convert_weights = convert_weights
        depths, dim = settings['depths'], settings['embed_dims']
        rates = torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist()
        dims = [dim * 2**stage for stage in range(NUM_STAGES)]
        built = range(out_indices[-1] + 1)
        self._assemble(
            PatchEmbed(in_channels, dim),
            [HierarchicalAttention(
                dims[stage], depths[stage], settings['num_heads'][stage], window_size,
                ct_size=sizes[stage] if depths[stage] > 1 else None,
                propagate_carriers=propagate_carriers, mlp_ratio=mlp_ratio,
                carrier_bias=carrier_bias,
                drop_paths=rates[sum(depths[:stage]):sum(depths[:stage + 1])],
                absolute_position=False, relative_position='table', carriers_every=2,
                padding='block', with_cp=with_cp) for stage in built],
            [PatchMerging(dims[stage]) for stage in built[:-1]],
            lambda width: LayerNorm2d(width, eps=_EPS), dims, in_channels, out_indices,
            frozen_stages, norm_eval=False, with_cp=with_cp)

    def other_windows(self, tensors: Mapping[str, Tensor]) -> None:
        """None: for other windows the tables of biases have other shapes, which loading checks."""
        return None


def _settings(arch: Union[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    if isinstance(arch, str) and arch in ARCHS:
        return ARCHS[arch]
    fields = list(ARCHS['tiny'])
    if not isinstance(arch, Mapping) or sorted(arch) != sorted(fields):
        raise ValueError(f'arch={arch!r}: give one of {list(ARCHS)}, or a dict with the fields '
                         f'{fields}')
    for name in ('depths', 'num_heads'):
        if not isinstance(arch[name], (list, tuple)) or len(arch[name]) != NUM_STAGES or not all(
                isinstance(value, int) and value > 0 for value in arch[name]):
            raise ValueError(f'{name}={arch[name]!r}: Swin has four stages, give four numbers of '
                             'at least 1')
    if not isinstance(arch['embed_dims'], int) or arch['embed_dims'] < 1:
        raise ValueError(f'embed_dims={arch["embed_dims"]!r}: give a whole number of at least 1')
    return arch
