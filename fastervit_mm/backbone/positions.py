"""Where tokens are, and the two position terms, each a small MLP over coordinates.

Both terms follow the real grid, one axis at a time, so a grid of any shape works and a square one
gives the authors' values. An axis of one cell has the single coordinate 0.
"""
from contextlib import nullcontext
from typing import ContextManager, List, NamedTuple, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from .windows import Grid

_DENSE_TOKENS = 1024  # with more, the bias of all pairs would be the largest tensor of the network
_SMALL_TOKENS = 256  # with more, that of all blocks would
_ALIGNMENT = 8  # of a row of attention bias, in elements: fused GPU kernels need it


class Places(NamedTuple):
    """Tokens of ``rows x columns`` windows with ``size x size`` tokens each, in window order.

    Window order: windows in raster order, and in each its tokens in raster order.

    Attributes:
        windows: Rows and columns of windows.
        size: Tokens along one side of a window.
        num_prefix: Number of tokens without a place, before all others: the carriers of a window.
        symbolic: Whether the number of windows is a symbol of a graph for all sizes.
        coordinates: (N, 2), row and column of each token, -1 to 1 about the middle of the grid:
            index ``i`` of ``n`` becomes ``(i - n // 2) / (n // 2)``. None until :meth:`filled`,
            as are the two below.
        offsets: (M, 2), every offset between two tokens, rows before columns, M = (2h - 1)(2w - 1)
            on a grid of h x w: ``d`` along an axis of ``n`` becomes ``t = 8 d / (n - 1)``, then
            ``sign(t) log2(1 + |t|) / 3`` (Swin V2, eq. 4).
        pairs: (P + N, at least P + N), the index in ``offsets`` of each query and key. If one of
            them has no place, M for a query without a place, M + 1 for one with a place. None if
            the places are not dense.
        embedding, table, bias: One block's position terms where its stage has computed them, as
            :class:`AbsolutePosition` and :class:`RelativePositionBias` return them.
    """
    windows: Grid
    size: int
    num_prefix: int = 0
    symbolic: bool = False
    coordinates: Optional[Tensor] = None
    offsets: Optional[Tensor] = None
    pairs: Optional[Tensor] = None
    embedding: Optional[Tensor] = None
    table: Optional[Tensor] = None
    bias: Optional[Tensor] = None

    def grid(self) -> Grid:
        """Height and width of the grid, in tokens."""
        return self.windows[0] * self.size, self.windows[1] * self.size

    def is_dense(self) -> bool:
        """Whether the bias of all pairs of tokens is made at once.

        True for at most 1024 tokens, for tokens with a prefix, and in a graph for all sizes, which
        cannot hold a loop over tokens.
        """
        return (self.symbolic or self.num_prefix > 0
                or self.grid()[0] * self.grid()[1] <= _DENSE_TOKENS)

    def is_small(self) -> bool:
        """Whether the biases of all blocks of a stage are made at once."""
        return not self.symbolic and self.grid()[0] * self.grid()[1] <= _SMALL_TOKENS

    def filled(self, device: torch.device) -> 'Places':
        """The same places with their tensors."""
        h, w = self.grid()
        row, column = (torch.arange(n, device=device) for n in (h, w))
        coordinates = self._in_window_order(
            (row - h // 2) / max(h // 2, 1), (column - w // 2) / max(w // 2, 1))
        offsets = torch.stack(torch.meshgrid(
            _log_offsets(h, device), _log_offsets(w, device), indexing='ij'), -1).view(-1, 2)
        pairs = None
        if self.is_dense():
            pairs = self.pairs_of(slice(None), device)
            if self.num_prefix:
                before = self.num_prefix
                aligned = -(before + h * w) % _ALIGNMENT
                pairs = F.pad(pairs, (before, aligned), value=len(offsets) + 1)
                pairs = F.pad(pairs, (0, 0, before, 0), value=len(offsets))
        return Places(self.windows, self.size, self.num_prefix, self.symbolic, coordinates, offsets,
                      pairs)

    def of_block(self, embedding: Optional[Tensor] = None, table: Optional[Tensor] = None,
                 bias: Optional[Tensor] = None) -> 'Places':
        """The same places with some of one block's position terms."""
        # Neither _replace() nor a slice, which the compiler of torch 2.6 cannot follow; nor can it
        # properties of a named tuple.
        return Places(self.windows, self.size, self.num_prefix, self.symbolic, self.coordinates,
                      self.offsets, self.pairs,
                      self.embedding if embedding is None else embedding,
                      self.table if table is None else table,
                      self.bias if bias is None else bias)

    def pairs_of(self, queries: Union[slice, Tensor], device: torch.device) -> Tensor:
        """(Q, N): the index in ``offsets`` of some queries, each with every key that has a place.

        Args:
            queries: Indices of the queries, counted without ``num_prefix``.
            device: Where to compute.
        """
        h, w = self.grid()
        row, column = self._in_window_order(
            *(torch.arange(n, device=device) for n in (h, w))).unbind(-1)
        return ((row[queries, None] - row + (h - 1)) * (2 * w - 1)
                + (column[queries, None] - column + (w - 1)))

    def _in_window_order(self, row: Tensor, column: Tensor) -> Tensor:
        """(h,), (w,) -> (N, 2), the values of each token's row and column."""
        shape = (*self.windows, self.size, self.size)
        row = row.view(shape[0], 1, self.size, 1).expand(shape)
        column = column.view(1, shape[1], 1, self.size).expand(shape)
        return torch.stack((row, column), -1).view(-1, 2)


def _log_offsets(n: int, device: torch.device) -> Tensor:
    t = torch.arange(-(n - 1), n, device=device) * 8 / max(n - 1, 1)
    return t.sign() * torch.log2(1 + t.abs()) / 3


class PositionTerm(nn.Module):
    """An MLP over pairs of coordinates.

    Args:
        out_features: Width of the MLP's output.
        hidden_features: Width of the hidden layer. Paper: 512.
    """

    def __init__(self, out_features: int, hidden_features: int = 512):
        super().__init__()
        self.mlp = Mlp(2, hidden_features, out_features, act_layer=nn.ReLU, bias=(True, False))


class AbsolutePosition(PositionTerm):
    """Position embedding of tokens (paper section 3.3).

    Args:
        dim: Width of the tokens.
    """

    def forward(self, places: Places, dtype: torch.dtype) -> Tensor:
        """N tokens -> (N, dim)."""
        if places.embedding is None:
            places = with_terms(places, [self], [], dtype, dtype)[0]
        return places.embedding.to(dtype)


class RelativePositionBias(PositionTerm):
    """Bias of attention logits from the offset between query and key (Swin V2, eq. 3 and 4).

    It is ``16 sigmoid(MLP(offset))``.

    Args:
        num_heads: Attention heads; each has its own bias.
        carrier_bias: Initial value of a learned bias, one for each head, of a window's cells
            towards its carriers, which have no offset to them; ``'equal'`` for
            :attr:`of_cells`. Default None: none, as in the paper.

    Attributes:
        of_cells (float): The bias of cells towards each other where it is not yet trained.
    """

    of_cells = 8.

    def __init__(self, num_heads: int, carrier_bias: Union[float, str, None] = None):
        super().__init__(num_heads)
        if carrier_bias == 'equal':
            carrier_bias = self.of_cells
        self.carrier_bias = None if carrier_bias is None else nn.Parameter(
            torch.full((num_heads,), float(carrier_bias)))

    def forward(self, places: Places, dtype: torch.dtype) -> Tensor:
        """N tokens -> (num_heads, N, N), those without a place included, rows aligned in memory.

        Rows of tokens without a place, a window's carriers, are 0. Their columns are the carrier
        bias, or 0.
        """
        if places.bias is None:
            return _looked_up(self.table(places), places, dtype)
        return places.bias.to(dtype)

    def table(self, places: Places) -> Tensor:
        """N tokens on a grid of h x w -> (num_heads, (2h - 1)(2w - 1)), of every offset.

        With tokens without a place two more columns, as in ``Places.pairs``.
        """
        return _tables([self], places)[0] if places.table is None else places.table

    @staticmethod
    def of_offsets(terms: Sequence['RelativePositionBias'], places: Places) -> Tensor:
        """(terms, num_heads, (2h - 1)(2w - 1)): of each term the bias of every offset."""
        return 16 * _features(terms, places.offsets).transpose(1, 2).sigmoid()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Without a carrier bias, as the authors' files and those of before it, is with one of 0.
        name, other = f'{prefix}carrier_bias', state_dict.get(f'{prefix}mlp.fc2.weight')
        own = self.carrier_bias
        if own is None:
            if name in state_dict and not state_dict[name].any():
                del state_dict[name]
        elif name not in state_dict and other is not None:
            state_dict[name] = other.new_zeros(own.shape) if own.is_meta else torch.zeros_like(own)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class RelativePositionTable(RelativePositionBias):
    """A learned bias of each offset within a window (Swin, section 3.2), for one size of windows.

    Args:
        num_heads: As :class:`RelativePositionBias`.
        window_size: Side of a window, in cells.
        carrier_bias: As :class:`RelativePositionBias`.
    """

    of_cells = 0.

    def __init__(self, num_heads: int, window_size: int,
                 carrier_bias: Union[float, str, None] = None):
        super().__init__(num_heads, carrier_bias)
        del self.mlp
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty((2 * window_size - 1)**2, num_heads), std=0.02))

    @staticmethod
    def of_offsets(terms: Sequence['RelativePositionTable'], places: Places) -> Tensor:
        return torch.stack([term.relative_position_bias_table.t() for term in terms])


class NoRelativePosition(RelativePositionBias):
    """A bias of 0 for every offset, to measure what the others are good for.

    Args:
        As :class:`RelativePositionBias`.
    """

    of_cells = 0.

    def __init__(self, num_heads: int, carrier_bias: Union[float, str, None] = None):
        super().__init__(num_heads, carrier_bias)
        del self.mlp
        self.num_heads = num_heads

    @staticmethod
    def of_offsets(terms: Sequence['NoRelativePosition'], places: Places) -> Tensor:
        return places.offsets.new_zeros(len(terms), terms[0].num_heads, len(places.offsets))


def with_terms(places: Places, positions: Sequence[AbsolutePosition],
               biases: Sequence[RelativePositionBias], dtype: torch.dtype,
               logits_dtype: torch.dtype, to_keep: bool = False) -> List[Places]:
    """The same places for each block of a stage, with its position terms.

    The MLPs of all blocks run as one: a term by itself is some 30 small kernels. What would be
    large together is left to each block.

    Args:
        places: Filled places.
        positions: The blocks' embeddings.
        biases: The blocks' biases; as many, or none.
        dtype: Type of the embeddings: the tokens'.
        logits_dtype: Type of the biases.
        to_keep: Whether they serve many images, and all biases are worth their memory. Default
            False.
    """
    found = [places] * max(len(positions), len(biases))
    if positions:
        embeddings = _features(positions, places.coordinates).to(dtype)
        found = [p.of_block(embedding=e) for p, e in zip(found, embeddings.unbind(0))]
    if biases and places.is_dense():
        tables = _tables(biases, places)
        found = [p.of_block(table=t) for p, t in zip(found, tables.unbind(0))]
        if places.is_small() or to_keep:
            together = _looked_up(tables, places, logits_dtype)
            found = [p.of_block(bias=b) for p, b in zip(found, together.unbind(0))]
    return found


def _features(terms: Sequence[PositionTerm], pairs: Tensor) -> Tensor:
    """(N, 2) -> (terms, N, out_features), at least in float32 whatever the weights are.

    In 16 bits neighbouring cells of a large grid would share a coordinate.
    """
    first, bias, second = (torch.cat([weight(term.mlp) for term in terms]) for weight in (
        lambda mlp: mlp.fc1.weight, lambda mlp: mlp.fc1.bias, lambda mlp: mlp.fc2.weight))
    dtype = torch.promote_types(first.dtype, torch.float32)
    with _no_autocast(pairs.device):
        hidden = F.linear(pairs.to(dtype), first.to(dtype), bias.to(dtype)).relu_()
        hidden = hidden.unflatten(-1, (len(terms), -1)).transpose(0, 1)
        second = second.to(dtype).view(len(terms), -1, second.shape[1])
        return torch.bmm(hidden, second.transpose(1, 2))


def _tables(terms: Sequence[RelativePositionBias], places: Places) -> Tensor:
    """(terms, num_heads, (2h - 1)(2w - 1)); with tokens without a place two more columns."""
    tables = terms[0].of_offsets(terms, places)
    if not places.num_prefix:
        return tables
    if terms[0].carrier_bias is None:
        return F.pad(tables, (0, 2))
    # Not stacked, and padded after that: so one copy of a gradient serves all terms.
    to_carriers = torch.cat([term.carrier_bias for term in terms]).view(len(terms), -1, 1)
    return torch.cat([tables, F.pad(to_carriers, (1, 0))], dim=-1)


def _looked_up(tables: Tensor, places: Places, dtype: torch.dtype) -> Tensor:
    """(..., (2h - 1)(2w - 1) or two more) -> (..., N, N): the bias of each pair of tokens."""
    # On a CPU twice as fast as tables[..., pairs].
    bias = tables.index_select(-1, places.pairs.flatten())
    # The cast before the cut: of a part, it would make rows that are not aligned.
    bias = bias.unflatten(-1, places.pairs.shape).to(dtype)
    return bias[..., :places.pairs.shape[0]] if places.num_prefix else bias


def _no_autocast(device: torch.device) -> ContextManager:
    """Products in the type of their inputs. The meta device knows no autocast."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


def check_carrier_bias(value: Union[float, str, None]) -> None:
    """Raise a ValueError unless ``value`` can be an initial value of carrier biases."""
    if not (value is None or value == 'equal' or isinstance(value, (int, float))):
        raise ValueError(f'carrier_bias={value!r}: give a number, \'equal\' for that of cells, or '
                         'None for none')


class Constant(nn.Module):
    """A position term computed once, which replaces the term in a deployed network.

    Args:
        value: The term. If its rows are aligned in memory, they stay so after a cast.
    """

    def __init__(self, value: Tensor):
        super().__init__()
        self.columns = value.shape[-1]
        whole = value.as_strided((*value.shape[:-1], value.stride(-2)), value.stride())
        # In no checkpoint; moves and casts with the module.
        self.register_buffer('value', whole.clone(), persistent=False)

    def forward(self, places: Places, dtype: torch.dtype) -> Tensor:
        return self.value.to(dtype)[..., :self.columns]
