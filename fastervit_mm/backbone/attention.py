"""Window attention, and hierarchical attention with carrier tokens (paper section 3.3)."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale, Mlp
from torch import Tensor, nn

from ..compat import scaled_dot_product_attention
from .carriers import nearest
from .positions import BandedBias, Bias

_BAND = 128  # queries: their biases stay in a CPU's caches


class Attention(nn.Module):
    """Multi-head self-attention with a bias on the logits.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.width = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Bias) -> Tensor:
        """(B, N, C), (num_heads, N, N) -> (B, N, C)."""
        B, N, C = x.shape
        qkv = self.qkv(x).view(B, N, 3, self.num_heads, self.width)
        # Fused GPU kernels take heads of a multiple of 8, and FasterViT-4 has 49. Zeros change no
        # product.
        if self.width % 8:
            qkv = F.pad(qkv, (0, -self.width % 8))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = attend(q, k, v, bias, self.width**-0.5)
        return self.proj(x.transpose(1, 2)[..., :self.width].reshape(B, N, C))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Bias, scale: float) -> Tensor:
    """(B, heads, N, width) thrice, (heads, N, N) -> (B, heads, N, width)."""
    if not isinstance(bias, BandedBias):
        return scaled_dot_product_attention(q, k, v, bias[None].to(q.dtype), scale)
    return torch.cat([
        attend(q[:, :, band], k, v, bias.rows(band), scale)
        for band in (slice(first, first + _BAND) for first in range(0, q.shape[2], _BAND))], 2)


class Mixer(nn.Module):
    """Attention, then MLP, each on a residual branch.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
        layer_scale: Initial value of layer scale. Default None, for none.
        drop_path: Rate of stochastic depth of both branches. Default 0.
    """

    def __init__(self, dim: int, num_heads: int, layer_scale: Optional[float] = None,
                 drop_path: float = 0.):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.layer_scale1, self.layer_scale2 = (
            nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
            for _ in range(2))
        self.drop_path = DropPath(drop_path)
        self.scales_others = False  # whether layer_scale1 serves more than attention

    def forward(self, x: Tensor, bias: Bias) -> Tensor:
        """(B, ..., N, C) -> the same; attention within the N tokens."""
        y = self.attn(self.norm1(x).flatten(0, -3), bias).view(x.shape)
        return self.add_mlp(x + self.drop_path(self.layer_scale1(y)))

    def add_mlp(self, x: Tensor) -> Tensor:
        """(B, ..., C) -> the same."""
        return x + self.drop_path(self.layer_scale2(self.mlp(self.norm2(x))))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold layer scale into the projections before it."""
        for name, linear in (('layer_scale1', self.attn.proj), ('layer_scale2', self.mlp.fc2)):
            scale = getattr(self, name)
            if isinstance(scale, LayerScale) and not (name[-1] == '1' and self.scales_others):
                linear.weight.mul_(scale.gamma[:, None])
                linear.bias.mul_(scale.gamma)
                setattr(self, name, nn.Identity())


class Block(Mixer):
    """Block of a stage, with or without carriers.

    Carriers attend over the whole image, then each window together with its carriers.

    Args:
        dim, num_heads, layer_scale, drop_path: As of :class:`Mixer`.
        window_size: Side of a window, in cells.
        ct_size: Carriers along one side of a window; 0 for none, attention within windows alone.
        propagate: Whether, in the end, each carrier is added to its nearest cells. Default False.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, ct_size: int,
                 propagate: bool = False, layer_scale: Optional[float] = None,
                 drop_path: float = 0.):
        super().__init__(dim, num_heads, layer_scale, drop_path)
        self.window_size, self.ct_size, self.propagate = window_size, ct_size, propagate
        if ct_size:
            self.carriers = Mixer(dim, num_heads, layer_scale, drop_path)
            self.carriers.scales_others = propagate

    def forward(self, x: Tensor, carriers: Optional[Tensor], cells: Tuple[Tensor, Bias],
                whole: Optional[Tuple[Tensor, Bias]]) -> Tuple[Tensor, Optional[Tensor]]:
        """Cells and carriers -> the same two.

        Args:
            x: (B, rows, columns, k * k, C), of every window.
            carriers: (B, rows, columns, ct * ct, C); None without.
            cells: Of the tokens of a window: embedding (k * k, C) of its cells; bias of its
                carriers, then its cells.
            whole: Of the carriers of the image: embedding (N, C) and bias.
        """
        x = x + cells[0]
        if carriers is None or whole is None:
            return super().forward(x, cells[1]), None
        shape = carriers.shape
        # The sum first: flatten would copy carriers that are a part of the last block's tokens.
        carriers = (carriers + whole[0].view(shape[1:])).flatten(1, 3)
        carriers = self.carriers(carriers, whole[1]).view(shape)
        x = super().forward(torch.cat([carriers, x], 3), cells[1])
        carriers, x = x.split([self.ct_size**2, self.window_size**2], 3)
        if self.propagate:
            x = x + self.carriers.layer_scale1(
                nearest(carriers, self.ct_size, self.window_size))
        return x, carriers
