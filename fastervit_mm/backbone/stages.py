"""Parts of the network: stem, downsampling, two kinds of stage."""
from typing import Any, Optional, Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..compat import checkpointed, normed
from . import windows
from .attention import Block
from .carriers import CarrierInitialiser
from .positions import Constant, PositionMLP, RelativePositionBias, grid, terms


class _ConvNorms(nn.Module):
    """Two convolutions with BatchNorms, which deployment folds into them."""
    deployed = False

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.conv1, self.norm1 = conv1, nn.BatchNorm2d(conv1.out_channels, eps)
        self.conv2, self.norm2 = conv2, nn.BatchNorm2d(conv2.out_channels, eps)

    def switch_to_deploy(self) -> None:
        """Fold the BatchNorms into the convolutions before them."""
        if not self.deployed:
            self.conv1 = fuse_conv_bn_eval(self.conv1, self.norm1)
            self.conv2 = fuse_conv_bn_eval(self.conv2, self.norm2)
            self.norm1, self.norm2, self.deployed = nn.Identity(), nn.Identity(), True


class Stem(_ConvNorms):
    """Two strided convolutions.

    Args:
        in_channels: Channels of the image.
        mid_channels: Channels between the two convolutions.
        dim: Channels of the output.
    """

    def __init__(self, in_channels: int, mid_channels: int, dim: int):
        super().__init__(nn.Conv2d(in_channels, mid_channels, 3, stride=2, padding=1, bias=False),
                         nn.Conv2d(mid_channels, dim, 3, stride=2, padding=1, bias=False), 1e-4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, dim, ceil(H / 4), ceil(W / 4))."""
        x = self.act(normed(self.norm1, self.conv1(x), self.eps))
        return self.act(normed(self.norm2, self.conv2(x), self.eps))


class Downsample(nn.Sequential):
    """(B, C, H, W) -> (B, 2C, ceil(H / 2), ceil(W / 2)).

    Args:
        dim: Channels of the input, C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = LayerNorm2d(dim, eps=1e-6)
        self.conv = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1, bias=False)


class ConvBlock(_ConvNorms):
    """Residual block of two convolutions (paper section 3.2).

    Args:
        dim: Channels.
        drop_path: Rate of stochastic depth.
    """

    def __init__(self, dim: int, drop_path: float):
        super().__init__(*(nn.Conv2d(dim, dim, 3, padding=1) for _ in range(2)))
        self.act, self.drop_path = nn.GELU(), DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = self.act(self.norm1(self.conv1(x)))
        return x + self.drop_path(self.norm2(self.conv2(y)))


class ConvStage(nn.Module):
    """Convolutional blocks.

    Args:
        dim: Channels.
        drop_paths: Rate of stochastic depth of each block.
        with_cp: Whether to recompute each block in the backward pass to save memory.
        pad_to: Run the blocks on a map that zeros at the bottom and right extend to multiples of
            this, in cells. Default 1.
    """

    def __init__(self, dim: int, drop_paths: Sequence[float], with_cp: bool = False,
                 pad_to: int = 1):
        super().__init__()
        self.with_cp, self.pad_to = with_cp, pad_to
        self.blocks = nn.ModuleList(ConvBlock(dim, rate) for rate in drop_paths)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        H, W = x.shape[2:]
        if self.pad_to > 1:
            x = windows.pad(x.permute(0, 2, 3, 1), self.pad_to).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = checkpointed(block, self.with_cp, x)
        if self.pad_to > 1:
            # Longer by one, then cut: whether a slice is its whole tensor would be a branch.
            x = F.pad(x, (0, 1, 0, 1))
            x = windows.crop(x.permute(0, 2, 3, 1), H, W).permute(0, 3, 1, 2)
        return x


class HATStage(nn.Module):
    """Blocks of hierarchical attention (HAT, paper section 3.3).

    A map of any size is padded to whole windows, partitioned, and cropped after the blocks. Stages
    3 and 4 of :class:`~fastervit_mm.FasterViT` are of this kind, and a stage of another network can
    be (``docs/hierarchical_attention.md``). Layers are initialised as PyTorch does it, position
    terms from a truncated normal of std 0.02.

    Args:
        dim: Channels.
        depth: Number of blocks.
        num_heads: Attention heads; a divisor of ``dim``.
        window_size: Side of an attention window, in cells. Default 7.
        ct_size: Carrier tokens along one side of a window; 0 for none, attention within windows
            alone. Default 2.
        propagate_carriers: Whether the last block adds its carriers to the map. Default False.
        layer_scale: Initial value of layer scale. Default None, for none.
        drop_paths: Rate of stochastic depth of each block. Default 0.
        with_cp: Recompute each block in the backward pass to save memory. Default False.

    Attributes:
        carrier_bias (Parameter): (depth, num_heads, 1, 1), learned bias of a window's cells towards
            its carriers; None without carriers. It starts at 8, the bias of cells towards each
            other: a carrier is then heard as a cell is. At 0, the paper's, with e^-8 of that.

    Raises:
        ValueError: For an argument out of range; the message says what would be right.

    Example:
        >>> import torch
        >>> from fastervit_mm import HATStage
        >>> stage = HATStage(64, depth=2, num_heads=4).eval()
        >>> stage(torch.rand(1, 64, 20, 45)).shape
        torch.Size([1, 64, 20, 45])
    """

    def __init__(self, dim: int, depth: int, num_heads: int, window_size: int = 7,
                 ct_size: int = 2, propagate_carriers: bool = False,
                 layer_scale: Optional[float] = None,
                 drop_paths: Optional[Sequence[float]] = None, with_cp: bool = False):
        super().__init__()
        check_attention(dim, num_heads, window_size, ct_size)
        check_whole(depth=depth)
        rates = [0.] * depth if drop_paths is None else list(drop_paths)
        require(len(rates) == depth and all(0 <= rate < 1 for rate in rates),
                f'drop_paths={drop_paths}: give depth={depth} rates from 0 up to, not including, 1')
        self.window_size, self.ct_size, self.with_cp = window_size, ct_size, with_cp
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, window_size, ct_size, propagate_carriers and i == depth - 1,
                  layer_scale, rate) for i, rate in enumerate(rates))
        self.cells = grid(window_size, window_size, window_size, 'cpu')
        self.positions = PositionMLP(depth, dim)
        self.position_biases = RelativePositionBias(depth, num_heads)
        self.carrier_bias = None
        if ct_size:
            self.carrier_init = CarrierInitialiser(dim, window_size, ct_size)
            self.carrier_positions = PositionMLP(depth, dim)
            self.carrier_position_biases = RelativePositionBias(depth, num_heads)
            self.carrier_bias = nn.Parameter(torch.full((depth, num_heads, 1, 1), 8.))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> (B, dim, H, W), channels last in memory."""
        H, W = x.shape[2:]
        x = windows.pad(x.permute(0, 2, 3, 1), self.window_size)
        cells = terms(self.positions, self.position_biases, self.cells, x.dtype,
                      self.carrier_bias, self.ct_size**2)
        carriers = whole = None
        if self.ct_size:
            carriers, tokens = self.carrier_init(x)
            whole = terms(self.carrier_positions, self.carrier_position_biases, tokens, x.dtype)
        x = windows.partition(x, self.window_size)
        for i, block in enumerate(self.blocks):
            its = [kind and (kind[0][i], kind[1][i]) for kind in (cells, whole)]
            x, carriers = checkpointed(block, self.with_cp, x, carriers, *its)
        return windows.unpartition(x, self.window_size, H, W).permute(0, 3, 1, 2)

    def switch_to_deploy(self) -> None:
        """Make position terms of windows constants: no image changes them."""
        with torch.no_grad():
            self.positions = Constant(self.positions(self.cells.coordinates))
            self.position_biases = Constant(self.position_biases(self.cells.offsets))

    def _apply(self, fn, recurse=True):
        # Made anew, not cast or left empty: neither bfloat16() nor to_empty() changes it. Never on
        # the meta device: load_state_dict(assign=True) may bring parameters that have data.
        super()._apply(fn, recurse)
        k, device = self.window_size, next(self.blocks.parameters()).device
        self.cells = grid(k, k, k, 'cpu' if device.type == 'meta' else device)
        return self


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def check_whole(count: int = 1, least: int = 1, **arguments: Any) -> None:
    """Require ``count`` whole numbers of at least ``least``."""
    kind = 'a whole number' if count == 1 else f'{count} whole numbers'
    for name, value in arguments.items():
        values = [value] if count == 1 else value
        require(isinstance(values, (list, tuple)) and len(values) == count and all(
            isinstance(v, int) and v >= least for v in values),
            f'{name}={value!r}: give {kind} of at least {least}')


def check_attention(dim: int, num_heads: int, window_size: int, ct_size: int) -> None:
    """Require heads to divide the width, and carriers to fit."""
    check_whole(dim=dim, num_heads=num_heads, window_size=window_size)
    require(dim % num_heads == 0, f'num_heads={num_heads} must divide dim={dim}')
    check_whole(least=0, ct_size=ct_size)
    require(ct_size <= window_size,
            f'ct_size={ct_size}: at most window_size={window_size}; 0 for none')
