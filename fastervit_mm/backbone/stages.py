"""The two kinds of stage: convolutional at high resolution, transformer at low."""
from contextlib import contextmanager, nullcontext
from typing import Callable, Optional, Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint

from .attention import HierarchicalBlock, WindowBlock
from .carriers import CarrierInitialiser, raster_to_windows, windows_to_raster


class Stem(nn.Sequential):
    """(B, in_channels, H, W) -> (B, dim, ceil(H / 4), ceil(W / 4)).

    Args:
        in_channels: Channels of the image.
        mid_channels: Channels between the two convolutions.
        dim: Channels of the output.
    """

    def __init__(self, in_channels: int, mid_channels: int, dim: int):
        super().__init__()
        # A weight in channels-last order turns the map around by itself, and the image need not be
        # copied and kept for the backward pass.
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 3, stride=2, padding=1, bias=False).to(
            memory_format=torch.channels_last)
        self.norm1 = nn.BatchNorm2d(mid_channels, eps=1e-4)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(mid_channels, dim, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(dim, eps=1e-4)
        self.act2 = nn.ReLU(inplace=True)

    def deploy(self) -> None:
        """Fold the BatchNorms into the convolutions in front of them."""
        _fold(self)


class Downsample(nn.Sequential):
    """(B, C, H, W) -> (B, 2C, ceil(H / 2), ceil(W / 2)).

    Args:
        dim: Channels of the input, C.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = LayerNorm2d(dim, eps=1e-6)
        self.conv = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1, bias=False)


class ConvBlock(nn.Module):
    """Residual block of two convolutions (paper section 3.2).

    Args:
        dim: Channels.
        drop_path: Rate of stochastic depth.
    """

    def __init__(self, dim: int, drop_path: float = 0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = self.act(self.norm1(self.conv1(x)))
        return x + self.drop_path(self.norm2(self.conv2(y)))

    def deploy(self) -> None:
        """Fold the BatchNorms into the convolutions in front of them."""
        _fold(self)


class ConvStage(nn.Module):
    """Convolutional blocks.

    Args:
        dim: Channels.
        drop_paths: Rate of stochastic depth of each block.
        with_cp: Whether to recompute each block in the backward pass to save memory.
    """

    def __init__(self, dim: int, drop_paths: Sequence[float], with_cp: bool = False):
        super().__init__()
        self.with_cp = with_cp
        self.blocks = nn.ModuleList(ConvBlock(dim, rate) for rate in drop_paths)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        for block in self.blocks:
            x = _run(block, self.with_cp, x)
        return x


class TransformerStage(nn.Module):
    """Pads to whole windows, cuts, runs the blocks, puts together and crops.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        window_size: Side of a window, in cells.
        drop_paths: Rate of stochastic depth of each block.
        ct_size: Carriers along one side of a window; None for no carriers.
        propagate_carriers: Whether the last carriers are added to the map.
        mlp_ratio: Hidden width of a block's MLP over ``dim``.
        layer_scale: Initial value of layer scale; None for none.
        with_cp: Whether to recompute each block in the backward pass to save memory.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, drop_paths: Sequence[float],
                 ct_size: Optional[int] = None, propagate_carriers: bool = False,
                 mlp_ratio: float = 4.0, layer_scale: Optional[float] = None,
                 with_cp: bool = False):
        super().__init__()
        self.window_size = window_size
        self.ct_size = ct_size
        self.with_cp = with_cp
        common = dict(mlp_ratio=mlp_ratio, layer_scale=layer_scale)
        if ct_size is None:
            self.blocks = nn.ModuleList(
                WindowBlock(dim, num_heads, window_size, drop_path=rate, **common)
                for rate in drop_paths)
        else:
            self.carrier_init = CarrierInitialiser(dim, window_size, ct_size)
            self.blocks = nn.ModuleList(
                HierarchicalBlock(dim, num_heads, window_size, ct_size, drop_path=rate, **common)
                for rate in drop_paths)
        self.propagate_carriers = propagate_carriers and ct_size is not None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        k = self.window_size
        B, C, H, W = x.shape
        rows, columns = windows = ((H + k - 1) // k, (W + k - 1) // k)
        x = _padded(x, rows * k, columns * k)

        tokens = x.permute(0, 2, 3, 1).reshape(B, -1, C)  # raster order
        tokens = raster_to_windows(tokens, windows, k)  # (B, windows, k * k, C)
        if self.ct_size is None:
            for block in self.blocks:
                tokens = _run(block, self.with_cp, tokens)
        else:
            carriers = self.carrier_init(x)
            for block in self.blocks:
                tokens, carriers = _run(block, self.with_cp, tokens, carriers, windows)
            if self.propagate_carriers:
                tokens = tokens + self._spread(carriers, windows)

        x = windows_to_raster(tokens, windows, k).view(B, rows * k, columns * k, C)[:, :H, :W]
        # Dense, also where something was cropped; a clone asks nothing when compiling.
        x = x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_compiling() else (
            x.contiguous())
        return x.permute(0, 3, 1, 2)

    def _spread(self, carriers: Tensor, windows) -> Tensor:
        """(B, h * w, C) -> (B, windows, k * k, C): each cell gets its nearest carrier, scaled."""
        own = raster_to_windows(carriers, windows, self.ct_size)
        nearest = torch.arange(self.window_size, device=own.device)
        nearest = nearest * self.ct_size // self.window_size
        cell_to_carrier = (nearest[:, None] * self.ct_size + nearest).flatten()
        return self.blocks[-1].carrier_layer_scale1(own[:, :, cell_to_carrier])


def _fold(module: nn.Module) -> None:
    for n in (1, 2):
        conv, norm = getattr(module, f'conv{n}'), getattr(module, f'norm{n}')
        setattr(module, f'conv{n}', fuse_conv_bn_eval(conv, norm))
        setattr(module, f'norm{n}', nn.Identity())


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, H, W) -> (B, C, height, width), zeros at the bottom and right."""
    H, W = x.shape[2:]
    if not torch.compiler.is_compiling():
        return F.pad(x, (0, width - W, 0, height - H)) if (height, width) != (H, W) else x
    # Without a question whether anything needs padding: the answer would be part of the graph, and
    # images of another size would need another graph.
    row, column = (torch.arange(n, device=x.device) for n in (height, width))
    inside = (row < H)[:, None] & (column < W)
    x = x[:, :, row.clamp(max=H - 1)[:, None], column.clamp(max=W - 1)]
    return torch.where(inside, x, 0)


def _run(block: nn.Module, with_cp: bool, *args):
    """The block's output, its activations recomputed in the backward pass where asked for."""
    if not (with_cp and torch.is_grad_enabled()):
        return block(*args)
    return checkpoint(block, *args, use_reentrant=False, context_fn=_once_only_statistics(block))


def _once_only_statistics(block: nn.Module) -> Callable:
    """Contexts of a checkpointed block: the second pass leaves BatchNorm's statistics alone.

    Otherwise each running mean and variance would move twice a step, and a network trained with
    ``with_cp`` would differ from one trained without.
    """
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]

    @contextmanager
    def recomputing():
        saved = [(m.momentum, m.num_batches_tracked) for m in norms]
        for m in norms:
            # With momentum 0 an update is the identity; the counter is a stand-in.
            m.momentum, m.num_batches_tracked = 0.0, m.num_batches_tracked.clone()
        try:
            yield
        finally:
            for m, (momentum, count) in zip(norms, saved):
                m.momentum, m.num_batches_tracked = momentum, count

    return lambda: (nullcontext(), recomputing())
