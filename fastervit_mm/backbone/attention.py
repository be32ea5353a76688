"""Window attention, and hierarchical attention with carrier tokens (paper section 3.3)."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale
from torch import Tensor, nn

from .carriers import dense_if_exporting, raster_to_windows, windows_to_raster
from .linear import Linear, TokenMlp
from .positions import AbsolutePosition, Grid, RelativePositionBias

_DENSE_TOKENS = 1024  # with more, the bias of all pairs would be the largest tensor of the network
_CPU_BAND = 128  # queries: their biases stay in the caches; a GPU wants more work at a time


class Attention(nn.Module):
    """Multi-head self-attention with a relative position bias.

    Beyond 1024 tokens with a place (carriers of an image of some 1300 x 2000 pixels) the bias is
    made and used in bands of queries: memory then grows with the tokens and not with their square.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.position_bias = RelativePositionBias(num_heads)
        self.proj = Linear(dim, dim)

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
        x = self._attend(q, k, v, grid, num_prefix)
        return self.proj(dense_if_exporting(x.transpose(1, 2)).reshape(*batch, N, C))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid, num_prefix: int) -> Tensor:
        """Three of (batch, heads, N, width) -> (batch, heads, N, width)."""
        width = q.shape[-1]
        scale = width**-0.5
        if q.is_cuda and width % 8:
            # FasterViT-4 has heads of 49; fused kernels take multiples of 8 and the fallback for
            # others keeps the logits of all windows in memory. Zeros change no product.
            q, k, v = (F.pad(t, (0, -width % 8)) for t in (q, k, v))
        if torch.compiler.is_compiling() and torch.compiler.is_exporting():
            # Spelt out: the fused function asks whether the batch is 1, to broadcast the bias.
            q, k, v = (dense_if_exporting(t) for t in (q, k.transpose(-2, -1), v))
            logits = (q * scale) @ k + self.position_bias(grid, q.dtype, num_prefix)
            x = logits.softmax(dim=-1) @ v
        # One graph for all sizes, when compiling: no loop over a number of bands.
        elif torch.compiler.is_compiling() or torch.jit.is_tracing() or (
                num_prefix or grid[0] * grid[1] <= _DENSE_TOKENS):
            bias = self.position_bias(grid, q.dtype, num_prefix)
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=scale)
        else:
            queries, outs = q.flip(2), []  # in the order of the bands
            rows = max(1, (_DENSE_TOKENS if q.is_cuda else _CPU_BAND) // grid[1])
            for bias in self.position_bias.bands(grid, q.dtype, rows):
                band, queries = queries.tensor_split([bias.shape[1]], dim=2)
                outs.append(F.scaled_dot_product_attention(
                    band, k, v, attn_mask=bias[None], scale=scale))
            x = torch.cat(outs, dim=2).flip(2)
        return x[..., :width]


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
    num_prefix = 0  # carriers that ride in front of a window's own tokens

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float = 4.0,
                 drop_path: float = 0.0, layer_scale: Optional[float] = None):
        super().__init__()
        self.window_size = window_size
        self.position = AbsolutePosition(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.layer_scale1 = _layer_scale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = TokenMlp(dim, int(dim * mlp_ratio))
        self.layer_scale2 = _layer_scale(dim, layer_scale)
        # The image stays the first axis of every tensor: a branch is dropped for an image, not
        # for some of its windows.
        self.drop_path = DropPath(drop_path)

    def add_position(self, x: Tensor) -> Tensor:
        """(B, windows, k * k, C) -> the same, with each cell's place in its window."""
        return x + self.position((self.window_size, self.window_size), x.dtype)

    def mix(self, x: Tensor) -> Tensor:
        """(B, windows, num_prefix + k * k, C) -> the same: attention, then MLP."""
        grid = (self.window_size, self.window_size)
        x = x + self.drop_path(self.layer_scale1(self.attn(self.norm1(x), grid, self.num_prefix)))
        return x + self.drop_path(self.layer_scale2(self.mlp(self.norm2(x))))

    def deploy(self) -> None:
        """Fix the position terms, and fold layer scale into the projections in front of it."""
        cells = (self.window_size, self.window_size)
        self.position.fix(cells)
        self.attn.position_bias.fix(cells, self.num_prefix)
        self.layer_scale1 = _folded(self.attn.proj, self.layer_scale1)
        self.layer_scale2 = _folded(self.mlp.fc2, self.layer_scale2)

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
        self.num_prefix = ct_size**2
        self.carrier_position = AbsolutePosition(dim)
        self.carrier_norm1 = nn.LayerNorm(dim)
        self.carrier_attn = Attention(dim, num_heads)
        self.carrier_layer_scale1 = _layer_scale(dim, layer_scale)
        self.carrier_norm2 = nn.LayerNorm(dim)
        self.carrier_mlp = TokenMlp(dim, int(dim * mlp_ratio))
        self.carrier_layer_scale2 = _layer_scale(dim, layer_scale)

    def deploy(self) -> None:
        """As :meth:`WindowBlock.deploy`; the carriers' terms follow the image and are kept."""
        super().deploy()
        self.carrier_position.fix()
        self.carrier_attn.position_bias.fix()
        # The first layer scale stays a module: the last block's also scales what is propagated.
        self.carrier_layer_scale2 = _folded(self.carrier_mlp.fc2, self.carrier_layer_scale2)

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
        own = raster_to_windows(carriers, windows, self.ct_size)
        tokens = self.mix(torch.cat([own, x], dim=2))
        own, x = tokens.split([self.num_prefix, x.shape[2]], dim=2)
        return x, windows_to_raster(own, windows, self.ct_size)


@torch.no_grad()
def _folded(linear: nn.Linear, layer_scale: nn.Module) -> nn.Identity:
    """Scale a projection's outputs by what followed it."""
    if isinstance(layer_scale, LayerScale):
        linear.weight.mul_(layer_scale.gamma[:, None])
        linear.bias.mul_(layer_scale.gamma)
    return nn.Identity()


def _layer_scale(dim: int, initial_value: Optional[float]) -> nn.Module:
    return nn.Identity() if initial_value is None else LayerScale(dim, initial_value)
