"""Windows of a feature map: padding and partition, unpartition and cropping."""
from typing import NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = Tuple[int, int]


class Slots(NamedTuple):
    """Where the tokens of a map are among those of all its windows, which padding makes whole.

    Attributes:
        windows: Number of windows.
        tokens: (n,), the index of each token where a window's are after those of the one before:
            first all carriers, window after window, then the map's cells in raster order.
        within: (H * W,), the index of each cell in its window.
    """
    windows: int
    tokens: Tensor
    within: Tensor


def slots(windows: Grid, size: int, num_prefix: int, map_size: Grid, device: torch.device,
          symbolic: bool = False) -> Slots:
    """The slots of a map's tokens.

    Args:
        windows: (rows, columns).
        size: Side of a window, in cells.
        num_prefix: Carriers before the cells of each window.
        map_size: H and W of the map.
        device: Where the indices are.
        symbolic: As in :func:`pad`. Default False.
    """
    rows, columns = windows
    first = torch.arange(rows * columns, device=device) * (num_prefix + size**2)
    # Sums over small grids: a remainder would be an operator that TensorRT lacks.
    within = torch.arange(size**2, device=device).view(1, size, 1, size).expand(
        rows, size, columns, size)
    cells = first.view(rows, 1, columns, 1) + num_prefix + within
    carriers = first[:, None] + torch.arange(num_prefix, device=device)
    within, cells = (
        crop(_contiguous(x, symbolic).view(1, rows * size, columns * size, 1), size, map_size,
             symbolic).flatten() for x in (within, cells))
    return Slots(rows * columns, torch.cat([carriers.flatten(), cells]), within)


def pad(x: Tensor, size: int, symbolic: bool = False) -> Tensor:
    """Add zeros at the bottom and right, up to whole windows.

    Args:
        x: (B, C, H, W).
        size: Side of a window, in cells.
        symbolic: Whether H and W are symbols of a graph for all sizes. No branch may depend on the
            padding then, or sizes without padding would need another graph. Default False.

    Returns:
        (B, C, H', W'), the next multiples of ``size``.
    """
    H, W = x.shape[2:]
    height, width = (H + size - 1) // size * size, (W + size - 1) // size * size
    if symbolic:
        # More than can be missing is added, then the surplus is cut off.
        x = F.pad(x, (0, size, 0, size)).permute(0, 2, 3, 1)
        return _dense(x, height, width).permute(0, 3, 1, 2)
    return F.pad(x, (0, width - W, 0, height - H)) if (height, width) != (H, W) else x


def partition(x: Tensor, size: int, symbolic: bool = False) -> Tuple[Tensor, Grid]:
    """Cut a feature map into windows.

    Args:
        x: (B, C, H, W), H and W multiples of ``size`` (:func:`pad`).
        size: Side of a window, in cells.
        symbolic: As in :func:`pad`. Default False.

    Returns:
        (B, rows * columns, size * size, C), windows in raster order and each one's cells too, and
        (rows, columns).
    """
    B, C, H, W = x.shape
    rows, columns = H // size, W // size
    x = x.permute(0, 2, 3, 1).unflatten(2, (columns, size)).unflatten(1, (rows, size))
    x = _contiguous(x.transpose(2, 3), symbolic)
    return x.view(B, rows * columns, size * size, C), (rows, columns)


def unpartition(x: Tensor, windows: Grid, size: int, map_size: Grid,
                symbolic: bool = False) -> Tensor:
    """Put windows together again and crop what :func:`pad` added.

    Args:
        x: (B, rows * columns, size * size, C).
        windows: (rows, columns).
        size: Side of a window, in cells.
        map_size: H and W of the feature map.
        symbolic: As in :func:`pad`. Default False.

    Returns:
        (B, C, H, W), channels last in memory.
    """
    rows, columns = windows
    B, C = x.shape[0], x.shape[-1]
    x = _contiguous(x.view(B, rows, columns, size, size, C).transpose(2, 3), symbolic)
    return crop(x.view(B, rows * size, columns * size, C), size, map_size, symbolic)


def crop(x: Tensor, size: int, map_size: Grid, symbolic: bool = False) -> Tensor:
    """Crop what :func:`pad` added.

    Args:
        x: (B, H', W', C).
        size: As in :func:`pad`.
        map_size: H and W of the feature map.
        symbolic: As in :func:`pad`. Default False.

    Returns:
        (B, C, H, W), channels last in memory.
    """
    H, W = map_size
    if symbolic:
        x = _dense(F.pad(x, (0, 0, 0, size, 0, size)), H, W)
    else:
        x = x[:, :H, :W].contiguous()
    return x.permute(0, 3, 1, 2)


def _contiguous(x: Tensor, symbolic: bool) -> Tensor:
    """Without a copy where that can be, as in one window alone.

    A graph for all sizes copies: it cannot ask without a check of sizes.
    """
    return x.clone(memory_format=torch.contiguous_format) if symbolic else x.contiguous()


def _dense(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, C) -> (B, height, width, C), the first rows and columns, copied, in a graph.

    H and W are larger: whether a slice is its whole tensor is asked of every slice, and would bind
    the graph to the answer; here it is always no. The view states the sizes directly: those of a
    slice are a minimum of symbols, which would slow down every later check.
    """
    x = x[:, :height, :width].clone(memory_format=torch.contiguous_format)
    return x.view(x.shape[0], height, width, x.shape[3])
