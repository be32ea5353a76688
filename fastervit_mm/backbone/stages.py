"""The two kinds of stage: convolutional at high resolution, transformer at low."""
from typing import List, Optional, Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..compat import is_compiling
from . import windows
from .attention import HierarchicalBlock, WindowBlock
from .carriers import CarrierInitialiser
from .folding import fold_norms
from .keeping import Kept
from .kernels import logits_dtype
from .positions import Places, PositionTerm, with_terms
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


class TransformerStage(nn.Module):
    """Pads to whole windows, partitions, runs the blocks, unpartitions and crops.

    Args:
        dim: Channels.
        num_heads: Attention heads.
        window_size: Side of an attention window, in cells.
        drop_paths: Rate of stochastic depth of each block.
        ct_size: Carriers along one side of a window; None for no carriers.
        propagate_carriers: Whether the last carriers are added to the map.
        mlp_ratio: Hidden width of a block's MLP over ``dim``.
        layer_scale: Initial value of layer scale; None for none.
        carrier_bias: Initial value of the learned bias of a window's cells towards its carriers,
            one for each head and block; None for none.
        with_cp: Whether to recompute each block in the backward pass to save memory.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, drop_paths: Sequence[float],
                 ct_size: Optional[int] = None, propagate_carriers: bool = False,
                 mlp_ratio: float = 4.0, layer_scale: Optional[float] = None,
                 carrier_bias: Optional[float] = 8.0, with_cp: bool = False):
        super().__init__()
        self.window_size = window_size
        self.ct_size = ct_size
        self.with_cp = with_cp
        self.deployed = False
        common = dict(mlp_ratio=mlp_ratio, layer_scale=layer_scale)
        if ct_size is None:
            self.blocks = nn.ModuleList(
                WindowBlock(dim, num_heads, **common) for _ in drop_paths)
        else:
            self.carrier_init = CarrierInitialiser(dim, window_size, ct_size)
            last = len(drop_paths) - 1
            self.blocks = nn.ModuleList(
                HierarchicalBlock(dim, num_heads, **common, carrier_bias=carrier_bias,
                                  propagate=propagate_carriers and number == last)
                for number in range(len(drop_paths)))
        self.stochastic_depth = StochasticDepth(drop_paths, self.blocks[0].branches)
        self.kept_cells, self.kept_carriers = Kept(), Kept()

    @property
    def cells(self) -> Places:
        """Where the tokens of one window are: its carriers without a place, then its cells."""
        return Places((self.window_size, self.window_size), 1, (self.ct_size or 0)**2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        map_size = x.shape[2:]
        # In a graph for images of all sizes no branch may depend on a size.
        symbolic = is_compiling()
        x = windows.pad(x, self.window_size, symbolic)
        tokens, grid = windows.partition(x, self.window_size, symbolic)  # (B, windows, k * k, C)
        keeps = self.stochastic_depth(x)
        positions, biases = zip(*((b.position, b.attn.position_bias) for b in self.blocks))
        cells = self._with_terms(self.cells, positions, biases, x, self.kept_cells, symbolic)
        if self.ct_size is None:
            for block, *inputs in zip(self.blocks, cells, keeps):
                tokens = run(block, self.with_cp, tokens, *inputs)
        else:
            carriers = self.carrier_init(x, symbolic)  # (B, windows, ct * ct, C)
            positions, biases = zip(*((b.carrier_position, b.carrier_attn.position_bias)
                                      for b in self.blocks))
            places = Places(grid, self.ct_size, symbolic=symbolic)
            places = self._with_terms(places, positions, biases, x, self.kept_carriers, symbolic)
            for block, own, *inputs in zip(self.blocks, cells, places, keeps):
                tokens, carriers = run(block, self.with_cp, tokens, own, carriers, *inputs)
        return windows.unpartition(tokens, grid, self.window_size, map_size, symbolic)

    def _with_terms(self, places: Places, positions: Sequence[nn.Module],
                    biases: Sequence[nn.Module], x: Tensor, kept: Kept, symbolic: bool
                    ) -> List[Places]:
        """Places for each block, filled as far as they are used, with terms that are shared work.

        Coordinates are kept for the last size, and terms too once weights do not change any more.
        """
        device, dtype = x.device, x.dtype
        positions, biases = ([term for term in terms if isinstance(term, PositionTerm)]
                             for terms in (positions, biases))
        if not positions and not biases:
            return [places] * len(self.blocks)  # constants
        # A block that something wraps, as FSDP does, may have its weights in its own forward only.
        own = any(type(block) not in (WindowBlock, HierarchicalBlock) for block in self.blocks)

        def computed(filled: Places) -> List[Places]:
            if own:
                return [filled] * len(self.blocks)
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
            for block in self.blocks:
                block.fold(self.cells)
            self.deployed = True
