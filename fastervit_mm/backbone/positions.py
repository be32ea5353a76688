"""Position terms: small MLPs over coordinates, those of all blocks of a stage at once.

They follow the real grid, one axis at a time, so a grid of any shape works and a square one gives
the authors' values. An axis of one cell has the single coordinate 0.
"""
import math
from typing import Any, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from timm.models import register_notrace_function, register_notrace_module
from torch import Tensor, nn

from ..compat import is_compiling, without_autocast
from .windows import partition

_DENSE_TOKENS = 1024  # with more, the bias of all pairs would be the largest tensor of the network


class Grid(NamedTuple):
    """Tokens of a grid of h x w, window after window, each in raster order.

    Attributes:
        coordinates: (h * w, 2), -1 to 1 about the middle: index ``i`` of ``n`` becomes
            ``(i - n // 2) / (n // 2)``.
        offsets: (M, 2), every offset between two tokens, M = (2h - 1)(2w - 1): ``d`` along an axis
            of ``n`` becomes ``t = 8 d / (n - 1)``, then ``sign(t) log2(1 + |t|) / 3`` (Swin V2,
            eq. 4).
        codes: (h * w,), integers: the difference of two, plus the last, is the index of an offset.
    """
    coordinates: Tensor
    offsets: Tensor
    codes: Tensor


@register_notrace_function  # FX makes no tensors of sizes that it traces
def grid(h: int, w: int, size: int, device: Union[torch.device, str]) -> Grid:
    """The tokens of windows of ``size x size`` on a grid of h x w."""
    def pairs(rows: Tensor, columns: Tensor) -> Tensor:
        return torch.stack(torch.meshgrid(rows, columns, indexing='ij'), -1)

    steps = [torch.arange(1 - n, n, device=device) for n in (h, w)]
    coordinates = pairs(*(step[n - 1 - n // 2:][:n] / max(n // 2, 1)
                          for n, step in zip((h, w), steps)))
    t = 8 * pairs(*(step / max(n - 1, 1) for n, step in zip((h, w), steps)))
    codes = torch.arange(h * (2 * w - 1), device=device).view(1, h, 2 * w - 1, 1)[:, :, :w]
    return Grid(partition(coordinates[None], size).flatten(0, 3),
                (t.sign() * torch.log1p(t.abs())).flatten(0, 1) / math.log(8),
                partition(codes, size).flatten())


@register_notrace_module  # for autocast's context
class PositionMLP(nn.Module):
    """An MLP over pairs of coordinates for each block of a stage (paper section 3.3).

    Args:
        depth: Number of blocks.
        width: Width of the output.
        hidden: Width of the hidden layer. Paper: 512.
    """

    def __init__(self, depth: int, width: int, hidden: int = 512):
        super().__init__()
        self.weight1 = nn.Parameter(torch.empty(depth, hidden, 2))
        self.bias1 = nn.Parameter(torch.zeros(depth, hidden))
        self.weight2 = nn.Parameter(torch.empty(depth, width, hidden))
        for weight in (self.weight1, self.weight2):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, pairs: Tensor) -> Tensor:
        """(N, 2) -> (depth, N, width), at least in float32: 16 bits would merge neighbours."""
        dtype = torch.promote_types(self.weight1.dtype, torch.float32)
        weight1, bias1, weight2 = (p.to(dtype) for p in self.parameters())
        with without_autocast(pairs.device):
            hidden = F.linear(pairs.to(weight1), weight1.flatten(0, 1), bias1.flatten()).relu()
            hidden = hidden.unflatten(-1, bias1.shape).transpose(0, 1)
            return torch.bmm(hidden, weight2.transpose(1, 2))


class RelativePositionBias(PositionMLP):
    """Bias of attention logits by offset, ``16 sigmoid(MLP)`` (Swin V2, eq. 3): 8 untrained."""

    def forward(self, pairs: Tensor) -> Tensor:
        """(M, 2) -> tables (depth, num_heads, M)."""
        return 16 * super().forward(pairs).transpose(1, 2).sigmoid()


class Constant(nn.Module):
    """What takes the place of an MLP in a deployed network: its output.

    Args:
        value: The output, in no checkpoint.
    """

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer('value', value, persistent=False)

    def forward(self, pairs: Tensor) -> Tensor:
        return self.value


class BandedBias(NamedTuple):
    """The bias of many tokens, looked up for some queries at a time: memory is linear in tokens.

    Attributes:
        table: (..., M), of every offset.
        codes: (N,), of :class:`Grid`.
    """
    table: Tensor
    codes: Tensor

    def rows(self, queries: slice = slice(None)) -> Tensor:
        """(..., queries, N), of pairs of tokens."""
        codes = self.codes.to(self.table.device)
        index = codes[queries, None] - codes + codes[-1]
        # On a CPU twice as fast as table[..., index], also backward.
        return self.table.gather(-1, index.flatten().expand(*self.table.shape[:-1], -1)).unflatten(
            -1, index.shape)


Bias = Union[Tensor, BandedBias]


@register_notrace_function  # a branch on the number of tokens
def biases(tables: Tensor, codes: Tensor, dtype: torch.dtype,
           carrier_bias: Optional[Tensor] = None, carriers: int = 0) -> Sequence[Bias]:
    """The bias of every pair of tokens, for each block.

    Args:
        tables: (depth, num_heads, M), of every offset.
        codes: (n,), of :class:`Grid`.
        dtype: Of the biases.
        carrier_bias: (depth, num_heads, 1, 1), of a window's cells towards its carriers. Of the
            carriers, which have no place, it is 0 towards all. Default None.
        carriers: Number of carriers before the cells. Default 0.

    Returns:
        (num_heads, N, N) each, N = carriers + n, rows aligned to 8 numbers, as fused GPU kernels
        need it; beyond 1024 tokens without carriers, in bands. A graph for all sizes cannot hold
        their loop.
    """
    if carrier_bias is None and not is_compiling() and len(codes) > _DENSE_TOKENS:
        return [BandedBias(table, codes) for table in tables]
    bias = BandedBias(tables, codes).rows()
    if carrier_bias is not None:
        bias = torch.cat([carrier_bias.expand(*bias.shape[:-1], carriers), bias], -1)
        bias = F.pad(bias, (0, -bias.shape[-1] % 8, carriers, 0))
    return bias.to(dtype)[..., :bias.shape[-2]].unbind(0)


def terms(positions: nn.Module, position_biases: nn.Module, tokens: Grid, dtype: torch.dtype,
          *carriers: Any) -> Tuple[Sequence[Tensor], Sequence[Bias]]:
    """The embeddings of tokens and the biases of their attention, for each block.

    Args:
        positions, position_biases: The two MLPs.
        tokens: The tokens, without carriers.
        dtype: Of the terms.
        *carriers: ``carrier_bias`` and ``carriers`` of :func:`biases`.
    """
    return (positions(tokens.coordinates).to(dtype).unbind(0),
            biases(position_biases(tokens.offsets), tokens.codes, dtype, *carriers))
