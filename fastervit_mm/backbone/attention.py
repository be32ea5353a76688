"""Window attention, and hierarchical attention with carrier tokens (paper section 3.3)."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from timm.layers import LayerScale, Mlp
from torch import Tensor, nn

from .folding import fold_layer_scale, pad_heads
from .kernels import attention, fused, logits_dtype
from .positions import AbsolutePosition, Constant, Places, RelativePositionBias
from .stochastic_depth import add
from .windows import Slots

_BAND = 128  # queries: their biases stay in a CPU's caches


class Attention(nn.Module):
    """Multi-head self-attention with a relative position bias.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
        position_bias: Gives the bias. Default a new :class:`~.positions.RelativePositionBias`.
    """

    def __init__(self, dim: int, num_heads: int,
                 position_bias: Optional[RelativePositionBias] = None):
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads)**-0.5
        # Fused GPU kernels need a head width that is a multiple of 8. For others, such as 49 in
        # FasterViT-4, PyTorch falls back to a kernel that stores the logits of all windows. Zeros
        # change no product.
        self.padding = -(dim // num_heads) % 8
        self.qkv = nn.Linear(dim, 3 * dim)
        self.position_bias = position_bias or RelativePositionBias(num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """(..., N, C) -> (..., N, C): each leading index attends within its own N tokens."""
        *batch, N, _ = x.shape
        qkv = self.qkv(x).view(-1, N, 3, self.num_heads, self.qkv.out_features // (
            3 * self.num_heads))
        width = qkv.shape[-1]
        if self.padding:
            qkv = F.pad(qkv, (0, self.padding))
        x = self.attend(qkv, places)[..., :width]
        return self.proj(x.reshape(*batch, N, self.proj.in_features))

    def attend(self, qkv: Tensor, places: Places) -> Tensor:
        """(batch, N, 3, heads, width) -> (batch, N, heads, width)."""
        return attention(qkv, self.position_bias(places, logits_dtype(qkv)), self.scale)

    def fold(self) -> None:
        """Put the padding of the heads into the weights."""
        if self.padding:
            pad_heads(self.qkv, self.proj, self.num_heads, self.padding)
            self.padding = 0


class BandedAttention(Attention):
    """Attention over possibly many tokens: carriers of a whole image, windows of 48 x 48 cells.

    Beyond 1024 tokens (carriers of an image of some 1300 x 2000 pixels) the bias is made and used
    in bands of queries: memory then grows with the number of tokens, not with its square.
    """

    def attend(self, qkv: Tensor, places: Places) -> Tensor:
        """(batch, N, 3, heads, width) in window order -> (batch, N, heads, width)."""
        if places.is_dense():
            return super().attend(qkv, places)
        (rows, columns), size, (h, w) = places.windows, places.size, places.grid()
        # With keys in reversed raster order, the biases of a query are a rectangle of the table.
        # Copying rectangles takes a fraction of the time of looking up every pair.
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        k, v = (t.unflatten(2, (rows, columns, size, size)).transpose(3, 4).flatten(2, 5).flip(2)
                for t in (k, v))
        table = self.position_bias.table(places).view(-1, 2 * h - 1, 2 * w - 1)
        rectangles = table.unfold(1, h, 1).unfold(2, w, 1).unflatten(1, (rows, size)).unflatten(
            3, (columns, size)).transpose(2, 3)  # heads, then a query in window order, then a key
        together = max(1, _BAND // (columns * size**2))
        outs, memory = [], None
        for queries, biases in zip(q.split(together * columns * size**2, dim=2),
                                   rectangles.split(together, dim=1)):
            if torch.is_grad_enabled():
                bias = biases.to(q.dtype)
            else:
                # The same memory for every band: glibc finds no room for an aligned block where one
                # of its size was, and a process would come to hold the biases of all pairs.
                memory = q.new_empty(biases.numel()) if memory is None else memory
                bias = memory[:biases.numel()].view(biases.shape).copy_(biases)
            outs.append(fused(queries, k, v, bias.reshape(1, self.num_heads, -1, h * w),
                              self.scale))
        return torch.cat(outs, dim=2).transpose(1, 2)


class WindowBlock(nn.Module):
    """Transformer block whose tokens attend within their window.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLP over ``dim``.
        layer_scale: Initial value of layer scale; None for none.
        absolute_position: Whether tokens get an embedding of their position. Default True.
        position_bias: As of :class:`Attention`.
    """

    branches = 2  # residual branches, for stochastic depth

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0,
                 layer_scale: Optional[float] = None, absolute_position: bool = True,
                 position_bias: Optional[RelativePositionBias] = None):
        super().__init__()
        self.position = AbsolutePosition(dim) if absolute_position else None
        self.norm1 = nn.LayerNorm(dim)
        self.attn = BandedAttention(dim, num_heads, position_bias)
        self.layer_scale1 = _layer_scale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.layer_scale2 = _layer_scale(dim, layer_scale)

    def forward(self, x: Tensor, cells: Places, keep: Optional[Tensor] = None,
                slots: Optional[Slots] = None) -> Tensor:
        """(B, windows, k * k, C), or (B, H * W, C) with slots -> the same.

        Args:
            x: Tokens of every window, or the map's without padding. The image stays the first axis
                of every tensor: a branch is dropped for an image, not for some of its windows.
            cells: Where the tokens of one window are.
            keep: (branches, B) of :class:`~.stochastic_depth.StochasticDepth`. Default None.
            slots: Where the map's tokens are in the windows. Default None: padding is in ``x``.
        """
        return self.mix(self.placed(x, cells, slots), cells, keep, slots)

    def placed(self, x: Tensor, cells: Places, slots: Optional[Slots] = None) -> Tensor:
        """Cells as in :meth:`forward` -> the same, with the embedding of positions."""
        if self.position is None:
            return x
        embedding = self.position(cells, x.dtype)
        return x + (embedding if slots is None else embedding.index_select(0, slots.within))

    def mix(self, x: Tensor, places: Places, keep: Optional[Tensor] = None,
            slots: Optional[Slots] = None) -> Tensor:
        """(B, windows, N, C), or (B, n, C) with slots -> the same: attention, then MLP."""
        first, second = (None, None) if keep is None else keep
        x = add(x, self.layer_scale1(self._attended(self.norm1(x), places, slots)), first)
        return add(x, self.layer_scale2(self.mlp(self.norm2(x))), second)

    def _attended(self, x: Tensor, places: Places, slots: Optional[Slots]) -> Tensor:
        if slots is None:
            return self.attn(x, places)
        B, _, C = x.shape
        tokens = places.num_prefix + places.grid()[0] * places.grid()[1]  # of a window
        x = x.new_zeros(B, slots.windows * tokens, C).index_copy_(1, slots.tokens, x)
        x = self.attn(x.view(B, slots.windows, tokens, C), places)
        return x.flatten(1, 2).index_select(1, slots.tokens)

    @torch.no_grad()
    def fold(self, cells: Places) -> None:
        """Make the windows' position terms constants and fold layer scale into projections.

        Args:
            cells: What the block is called with.
        """
        weight = self.mlp.fc1.weight
        cells = cells.filled(weight.device)
        if self.position is not None:
            self.position = Constant(self.position(cells, weight.dtype))
        if cells.is_dense():
            self.attn.position_bias = Constant(self.attn.position_bias(cells, weight.dtype))
        self.layer_scale1 = fold_layer_scale(self.attn.proj, self.layer_scale1)
        self.layer_scale2 = fold_layer_scale(self.mlp.fc2, self.layer_scale2)
        self.attn.fold()


class HierarchicalBlock(WindowBlock):
    """Hierarchical attention (HAT) block: windows exchange information through carriers.

    The carriers attend over the whole image, then each window attends over its own tokens and
    carriers together.

    Args:
        propagate: Whether, in the end, each carrier is added to its nearest cells. Default False.
        carrier_position_bias: As ``position_bias``, in the attention of carriers to carriers.
        Others: As :class:`WindowBlock`.
    """

    branches = 4

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0,
                 layer_scale: Optional[float] = None, absolute_position: bool = True,
                 position_bias: Optional[RelativePositionBias] = None,
                 carrier_position_bias: Optional[RelativePositionBias] = None,
                 propagate: bool = False):
        super().__init__(dim, num_heads, mlp_ratio, layer_scale, absolute_position, position_bias)
        self.propagate = propagate
        self.carrier_position = AbsolutePosition(dim) if absolute_position else None
        self.carrier_norm1 = nn.LayerNorm(dim)
        self.carrier_attn = BandedAttention(dim, num_heads, carrier_position_bias)
        self.carrier_layer_scale1 = _layer_scale(dim, layer_scale)
        self.carrier_norm2 = nn.LayerNorm(dim)
        self.carrier_mlp = Mlp(dim, int(dim * mlp_ratio))
        self.carrier_layer_scale2 = _layer_scale(dim, layer_scale)

    def forward(self, x: Tensor, cells: Places, carriers: Tensor, places: Places,
                keep: Optional[Tensor] = None, slots: Optional[Slots] = None
                ) -> Tuple[Tensor, Tensor]:
        """Cells and carriers of every window -> the same two.

        Args:
            x: (B, windows, k * k, C), or (B, H * W, C) with slots.
            cells: Where the tokens of one window are, its carriers before its cells.
            carriers: (B, windows, ct * ct, C).
            places: Where the carriers are.
            keep: As :class:`WindowBlock`; the carriers' two branches first. Default None.
            slots: As :class:`WindowBlock`, of carriers and cells. Default None.
        """
        own, joint = (None, None) if keep is None else keep.split(2)
        carriers = self.mix_carriers(carriers, places, own)
        shape, axis = carriers.shape, 2  # in each window, carriers before cells
        if slots is not None:
            carriers, axis = carriers.flatten(1, 2), 1  # all carriers, then all cells
        x = torch.cat([carriers, self.placed(x, cells, slots)], dim=axis)
        x = self.mix(x, cells, joint, slots)
        count = carriers.shape[axis]
        carriers, x = x.split([count, x.shape[axis] - count], dim=axis)
        carriers = carriers.view(shape)
        if self.propagate:
            nearest = _nearest(carriers, cells.grid()[0], places.size)
            if slots is not None:
                nearest = torch.cat([carriers, nearest], dim=2).flatten(1, 2).index_select(
                    1, slots.tokens[count:])
            x = x + self.carrier_layer_scale1(nearest)
        return x, carriers

    def mix_carriers(self, carriers: Tensor, places: Places,
                     keep: Optional[Tensor] = None) -> Tensor:
        """(B, windows, ct * ct, C) -> the same: attention over the whole image, then MLP."""
        x = carriers
        if self.carrier_position is not None:
            # The sum before flatten, which would copy carriers that are a split of the last
            # block's tokens.
            x = x + self.carrier_position(places, x.dtype).view(x.shape[1:])
        x = x.flatten(1, 2)
        first, second = (None, None) if keep is None else keep
        attended = self.carrier_attn(self.carrier_norm1(x), places)
        x = add(x, self.carrier_layer_scale1(attended), first)
        x = add(x, self.carrier_layer_scale2(self.carrier_mlp(self.carrier_norm2(x))), second)
        return x.view(carriers.shape)

    def fold(self, cells: Places) -> None:
        """As :meth:`WindowBlock.fold`; the carriers' terms follow the image."""
        super().fold(cells)
        if not self.propagate:  # else it also scales what is propagated
            self.carrier_layer_scale1 = fold_layer_scale(
                self.carrier_attn.proj, self.carrier_layer_scale1)
        self.carrier_layer_scale2 = fold_layer_scale(
            self.carrier_mlp.fc2, self.carrier_layer_scale2)
        self.carrier_attn.fold()


def _nearest(carriers: Tensor, window_size: int, ct_size: int) -> Tensor:
    """(B, windows, ct * ct, C) -> (B, windows, k * k, C): each cell's nearest carrier.

    Copies, not an index, whose gradient would be added up by atomics in 16 bits.
    """
    # Along one side, a cell's nearest carrier is cell * ct_size // window_size: this is the first
    # cell of each, and the number of them.
    first = [-(-carrier * window_size // ct_size) for carrier in range(ct_size + 1)]
    cells = [b - a for a, b in zip(first, first[1:])]
    x = carriers.unflatten(2, (ct_size, ct_size))
    x = torch.cat([row.expand(-1, -1, n, -1, -1) for row, n in zip(x.split(1, 2), cells)], 2)
    x = torch.cat([row.expand(-1, -1, -1, n, -1) for row, n in zip(x.split(1, 3), cells)], 3)
    return x.flatten(2, 3)


def _layer_scale(dim: int, initial_value: Optional[float]) -> nn.Module:
    return nn.Identity() if initial_value is None else LayerScale(dim, initial_value)
