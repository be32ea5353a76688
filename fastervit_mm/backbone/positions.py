"""The two position terms, each a small MLP over grid coordinates.

Both follow the real grid ``(h, w)`` that travels with the tokens, one axis at a time, so a grid of
any shape works and a square one gives the authors' values. An axis of one cell has the single
coordinate 0.
"""
from typing import Iterator, Optional, Tuple

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

Grid = Tuple[int, int]
_ALIGNMENT = 8  # of a row of attention bias, in elements: the fused kernels of GPUs want it


class PositionTerm(nn.Module):
    """An MLP over coordinates whose output is kept while nothing can have changed it.

    In evaluation, without gradients, the term of the last grid is kept. It is computed anew after
    ``train()``, ``eval()``, ``.to()``, ``load_state_dict``, a copy, an in-place change of a weight
    (an optimizer step) or a change of grid, device or dtype. What PyTorch cannot tell is a write
    through ``.data``. mmengine's averaged models write so, to parameters that need no gradient;
    for such parameters nothing is kept. One entry only, so memory does not grow with the number
    of image sizes seen. Once :meth:`fix` was called, weights no longer count.

    Args:
        out_features: Width of the MLP's output.
        hidden_features: Width of the hidden layer. Paper: 512.
    """

    def __init__(self, out_features: int, hidden_features: int = 512):
        super().__init__()
        self.mlp = Mlp(2, hidden_features, out_features, act_layer=nn.ReLU, bias=(True, False))
        self._kept: Optional[tuple] = None
        self._fixed = False
        self._constant_key: Optional[tuple] = None
        # In no checkpoint; moves and casts with the module.
        self.register_buffer('_constant', None, persistent=False)

    def coordinates_to_features(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(h,), (w,) -> (h, w, out_features), in float32 whatever the weights are.

        In 16 bits neighbouring cells of a large grid would share a coordinate.
        """
        pairs = torch.stack(torch.meshgrid(rows, columns, indexing='ij'), dim=-1)
        first, second = self.mlp.fc1, self.mlp.fc2
        dtype = torch.promote_types(first.weight.dtype, torch.float32)
        with torch.autocast(pairs.device.type, enabled=False):
            hidden = F.linear(pairs.to(dtype), first.weight.to(dtype), first.bias.to(dtype))
            return F.linear(hidden.relu(), second.weight.to(dtype))

    @torch.no_grad()
    def fix(self, *place) -> None:
        """Compute the term from now on as if its weights could never change.

        Args:
            place: Arguments of a call but for its type; that call's term becomes a constant, in a
                compiled graph too.
        """
        self.forget()
        self._fixed = True
        if place:
            self._constant = self._compute(*place)
            self._constant_key = place

    def _remember(self, dtype: torch.dtype, *place) -> Tensor:
        """``_compute(*place)`` in ``dtype``, or what it gave last time if that must be the same."""
        if self._constant is not None and place == self._constant_key:
            return self._constant.to(dtype)
        # A traced graph must hold the computation itself: a kept tensor would become a constant.
        if (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
                or torch.jit.is_tracing()):
            return self._compute(*place).to(dtype)
        weights = list(self.mlp.parameters())
        if weights[0].is_inference() or not (self._fixed or all(
                p.requires_grad for p in weights)):
            return self._compute(*place).to(dtype)
        key = (place, dtype, *((p.data_ptr(), p._version, p.device) for p in weights))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, self._compute(*place).to(dtype))
        return self._kept[1]

    def _compute(self, *place) -> Tensor:
        raise NotImplementedError

    def forget(self) -> None:
        """Drop the kept term."""
        self._kept = None

    def train(self, mode: bool = True):
        self.forget()
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        self.forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs):
        self.forget()
        return super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self):
        # deepcopy and pickle go through here: a copy lives on with weights of its own.
        return {**self.__dict__, '_kept': None}


class AbsolutePosition(PositionTerm):
    """Position embedding of tokens on a grid (paper section 3.3).

    Cell ``i`` of an axis of ``n`` cells has the coordinate ``(i - n // 2) / (n // 2)``.

    Args:
        dim: Width of the tokens.
    """

    def forward(self, grid: Grid, dtype: torch.dtype) -> Tensor:
        """(h, w) -> (h * w, dim), raster order."""
        return self._remember(dtype, grid)

    def _compute(self, grid: Grid) -> Tensor:
        device = self.mlp.fc1.weight.device
        rows, columns = (
            (torch.arange(n, device=device) - n // 2) / max(n // 2, 1) for n in grid)
        return self.coordinates_to_features(rows, columns).flatten(0, 1)


class RelativePositionBias(PositionTerm):
    """Bias of attention logits from the offset between query and key (Swin V2, eq. 3 and 4).

    An offset ``d`` along an axis of ``n`` cells becomes ``t = 8 d / (n - 1)``, then
    ``sign(t) log2(1 + |t|) / 3``; the bias is ``16 sigmoid(MLP(rows, columns))``.

    Args:
        num_heads: Attention heads; each has its own bias.
    """

    def __init__(self, num_heads: int):
        super().__init__(num_heads)

    def forward(self, grid: Grid, dtype: torch.dtype, num_prefix: int = 0) -> Tensor:
        """(h, w) -> (num_heads, N, N) with N = num_prefix + h * w.

        The first ``num_prefix`` rows and columns are 0: carrier tokens riding in front of a
        window's own tokens have no offset to them.
        """
        bias = self._remember(dtype, grid, num_prefix)
        # Rows are padded in memory and not in shape.
        return bias[..., :num_prefix + grid[0] * grid[1]]

    def bands(self, grid: Grid, dtype: torch.dtype, rows: int) -> Iterator[Tensor]:
        """(h, w) -> (num_heads, up to rows * w, h * w), the last query first.

        For grids whose whole bias would not be worth its memory; nothing is kept.
        """
        h, w = grid
        # Of the table turned around, the biases of a query are one block, and those of the query
        # before it start one further on. Copying blocks takes a tenth of looking up every pair.
        blocks = self._table(grid).flip(1, 2).unfold(1, h, 1).unfold(2, w, 1)
        for first in range(0, h, rows):
            band = blocks[:, first:first + rows]
            yield band.reshape(band.shape[0], -1, h * w).to(dtype)

    def _compute(self, grid: Grid, num_prefix: int) -> Tensor:
        h, w = grid
        bias = self._spread(self._table(grid), grid)
        # A compiler aligns for itself; whether a size is a multiple would be a question to it.
        align = 0 if torch.compiler.is_compiling() else -(num_prefix + h * w) % _ALIGNMENT
        return F.pad(bias, (num_prefix, align, num_prefix, 0))

    def _table(self, grid: Grid) -> Tensor:
        """(h, w) -> (num_heads, 2h - 1, 2w - 1): the bias of every offset."""
        device = self.mlp.fc1.weight.device
        features = self.coordinates_to_features(*(self._log_offsets(n, device) for n in grid))
        return 16 * features.permute(2, 0, 1).sigmoid()

    @staticmethod
    def _spread(table: Tensor, grid: Grid) -> Tensor:
        """(num_heads, 2h - 1, 2w - 1) -> (num_heads, h * w, h * w)."""
        h, w = grid
        rows, columns = (torch.arange(n, device=table.device) for n in grid)
        row_offset = rows[:, None] - rows + (h - 1)
        column_offset = columns[:, None] - columns + (w - 1)
        bias = table[:, row_offset[:, None, :, None], column_offset[None, :, None, :]]
        return bias.flatten(3, 4).flatten(1, 2)  # (heads, h, w, h, w) flattened

    @staticmethod
    def _log_offsets(n: int, device: torch.device) -> Tensor:
        t = torch.arange(-(n - 1), n, device=device) * 8 / max(n - 1, 1)
        return t.sign() * torch.log2(1 + t.abs()) / 3
