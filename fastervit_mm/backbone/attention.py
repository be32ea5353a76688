"""Window attention, and hierarchical attention with carrier tokens (paper section 3.3)."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale, Mlp
from torch import Tensor, nn

from .carriers import raster_to_windows, windows_to_raster
from .positions import AbsolutePosition, Grid, RelativePositionBias


class Attention(nn.Module):
    """Multi-head self-attention with a relative position bias.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.position_bias = RelativePositionBias(num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, grid: Grid, num_prefix: int = 0) -> Tensor:
        """(..., N, C) -> (..., N, C): each leading index attends within its own N tokens.

        Args:
            x: Tokens; ``num_prefix`` without a place on the grid, then ``grid`` in raster order.
            grid: Height and width of the grid.
            num_prefix: Tokens in front that have no position.
        """
        *batch, N, C = x.shape
        qkv = self.qkv(x).view(-1, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (-1, heads, N, C / heads)
        bias = self.position_bias(grid, q.dtype, num_prefix)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(x.transpose(1, 2).reshape(*batch, N, C))


class WindowBlock(nn.Module):
    """Transformer block whose tokens attend within their window.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
        window_size: Side of a window, in cells.
        mlp_ratio: Hidden width of the MLP over ``dim``.
        drop_path: Rate of stochastic depth, for a whole image at a time.
        layer_scale: Initial value of layer scale; None for none.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float = 4.0,
                 drop_path: float = 0.0, layer_scale: Optional[float] = None):
        super().__init__()
        self.window_size = window_size
        self.position = AbsolutePosition(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.layer_scale1 = _layer_scale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.layer_scale2 = _layer_scale(dim, layer_scale)
        # The image stays the first axis of every tensor: a branch is dropped for an image, not
        # for some of its windows.
        self.drop_path = DropPath(drop_path)

    def add_position(self, x: Tensor) -> Tensor:
        """(B, windows, k * k, C) -> the same, with each cell's place in its window."""
        return x + self.position((self.window_size, self.window_size), x.dtype)

    def mix(self, x: Tensor, num_prefix: int = 0) -> Tensor:
        """(B, windows, num_prefix + k * k, C) -> the same: attention, then MLP."""
        grid = (self.window_size, self.window_size)
        x = x + self.drop_path(self.layer_scale1(self.attn(self.norm1(x), grid, num_prefix)))
        return x + self.drop_path(self.layer_scale2(self.mlp(self.norm2(x))))

    def forward(self, x: Tensor) -> Tensor:
        """(B, windows, k * k, C) -> (B, windows, k * k, C)."""
        return self.mix(self.add_position(x))


class HierarchicalBlock(WindowBlock):
    """Hierarchical attention (HAT) block: windows that speak to each other through carriers.

    The carriers attend over the whole image, then each window attends over its own tokens and
    carriers together.

    Args:
        ct_size: Carriers along one side of a window.
        Others: As :class:`WindowBlock`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, ct_size: int,
                 mlp_ratio: float = 4.0, drop_path: float = 0.0,
                 layer_scale: Optional[float] = None):
        super().__init__(dim, num_heads, window_size, mlp_ratio, drop_path, layer_scale)
        self.ct_size = ct_size
        self.carrier_position = AbsolutePosition(dim)
        self.carrier_norm1 = nn.LayerNorm(dim)
        self.carrier_attn = Attention(dim, num_heads)
        self.carrier_layer_scale1 = _layer_scale(dim, layer_scale)
        self.carrier_norm2 = nn.LayerNorm(dim)
        self.carrier_mlp = Mlp(dim, int(dim * mlp_ratio))
        self.carrier_layer_scale2 = _layer_scale(dim, layer_scale)

    def mix_carriers(self, carriers: Tensor, grid: Grid) -> Tensor:
        """(B, h * w, C) in raster order -> the same: attention over the whole image, then MLP."""
        carriers = carriers + self.carrier_position(grid, carriers.dtype)
        carriers = carriers + self.drop_path(self.carrier_layer_scale1(
            self.carrier_attn(self.carrier_norm1(carriers), grid)))
        return carriers + self.drop_path(self.carrier_layer_scale2(
            self.carrier_mlp(self.carrier_norm2(carriers))))

    def forward(self, x: Tensor, carriers: Tensor, windows: Grid) -> Tuple[Tensor, Tensor]:
        """(B, windows, k * k, C), (B, h * w, C) -> the same two."""
        x = self.add_position(x)
        carriers = self.mix_carriers(carriers, tuple(n * self.ct_size for n in windows))
        num_carriers = self.ct_size**2
        own = raster_to_windows(carriers, windows, self.ct_size)
        tokens = self.mix(torch.cat([own, x], dim=2), num_carriers)
        own, x = tokens.split([num_carriers, x.shape[2]], dim=2)
        return x, windows_to_raster(own, windows, self.ct_size)


def _layer_scale(dim: int, initial_value: Optional[float]) -> nn.Module:
    return nn.Identity() if initial_value is None else LayerScale(dim, initial_value)
