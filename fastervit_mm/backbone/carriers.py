"""Carrier tokens: where they come from."""
from typing import Tuple

import torch
from torch import Tensor, nn

from . import windows
from .keeping import Kept


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
        self.window_size = window_size
        self.ct_size = ct_size
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        # The region that fits the pretraining grid of two windows a side: 5 cells for a window
        # of 7 with 2 carriers.
        self.kernel_size = 2 * window_size - (2 * ct_size - 1) * (window_size // ct_size)
        self.kept = Kept()

    def forward(self, x: Tensor, symbolic: bool = False) -> Tensor:
        """(B, C, H, W), whole windows -> (B, windows, ct * ct, C).

        Args:
            x: The map.
            symbolic: As in :func:`windows.pad`. Default False.
        """
        x = self.conv(x)
        sizes = tuple(x.shape[2:])

        def matrices() -> Tuple[Tensor, Tensor]:
            return self.pooling_matrix(sizes[0], x), self.pooling_matrix(sizes[1], x)
        rows, columns = matrices() if symbolic else self.kept(
            (sizes, x.dtype, x.device), x.device, matrices)
        return windows.partition(self.pool(x, rows, columns), self.ct_size, symbolic)[0]

    @staticmethod
    def pool(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, C, H, W), (h, H), (w, W) -> (B, C, h, w), both channels last."""
        B, C, H, W = x.shape
        h, w = rows.shape[0], columns.shape[0]
        x = x.permute(0, 2, 3, 1).reshape(B, H, W * C)
        x = torch.bmm(rows.expand(B, -1, -1), x).view(B * h, W, C)
        x = torch.bmm(columns.expand(B * h, -1, -1), x)
        return x.view(B, h, w, C).permute(0, 3, 1, 2)

    def pooling_matrix(self, cells: int, like: Tensor) -> Tensor:
        """Averaging matrix (pooled, cells) of one axis: row j is 1 / kernel on its region, else 0.

        Region j starts at ``round(j * (cells - kernel) / (pooled - 1))``, so that a carrier stays
        at its own window, however long the axis is. A pooling of fixed stride, as in the authors'
        any-resolution code, drifts away from the windows.

        Args:
            cells: Number of cells of the axis, whole windows.
            like: Tensor whose type and device the matrix gets.
        """
        pooled = cells // self.window_size * self.ct_size
        last = max(pooled - 1, 1)
        j = torch.arange(pooled, device=like.device)
        # Integers throughout: rounding must not depend on the float type. Nothing is negative.
        start = self.quotient(2 * j * (cells - self.kernel_size) + last, 2 * last)
        offset = torch.arange(cells, device=like.device) - start[:, None]
        return ((offset >= 0) & (offset < self.kernel_size)).to(like.dtype) / self.kernel_size

    @staticmethod
    def quotient(numerator: Tensor, denominator: int) -> Tensor:
        """The quotient, rounded down."""
        return torch.div(numerator, denominator, rounding_mode='floor')
