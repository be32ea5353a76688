"""The two kinds of stage: convolutional at high resolution, transformer at low."""
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..compat import is_compiling
from . import windows
from .attention import HierarchicalBlock, WindowBlock
from .carriers import CarrierInitialiser
from .folding import fold_norms
from .keeping import Kept
from .kernels import logits_dtype
from .positions import (
    NoRelativePosition,
    Places,
    PositionTerm,
    RelativePositionBias,
    RelativePositionTable,
    check_carrier_bias,
    with_terms,
)
from .recomputing import run
from .stochastic_depth import StochasticDepth, add


class Stem(nn.Sequential):
    """(B, in_channels, H, W) -> (B, dim, ceil(H / 4), ceil(W / 4)).

    Args:
        in_channels: Channels of the image.
        mid_channels: Channels between the two convolutions.
        dim: Channels of the output.
    """

    def __init__(self, in_channels: int, mid_channels: int, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(mid_channels, eps=1e-4)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(mid_channels, dim, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(dim, eps=1e-4)
        self.act2 = nn.ReLU(inplace=True)

    def switch_to_deploy(self) -> None:
        """Fold the BatchNorms into the convolutions before them."""
        fold_norms(self)


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
    """

    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(dim)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor, keep: Optional[Tensor] = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W).

        Args:
            x: The map.
            keep: (1, B) of :class:`~.stochastic_depth.StochasticDepth`. Default None.
        """
        y = self.act(self.norm1(self.conv1(x)))
        return add(x, self.norm2(self.conv2(y)), keep)

    def switch_to_deploy(self) -> None:
        """Fold the BatchNorms into the convolutions before them."""
        fold_norms(self)


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
        self.with_cp = with_cp
        self.pad_to = pad_to
        self.blocks = nn.ModuleList(ConvBlock(dim) for _ in drop_paths)
        self.stochastic_depth = StochasticDepth(drop_paths, branches=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        map_size, symbolic = x.shape[2:], is_compiling()
        if self.pad_to > 1:
            x = windows.pad(x, self.pad_to, symbolic)
        for block, keep in zip(self.blocks, self.stochastic_depth(x)):
            x = run(block, self.with_cp, x, keep)
        if self.pad_to > 1:
            x = windows.crop(x.permute(0, 2, 3, 1), self.pad_to, map_size, symbolic)
        return x


class HierarchicalAttention(nn.Module):
    """Blocks of hierarchical attention (HAT, paper section 3.3) on a map of any size.

    Pads to whole windows, partitions, runs the blocks, unpartitions and crops. It is what stages 3
    and 4 of :class:`~fastervit_mm.FasterViT` are, and what a stage of another network can be
    (``docs/hierarchical_attention.md``). Layers are initialised as PyTorch does it.

    Args:
        dim: Channels.
        depth: Number of blocks.
        num_heads: Attention heads; they divide ``dim``.
        window_size: Side of an attention window, in cells. Default 7.
        ct_size: Carrier tokens along one side of a window; None for none, attention within windows
            alone. Default 2.
        propagate_carriers: Whether the last block adds its carriers to the map. Default False.
        mlp_ratio: Hidden width of a block's MLP over ``dim``. Default 4.
        layer_scale: Initial value of layer scale. Default None, for none.
        carrier_bias: Initial value of the learned bias of a window's cells towards its carriers,
            one for each head and block; None for none. Default ``'equal'``, with which cells
            attend to carriers as to cells at first: 8 if ``relative_position`` is ``'mlp'``, else
            0.
        drop_paths: Rate of stochastic depth of each block. Default 0.
        absolute_position: Whether cells and carriers get an embedding of their positions. Default
            True.
        relative_position: The bias of attention by offset. ``'mlp'``, Swin V2's, as in the paper;
            ``'table'``, Swin's, within windows, and the MLP among carriers, whose grid is of any
            size; None for none. Default ``'mlp'``.
        carriers_every: Which blocks have carriers: with 1 all, with 2 the second, the fourth and
            so on. The others attend within windows alone. Default 1.
        padding: Where a map is padded to whole windows, with zeros at the bottom and right.
            ``'stage'``: before the first block, and for the others padding counts as cells do, as
            in FasterViT. ``'block'``: in each block before its attention, as in Swin; MLPs leave it
            out. Default ``'stage'``.
        with_cp: Recompute each block in the backward pass to save memory. Default False.

    Raises:
        ValueError: For an argument out of range; the message says what would be right.

    Example:
        >>> import torch
        >>> from fastervit_mm import HierarchicalAttention
        >>> stage = HierarchicalAttention(64, depth=2, num_heads=4).eval()
        >>> stage(torch.rand(1, 64, 20, 45)).shape
        torch.Size([1, 64, 20, 45])
    """

    def __init__(self, dim: int, depth: int, num_heads: int, window_size: int = 7,
                 ct_size: Optional[int] = 2, propagate_carriers: bool = False,
                 mlp_ratio: float = 4.0, layer_scale: Optional[float] = None,
                 carrier_bias: Union[float, str, None] = 'equal',
                 drop_paths: Optional[Sequence[float]] = None, absolute_position: bool = True,
                 relative_position: Optional[str] = 'mlp', carriers_every: int = 1,
                 padding: str = 'stage', with_cp: bool = False):
        super().__init__()
        _check_arguments(dim, depth, num_heads, window_size, ct_size, mlp_ratio, layer_scale,
                         carrier_bias, relative_position, carriers_every, padding)
        drop_paths = (0.,) * depth if drop_paths is None else tuple(drop_paths)
        if len(drop_paths) != depth or not all(0 <= rate < 1 for rate in drop_paths):
            raise ValueError(f'drop_paths={drop_paths}: give depth={depth} rates from 0 up to, '
                             'not including, 1')
        self.dim = dim
        self.window_size = window_size
        self.ct_size = ct_size
        self.padding = padding
        self.with_cp = with_cp
        self.deployed = False
        self.carries = tuple(ct_size is not None and (number + 1) % carriers_every == 0
                             for number in range(depth))  # whether a block has carriers
        if any(self.carries):
            self.carrier_init = CarrierInitialiser(dim, window_size, ct_size)

        def bias(**settings) -> RelativePositionBias:
            if relative_position is None:
                return NoRelativePosition(num_heads, **settings)
            if relative_position == 'table':
                return RelativePositionTable(num_heads, window_size, **settings)
            return RelativePositionBias(num_heads, **settings)

        last = depth - 1 - self.carries[::-1].index(True) if any(self.carries) else None
        common = dict(mlp_ratio=mlp_ratio, layer_scale=layer_scale,
                      absolute_position=absolute_position)
        self.blocks = nn.ModuleList(
            HierarchicalBlock(
                dim, num_heads, **common, position_bias=bias(carrier_bias=carrier_bias),
                carrier_position_bias=None if relative_position else NoRelativePosition(num_heads),
                propagate=propagate_carriers and number == last)
            if carries else WindowBlock(dim, num_heads, **common, position_bias=bias())
            for number, carries in enumerate(self.carries))
        self.stochastic_depth = StochasticDepth(
            drop_paths, max(block.branches for block in self.blocks))
        self.kept_cells, self.kept_alone, self.kept_carriers = Kept(), Kept(), Kept()
        self.kept_slots = Kept()

    def cells(self, carries: bool) -> Places:
        """Where the tokens of one window are: its carriers, which have no place, then its cells.

        Args:
            carries: Whether there are carriers.
        """
        return Places((self.window_size, self.window_size), 1,
                      (self.ct_size or 0)**2 if carries else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> (B, dim, H, W), channels last in memory."""
        if x.ndim != 4 or x.shape[1] != self.dim:
            raise ValueError(f'input of shape {tuple(x.shape)}: expected (B, {self.dim}, H, W)')
        map_size = x.shape[2:]
        # In a graph for images of all sizes no branch may depend on a size.
        symbolic = is_compiling()
        unpadded = x.permute(0, 2, 3, 1)
        x = windows.pad(x, self.window_size, symbolic)
        slots = {}  # by whether there are carriers
        if self.padding == 'block' and (symbolic or x.shape[2:] != map_size):
            tokens = unpadded.flatten(1, 2)  # (B, H * W, C)
            grid = x.shape[2] // self.window_size, x.shape[3] // self.window_size
            slots = self._slots(grid, map_size, x.device, symbolic)
        else:
            # (B, windows, k * k, C)
            tokens, grid = windows.partition(x, self.window_size, symbolic)
        keeps = self.stochastic_depth(x)
        alone, joint = (self._with_terms(
            self.cells(carries), [(block.position, block.attn.position_bias)
                                  for block, its in zip(self.blocks, self.carries)
                                  if its == carries], x, kept, symbolic)
            for carries, kept in ((False, self.kept_alone), (True, self.kept_cells)))
        if any(self.carries):
            carriers = self.carrier_init(x, symbolic)  # (B, windows, ct * ct, C)
            places = self._with_terms(
                Places(grid, self.ct_size, symbolic=symbolic),
                [(block.carrier_position, block.carrier_attn.position_bias)
                 for block, carries in zip(self.blocks, self.carries) if carries],
                x, self.kept_carriers, symbolic)
        for number, (block, keep) in enumerate(zip(self.blocks, keeps)):
            before = sum(self.carries[:number])  # blocks with carriers
            if self.carries[number]:
                tokens, carriers = run(block, self.with_cp, tokens, joint[before], carriers,
                                       places[before], keep, slots.get(True))
            else:
                keep = None if keep is None else keep[:WindowBlock.branches]
                tokens = run(block, self.with_cp, tokens, alone[number - before], keep,
                             slots.get(False))
        if slots:
            return tokens.view(unpadded.shape).permute(0, 3, 1, 2)
        return windows.unpartition(tokens, grid, self.window_size, map_size, symbolic)

    def _slots(self, grid: windows.Grid, map_size: windows.Grid, device: torch.device,
               symbolic: bool) -> Dict[bool, windows.Slots]:
        """Where a map's tokens are in whole windows, for blocks with carriers and without."""
        def computed() -> Dict[bool, windows.Slots]:
            return {carries: windows.slots(grid, self.window_size, self.cells(carries).num_prefix,
                                           map_size, device, symbolic)
                    for carries in (False, True)}
        if symbolic:
            return computed()
        return self.kept_slots((map_size, device), device, computed)

    def _with_terms(self, places: Places, terms: Sequence[Tuple[nn.Module, nn.Module]], x: Tensor,
                    kept: Kept, symbolic: bool) -> List[Places]:
        """Places for each block, filled as far as they are used, with terms that are shared work.

        Coordinates are kept for the last size, and terms too once weights do not change any more.

        Args:
            places: Where the blocks' tokens are.
            terms: Embedding and bias of each block.
            x: The map.
            kept: Keeps coordinates and terms.
            symbolic: As in :func:`windows.pad`.
        """
        device, dtype = x.device, x.dtype
        positions, biases = ([term for term in kind if isinstance(term, PositionTerm)]
                             for kind in (zip(*terms) if terms else ((), ())))
        if not positions and not biases:
            return [places] * len(terms)  # constants
        # A block that something wraps, as FSDP does, may have its weights in its own forward only.
        own = any(type(block) not in (WindowBlock, HierarchicalBlock) for block in self.blocks)

        def computed(filled: Places) -> List[Places]:
            if own:
                return [filled] * len(terms)
            return with_terms(filled, positions, biases, dtype, logits_dtype(x),
                              to_keep=self.deployed and not symbolic)
        if symbolic:
            return computed(places.filled(device))
        if self.deployed:
            key = (places, dtype, device)
            return kept(key, device, lambda: computed(places.filled(device)))
        return computed(kept((places, device), device, lambda: places.filled(device)))

    def switch_to_deploy(self) -> None:
        """In every block, fix the position terms and fold what can be folded into weights."""
        if not self.deployed:
            for block, carries in zip(self.blocks, self.carries):
                block.fold(self.cells(carries))
            self.deployed = True


def _check_arguments(dim: int, depth: int, num_heads: int, window_size: int,
                     ct_size: Optional[int], mlp_ratio: float, layer_scale: Optional[float],
                     carrier_bias: Union[float, str, None], relative_position: Optional[str],
                     carriers_every: int, padding: str) -> None:
    for name, value in (('dim', dim), ('depth', depth), ('num_heads', num_heads),
                        ('window_size', window_size), ('carriers_every', carriers_every)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f'{name}={value!r}: give a whole number of at least 1')
    if dim % num_heads:
        raise ValueError(f'num_heads={num_heads}: they do not divide dim={dim}; give a divisor')
    if ct_size is not None and not (isinstance(ct_size, int) and 1 <= ct_size <= window_size):
        raise ValueError(f'ct_size={ct_size!r}: a window of {window_size} cells a side holds 1 to '
                         f'{window_size} carrier tokens a side; None for none')
    if ct_size is not None and carriers_every > depth:
        raise ValueError(f'carriers_every={carriers_every}: no block of depth={depth} has '
                         'carriers; give at most that, or ct_size=None')
    if not (layer_scale is None or isinstance(layer_scale, (int, float))):
        raise ValueError(f'layer_scale={layer_scale!r}: give a number, or None for none')
    check_carrier_bias(carrier_bias)
    if not (isinstance(mlp_ratio, (int, float)) and int(dim * mlp_ratio) >= 1):
        raise ValueError(f'mlp_ratio={mlp_ratio!r}: give a number of at least 1 / dim')
    if relative_position not in ('mlp', 'table', None):
        raise ValueError(f'relative_position={relative_position!r}: give \'mlp\', \'table\' or '
                         'None')
    if padding not in ('stage', 'block'):
        raise ValueError(f'padding={padding!r}: give \'stage\' or \'block\'')
