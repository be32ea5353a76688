"""SwinHAT: Swin (arXiv 2103.14030) with carrier tokens in place of shifted windows."""
from functools import partial
from typing import Any, Mapping, Optional, Sequence, Tuple, Union

import torch
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from . import windows
from .attention import Block
from .base import StagedBackbone
from .carriers import CarrierInitialiser
from .positions import Bias, RelativePositionBias, biases, grid
from .recomputing import run
from .stages import check_attention, check_whole, require

ARCHS: Mapping[str, Mapping[str, Any]] = {
    'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    'small': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    'base': dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}


class PatchEmbed(nn.Sequential):
    """(B, in_channels, H, W) -> (B, dim, ceil(H / 4), ceil(W / 4)).

    Args:
        in_channels: Channels of the image.
        dim: Channels of the output.
    """
    deployed = False

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, dim, 4, stride=4)
        self.norm = LayerNorm2d(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(windows.pad(x.permute(0, 2, 3, 1), 4).permute(0, 3, 1, 2))

    def switch_to_deploy(self) -> None:
        """Fold nothing; the network counts as deployed."""
        self.deployed = True


class PatchMerging(nn.Module):
    """(B, C, H, W) -> (B, 2C, ceil(H / 2), ceil(W / 2)).

    Channels of the four cells that become one are after each other, row by row.

    Args:
        dim: Channels of the input, C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        cells = windows.partition(windows.pad(x.permute(0, 2, 3, 1), 2), 2)
        return self.reduction(self.norm(cells.flatten(3))).permute(0, 3, 1, 2)


class SwinBlock(Block):
    """Swin's block without shift, whose windows may have carriers, on a map of any size.

    Zeros make windows whole before attention; the MLP leaves them out.

    Args:
        dim, num_heads, drop_path: As of :class:`~fastervit_mm.backbone.attention.Mixer`.
        window_size: Side of a window, in cells.
        ct_size: Carriers along one side of a window; 0 for none.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, ct_size: int, drop_path: float):
        super().__init__(dim, num_heads, window_size, ct_size, drop_path=drop_path)
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty((2 * window_size - 1)**2, num_heads), std=0.02))

    def forward(self, x: Tensor, codes: Tensor, carriers: Optional[Tensor] = None,
                bias: Optional[Bias] = None, carrier_bias: Optional[Tensor] = None
                ) -> Tuple[Tensor, Optional[Tensor]]:
        """Cells and carriers -> the same two.

        Args:
            x: (B, H, W, C).
            codes: (k * k,), of the cells of a window (:class:`~.positions.Grid`).
            carriers: (B, rows, columns, ct * ct, C); None without. A block without passes them on.
            bias: Of the carriers of the image, (num_heads, N, N).
            carrier_bias: (1, num_heads, 1, 1), of cells towards carriers.
        """
        H, W, k, count = x.shape[1], x.shape[2], self.window_size, self.ct_size**2
        own, = biases(self.relative_position_bias_table.t()[None], codes, x.dtype, carrier_bias,
                      count)
        y = windows.partition(windows.pad(self.norm1(x), k), k)
        if count and carriers is not None:
            carriers = self.carriers(carriers.flatten(1, 3), bias).view(carriers.shape)
            y = torch.cat([self.norm1(carriers), y], 3)
        y = self.attn(y.flatten(0, 2), own).view(y.shape)
        if count:
            its, y = y.split([count, k * k], 3)
            carriers = self.add_mlp(carriers + self.drop_path(its))
        y = windows.unpartition(y, k, H, W)
        return self.add_mlp(x + self.drop_path(y)), carriers


class SwinStage(nn.Module):
    """Swin's blocks, every second one with carriers, whose bias follows from their grid.

    Args:
        dim, num_heads, window_size, ct_size: As of :class:`SwinBlock`.
        drop_paths: Rate of stochastic depth of each block.
        with_cp: Whether to recompute each block in the backward pass to save memory.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, ct_size: int,
                 drop_paths: Sequence[float], with_cp: bool):
        super().__init__()
        check_attention(dim, num_heads, window_size, ct_size)
        depth = len(drop_paths) // 2  # of blocks with carriers
        self.window_size, self.ct_size, self.with_cp = window_size, ct_size * (depth > 0), with_cp
        self.blocks = nn.ModuleList(
            SwinBlock(dim, num_heads, window_size, ct_size * (i % 2), rate)
            for i, rate in enumerate(drop_paths))
        if self.ct_size:
            self.carrier_init = CarrierInitialiser(dim, window_size, ct_size)
            self.carrier_position_biases = RelativePositionBias(depth, num_heads)
            # At 0, where tables begin too, a carrier is heard as a cell is.
            self.carrier_bias = nn.Parameter(torch.zeros(depth, num_heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> (B, dim, H, W), channels last in memory."""
        x = windows.dense(x.permute(0, 2, 3, 1))
        carriers, k = None, self.window_size
        codes = grid(k, k, k, x.device).codes
        if self.ct_size:
            carriers, tokens = self.carrier_init(windows.pad(x, k))
            bias = biases(self.carrier_position_biases(tokens.offsets), tokens.codes, x.dtype)
            carrier_bias = self.carrier_bias.clone()  # FLOP counters take no view of a parameter
        for i, block in enumerate(self.blocks):
            own = (bias[i // 2], carrier_bias[i // 2, None]) if block.ct_size else ()
            x, carriers = run(block, self.with_cp, x, codes, carriers, *own)
        return x.permute(0, 3, 1, 2)


@MODELS.register_module()
class SwinHAT(StagedBackbone):
    """Swin whose second block of each pair has carrier tokens where Swin shifts its windows.

    Swin's first block of a pair attends within windows; so does the first one here, with the same
    weights. Its second block attends within shifted windows, under a mask. Here the windows stay
    where they are, and exchange information through carriers: nothing is shifted or masked.
    Position terms are Swin's: a table of relative biases within windows, no embedding. Carriers
    have a relative bias of their own, computed from their grid. Any image of at least 32 x 32 goes
    through it.

    The FasterViT paper puts its attention into Swin without a description of the details: these
    are this project's. See ``docs/hierarchical_attention.md``.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, or a dict of ``embed_dims``, ``depths`` and
            ``num_heads``. Default ``'tiny'``.
        in_channels: Channels of the image. Default 3.
        window_size: Side of a window, in cells. Default 7.
        ct_size: Carriers along one side of a window, for each of the four stages or one for all;
            0 for none, and so no exchange between windows. Default 1: each token more costs what a
            cell does, and Swin has none.
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

    def __init__(self, arch: Union[str, Mapping[str, Any]] = 'tiny', in_channels: int = 3,
                 window_size: int = 7, ct_size: Union[int, Sequence[int]] = 1,
                 drop_path_rate: float = 0.2, out_indices: Sequence[int] = (0, 1, 2, 3),
                 frozen_stages: int = -1, with_cp: bool = False, convert_weights: bool = False,
                 init_cfg: Union[dict, Sequence[dict], None] = None):
        settings: Any = ARCHS.get(arch) if isinstance(arch, str) else arch
        fields = list(ARCHS['tiny'])
        require(isinstance(settings, Mapping) and set(settings) == set(fields),
                f'arch={arch!r}: give one of {list(ARCHS)}, or a dict with the fields {fields}')
        dim, depths, heads = (settings[name] for name in fields)
        check_whole(embed_dims=dim)
        check_whole(4, depths=depths, num_heads=heads)
        sizes = [ct_size] * 4 if isinstance(ct_size, int) else ct_size
        check_whole(4, least=0, ct_size=sizes)
        super().__init__(in_channels, out_indices, frozen_stages, False, init_cfg)
        self.arch, self.convert_weights = arch, convert_weights
        self.assemble(
            PatchEmbed(in_channels, dim),
            lambda i, dim, rates: SwinStage(dim, heads[i], window_size, sizes[i], rates, with_cp),
            PatchMerging, partial(LayerNorm2d, eps=1e-5), dim, depths, drop_path_rate)
