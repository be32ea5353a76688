"""Attention of a place: in its window, and through carriers.

The backbone's attention is fused and stores no probabilities. Here they are computed separately,
from the inputs of its attention layers.
"""
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..backbone import StagedBackbone
from ..backbone.attention import Attention
from ..backbone.positions import Bias
from ..backbone.stages import ConvStage

Grid = Tuple[int, int]  # height and width, or row and column
Point = Tuple[float, float]


class StageGrid(NamedTuple):
    """Cells and windows of a transformer stage on one image.

    Attributes:
        stage: 3 or 4, as the paper counts; in a SwinHAT 1 to 4.
        stride: Side of a cell in pixels of the network's input.
        cells: Height and width of the stage's map.
        windows: Rows and columns of windows; they may reach beyond the map.
        window_size: Side of a window, in cells.
        ct_size: Carriers along one side of a window; 0 without carriers.
    """
    stage: int
    stride: int
    cells: Grid
    windows: Grid
    window_size: int
    ct_size: int

    def cell_of(self, point: Point) -> Grid:
        """Row and column of the cell that covers a point.

        Cell i covers pixels ``stride * i`` to ``stride * (i + 1) - 1``, the convention by which
        heads upsample maps and place anchors.

        Args:
            point: x and y, in pixels of the network's input.

        Raises:
            ValueError: For a point outside the input.
        """
        x, y = point
        height, width = (n * self.stride for n in self.cells)
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f'point={point}: outside the network\'s input; x must be from 0 to '
                             f'{width - 1} and y from 0 to {height - 1}')
        return int(y // self.stride), int(x // self.stride)

    def window_of(self, cell: Grid) -> Grid:
        """Row and column of a cell's window."""
        return cell[0] // self.window_size, cell[1] // self.window_size

    def cells_of(self, window: Grid) -> Tuple[slice, slice]:
        """Rows and columns of a window's cells, padding included."""
        return tuple(slice(n * self.window_size, (n + 1) * self.window_size) for n in window)

    def carriers_of(self, window: Grid) -> Tuple[slice, slice]:
        """Rows and columns of a window's carriers."""
        return tuple(slice(n * self.ct_size, (n + 1) * self.ct_size) for n in window)

    def inside(self, valid: Sequence[int]) -> Tensor:
        """Mask of the cells that show more than padding.

        Args:
            valid: Height and width of the image in the network's input, in pixels.

        Returns:
            (rows * k, columns * k) bool, for windows of k x k cells.
        """
        k = self.window_size
        rows, columns = (torch.arange(n * k) * self.stride < size
                         for n, size in zip(self.windows, valid))
        return rows[:, None] & columns


@dataclass(frozen=True)
class BlockAttention:
    """Attention probabilities of one block at one place, by head.

    Attributes:
        block: Number of the block in its stage, from 0.
        cells: (heads, k, k), from the cell at the point to the cells of its window.
        carriers: (heads, ct, ct), from that cell to its window's carriers. With ``cells`` they sum
            to 1. None in blocks without carriers.
        window_cells, window_carriers: As the two above, the mean over the window's cells.
        across: (heads, ct * ct, rows * ct, columns * ct), from each of the window's carriers, row
            by row, to the carriers of the whole image. Each sums to 1. None without carriers.
    """
    block: int
    cells: Tensor
    window_cells: Tensor
    carriers: Optional[Tensor] = None
    window_carriers: Optional[Tensor] = None
    across: Optional[Tensor] = None

    @property
    def through_carriers(self) -> Optional[Tensor]:
        """Attention from the cell through its carriers to all carriers.

        (heads, rows * ct, columns * ct). In a block the carriers first attend to each other, then
        the cells attend to the carriers of their window. This is the product of the two: cell to
        own carriers, times own carriers to all carriers. Pairing heads by number is a choice;
        values and residual paths are left out. With ``cells`` it sums to 1.
        """
        if self.across is None:
            return None
        return torch.einsum('hc,hcyx->hyx', self.carriers.flatten(1), self.across)


@dataclass(frozen=True)
class StageAttention:
    """Attention of a stage's blocks at one place.

    Attributes:
        grid: The stage's cells and windows.
        cell: Row and column of the cell at the point.
        window: Row and column of its window.
        blocks: One for each block.
    """
    grid: StageGrid
    cell: Grid
    window: Grid
    blocks: List[BlockAttention]


def probabilities(attention: Attention, x: Tensor, bias: Bias,
                  queries: Optional[Sequence[int]] = None) -> Tensor:
    """Attention probabilities of a layer.

    Args:
        attention: The layer.
        x: Input of the layer, (..., N, C).
        bias: Bias, as the layer takes it.
        queries: Indices of the query tokens; default all. Few queries of a large grid need little
            memory.

    Returns:
        (..., heads, queries, N).
    """
    queries = torch.as_tensor(range(x.shape[-2]) if queries is None else queries, device=x.device)
    qkv = attention.qkv(x).view(*x.shape[:-1], 3, attention.num_heads, -1)
    q, k = (qkv[..., i, :, :].transpose(-3, -2) for i in (0, 1))  # (..., heads, N, width)
    rows = bias[:, queries] if isinstance(bias, Tensor) else bias.rows(queries)
    logits = q[..., queries, :] @ k.transpose(-2, -1) * attention.width**-0.5
    return (logits + rows.to(q.dtype)).softmax(-1)


@contextmanager
def watched(backbone: StagedBackbone) -> Iterator[Dict[Attention, Tuple[Tensor, Bias]]]:
    """Context that records attention layers' last inputs: ``{layer: (x, bias)}``.

    Args:
        backbone: A FasterViT; unchanged afterwards.
    """
    inputs = {}

    def keep(layer, args):
        inputs[layer] = args

    hooks = [layer.register_forward_pre_hook(keep)
             for layer in backbone.modules() if isinstance(layer, Attention)]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def stage_grids(backbone: StagedBackbone, size: Sequence[int]) -> List[StageGrid]:
    """Cells and windows of transformer stages for an image size.

    Args:
        backbone: A FasterViT.
        size: Height and width of its input, in pixels.
    """
    grids = []
    for number, stage in enumerate(backbone.stages):
        if not isinstance(stage, ConvStage):
            stride = 4 * 2**number
            cells = tuple(-(-n // stride) for n in size)
            grids.append(StageGrid(
                number + 1, stride, cells, tuple(-(-n // stage.window_size) for n in cells),
                stage.window_size, stage.ct_size))
    return grids


@torch.no_grad()
def attention_at(backbone: StagedBackbone, inputs: Tensor, point: Point) -> List[StageAttention]:
    """Attention at a point, in all blocks of transformer stages.

    Args:
        backbone: A FasterViT in evaluation mode.
        inputs: (1, C, H, W), as the network takes it: normalised and padded.
        point: x and y, in pixels of ``inputs``.

    Returns:
        One entry for each transformer stage that the backbone has.

    Raises:
        ValueError: For several images, a point outside, a backbone that is in training mode or
            has no transformer stage.
    """
    check_inputs(backbone, inputs)
    grids = stage_grids(backbone, inputs.shape[2:])
    if not grids:
        raise ValueError(f'out_indices={backbone.out_indices}: this backbone was built without '
                         'stages 3 and 4, where attention is; give an out_indices with 2 or 3')
    with watched(backbone) as layers:
        backbone(inputs)
    return [_stage_at(backbone, layers, grid, point) for grid in grids]


def main_stage(stages: Sequence[StageAttention]) -> StageAttention:
    """Stage 3, the longest, or else the last stage."""
    return next((stage for stage in stages if stage.grid.stage == 3), stages[-1])


def _stage_at(backbone: StagedBackbone, layers: Dict[Attention, tuple], grid: StageGrid,
              point: Point) -> StageAttention:
    cell = grid.cell_of(point)
    window = grid.window_of(cell)
    number = window[0] * grid.windows[1] + window[1]
    k, ct = grid.window_size, grid.ct_size
    token = cell[0] % k * k + cell[1] % k
    own = range(number * ct * ct, (number + 1) * ct * ct)  # carriers are in window order
    blocks = []
    for index, block in enumerate(backbone.stages[grid.stage - 1].blocks):
        x, bias = layers[block.attn]
        # Only cells are queries: the carriers' attention to their window is not needed.
        first = x.shape[1] - k * k
        look = probabilities(block.attn, x[number], bias, range(first, x.shape[1]))
        to_cells = look[..., first:].unflatten(-1, (k, k))
        found = dict(cells=to_cells[:, token], window_cells=to_cells.mean(1))
        if first:
            to_carriers = look[..., :first].unflatten(-1, (ct, ct))
            x, bias = layers[block.carriers.attn]
            across = probabilities(block.carriers.attn, x[0], bias, own)
            across = across.unflatten(-1, (*grid.windows, ct, ct)).transpose(-3, -2)
            found.update(carriers=to_carriers[:, token], window_carriers=to_carriers.mean(1),
                         across=across.flatten(-2).flatten(-3, -2))
        blocks.append(BlockAttention(index, **found))
    return StageAttention(grid, cell, window, blocks)


def check_inputs(backbone: StagedBackbone, inputs: Tensor) -> None:
    """Require one image and evaluation mode; else raise ValueError."""
    if inputs.ndim != 4 or inputs.shape[0] != 1:
        raise ValueError(f'inputs of shape {tuple(inputs.shape)}: give one image, (1, C, H, W)')
    if backbone.training:
        raise ValueError('backbone: in training mode, where BatchNorm mixes images and branches '
                         'are dropped; call eval() first')
