"""Carrier tokens: where they come from, and which cells are near them."""
from typing import Tuple

import torch
import torch.nn.functional as F
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
        # The region that fits the pretraining grid of two windows: 5 cells of 7 with 2 carriers.
        self.region = 2 * window_size - (2 * ct_size - 1) * (window_size // ct_size)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tuple[Tensor, Grid]:
        """(B, H, W, C), whole windows -> (B, rows, columns, ct * ct, C), and all carriers' grid."""
        carriers = [x.shape[axis] // self.window_size * self.ct_size for axis in (1, 2)]
        x = F.avg_pool2d(self.conv(x.permute(0, 3, 1, 2)), self.region, stride=1)
        x = x.permute(0, 2, 3, 1)
        for axis, count in enumerate(carriers, 1):
            x = x.index_select(axis, places(x.shape[axis], count, x.device))
        return windows.partition(x, self.ct_size), grid(*carriers, self.ct_size, x.device)


@register_notrace_function  # FX makes no tensors of sizes that it traces
def places(regions: int, carriers: int, device: torch.device) -> Tensor:
    """Where the carriers' regions begin on an axis: ``round(j * last / (carriers - 1))``.

    So a carrier stays at its own window however long the axis is. A pooling of fixed stride, as in
    the authors' any-resolution code, drifts away from the windows.

    Args:
        regions: Number of places where a region can begin, 0 to ``last``.
        carriers: Number of carriers on the axis.
        device: Of the result.
    """
    gaps = max(carriers - 1, 1)
    begin = torch.arange(carriers, device=device) * (2 * (regions - 1)) + gaps
    return begin.div(2 * gaps, rounding_mode='trunc')


def nearest(carriers: Tensor, ct_size: int, window_size: int) -> Tensor:
    """(..., ct * ct, C) -> (..., k * k, C): each cell's nearest carrier.

    Copies, not an index, whose gradient would be added up by atomics in 16 bits.
    """
    x = carriers.unflatten(-2, (ct_size, ct_size))
    for axis in (-3, -2):
        sides = x.split(1, axis)
        x = torch.cat([sides[cell * ct_size // window_size] for cell in range(window_size)], axis)
    return x.flatten(-3, -2)
