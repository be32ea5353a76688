"""Carrier tokens: where they come from, and the two orders in which they live.

Carriers attend to each other in raster order over the whole carrier grid, and to a window's tokens
in window order: ``(B, h * w, C)`` and ``(B, windows, ct_size**2, C)``.
"""
import torch
from torch import Tensor, nn

from .positions import Grid


def windows_to_raster(x: Tensor, windows: Grid, size: int) -> Tensor:
    """(B, rows * columns, size * size, C) -> (B, rows * size * columns * size, C)."""
    rows, columns = windows
    B, _, _, C = x.shape
    x = x.view(B, rows, columns, size, size, C).transpose(2, 3)
    return dense_if_exporting(x).reshape(B, rows * size * columns * size, C)


def raster_to_windows(x: Tensor, windows: Grid, size: int) -> Tensor:
    """(B, rows * size * columns * size, C) -> (B, rows * columns, size * size, C)."""
    rows, columns = windows
    B, _, C = x.shape
    x = x.view(B, rows, size, columns, size, C).transpose(2, 3)
    return dense_if_exporting(x).reshape(B, rows * columns, size * size, C)


def dense_if_exporting(x: Tensor) -> Tensor:
    """Where a graph is exported: a dense copy, so that a reshape asks nothing of the sizes.

    Whether it has to copy depends on there being one window or one carrier along an axis; the
    answer would bind the graph to images of one kind. Elsewhere the tensor itself.
    """
    if torch.compiler.is_compiling() and torch.compiler.is_exporting():
        return x.clone(memory_format=torch.contiguous_format)
    return x


def pooling_matrix(cells: int, pooled: int, kernel: int, like: Tensor) -> Tensor:
    """Averaging matrix (pooled, cells) of one axis: row j is 1 / kernel on its region, else 0.

    Region j starts at ``round(j * (cells - kernel) / (pooled - 1))``, so that a carrier stays at
    its own window however long the axis is. A pooling of fixed stride, as in the authors'
    any-resolution code, drifts away from the windows.
    """
    last = max(pooled - 1, 1)
    j = torch.arange(pooled, device=like.device)
    # Integers throughout: rounding must not depend on the float type. Nothing is negative;
    # truncation exports to a plain division where // does not, and Inductor fails on it.
    exporting = torch.compiler.is_compiling() and torch.compiler.is_exporting()
    start = torch.div(2 * j * (cells - kernel) + last, 2 * last,
                      rounding_mode='trunc' if exporting else 'floor')
    offset = torch.arange(cells, device=like.device) - start[:, None]
    return ((offset >= 0) & (offset < kernel)).to(like.dtype) / kernel


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

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), whole windows -> (B, h * w, C), ct_size**2 a window, in raster order."""
        x = self.conv(x)
        B, C, H, W = x.shape
        h, w = (n // self.window_size * self.ct_size for n in (H, W))
        x = dense_if_exporting(pooling_matrix(H, h, self.kernel_size, x).expand(B, C, -1, -1)) @ x
        x = x @ pooling_matrix(W, w, self.kernel_size, x).t()
        return x.flatten(2).transpose(1, 2)
