"""Carrier tokens: where they come from, and which cells are near them."""
from typing import Tuple

import torch
from timm.models import register_notrace_function
from torch import Tensor, nn

from . import windows
from .positions import Grid, grid


class CarrierInitialiser(nn.Module):
    """Carrier tokens from a stage's input (paper section 3.3, eq. 4).

    A depthwise convolution, then an average over a region anchored at each carrier's own place.

    Args:
        dim: Channels of the map.
        window_size: Side of a window, in cells.
        ct_size: Carriers along one side of a window.
    """

    def __init__(self, dim: int, window_size: int, ct_size: int):
        super().__init__()
        self.window_size, self.ct_size = window_size, ct_size
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tuple[Tensor, Grid]:
        """(B, H, W, C), whole windows -> (B, rows, columns, ct * ct, C), and all carriers' grid."""
        x = windows.dense(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        B, H, W, C = x.shape
        down, across = (averages(n, self.window_size, self.ct_size, x) for n in (H, W))
        h, w = down.shape[0], across.shape[0]
        x = torch.bmm(down.expand(B, -1, -1), x.view(B, H, W * C)).view(B * h, W, C)
        x = torch.bmm(across.expand(B * h, -1, -1), x).view(B, h, w, C)
        return windows.partition(x, self.ct_size), grid(h, w, self.ct_size, x.device)


@register_notrace_function  # FX makes no tensors of sizes that it traces
def averages(cells: int, window_size: int, ct_size: int, like: Tensor) -> Tensor:
    """Averaging matrix (carriers, cells) of one axis: row j is 1 / kernel on its region, else 0.

    Region j begins at ``round(j * (cells - kernel) / (carriers - 1))``, so that a carrier stays at
    its own window however long the axis is. A pooling of fixed stride, as in the authors'
    any-resolution code, drifts away from the windows.

    Args:
        cells: Number of cells of the axis, whole windows.
        window_size, ct_size: As of :class:`CarrierInitialiser`.
        like: Tensor whose type and device the matrix gets.
    """
    # The region that fits the pretraining grid of two windows: 5 cells of 7 with 2 carriers.
    kernel = 2 * window_size - (2 * ct_size - 1) * (window_size // ct_size)
    carriers = cells // window_size * ct_size
    last = max(carriers - 1, 1)
    # Rounding by comparison of integers: divisions of tensors are remainders for exporters.
    begin, cell = (torch.arange(n, device=like.device) for n in (carriers, cells))
    ahead = begin[:, None] * (2 * (cells - kernel)) - cell * (2 * last)
    inside = (ahead < last) & (ahead >= (1 - 2 * kernel) * last)
    return inside.to(like.dtype) / kernel


def nearest(carriers: Tensor, ct_size: int, window_size: int) -> Tensor:
    """(..., ct * ct, C) -> (..., k * k, C): each cell's nearest carrier.

    Copies, not an index, whose gradient would be added up by atomics in 16 bits.
    """
    x = carriers.unflatten(-2, (ct_size, ct_size))
    for axis in (-3, -2):
        sides = x.split(1, axis)
        x = torch.cat([sides[cell * ct_size // window_size] for cell in range(window_size)], axis)
    return x.flatten(-3, -2)
