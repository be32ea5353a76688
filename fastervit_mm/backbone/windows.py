"""Windows of channels-last maps: pad, crop, partition, unpartition."""
import torch
import torch.nn.functional as F
from torch import Tensor


def pad(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B, H', W', C), whole windows.

    Zeros are added at the bottom and right.

    Args:
        x: The map.
        size: Side of a window, in cells.
    """
    H, W = x.shape[1:3]
    # Longer by a constant, then cut: with no branch on a size, one graph serves every image.
    x = F.pad(x, (0, 0, 0, size, 0, size))
    return crop(x, (H + size - 1) // size * size, (W + size - 1) // size * size)


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, C), larger -> (B, height, width, C), contiguous."""
    # The view states sizes that a graph would otherwise carry as minima of symbols.
    return dense(x[:, :height, :width]).view(x.shape[0], height, width, x.shape[3])


def partition(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C), whole windows -> (B, rows, columns, size * size, C), both in raster order."""
    B, H, W, C = x.shape
    rows, columns = H // size, W // size
    x = x.view(B, rows, size, columns, size, C).transpose(2, 3)
    return dense(x).view(B, rows, columns, size * size, C)


def unpartition(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """(B, rows, columns, size * size, C) -> (B, height, width, C), without what was padded."""
    B, rows, columns, _, C = x.shape
    x = x.unflatten(3, (size, size)).transpose(2, 3)
    # A window more each way: whether a slice is its whole tensor would be a branch on a size.
    x = F.pad(x, (0, 0, 0, 0, 0, 1, 0, 0, 0, 1))
    return crop(x.view(B, (rows + 1) * size, (columns + 1) * size, C), height, width)


def dense(x: Tensor) -> Tensor:
    """Contiguous copy, without the branch that ``contiguous()`` has."""
    return x.clone(memory_format=torch.contiguous_format)
