"""Figures of attention, feature maps and receptive fields."""
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import panels
from .attention import BlockAttention, Point, StageAttention, StageGrid, attention_at, main_stage
from .receptive_field import Reach, effective_receptive_field, reach
from .subject import Image, Prepared, Subject

_TITLE = dict(fontsize=11)  # of the overview, which is shown scaled down
_HEADINGS = dict(cell='the point\'s cell looks at its window',
                 window='the window\'s cells look at it, on average',
                 across='its carriers look at all carriers',
                 through='what the cell sees through its carriers')


@dataclass(frozen=True)
class Insight(panels.Place):
    """Attention, maps and receptive field of one image and point.

    Attributes:
        prepared, point: As in :class:`~fastervit_mm.insight.panels.Place`.
        subject: The backbone.
        stages: Attention of each transformer stage.
        maps: The backbone's outputs, each (C, H, W).
        field_stage: Stage of the receptive field, 1 to 4.
        field, field_cut: (H, W) receptive fields with carriers and without; the second is None if
            no layer up to ``field_stage`` has carriers.
        field_reach: Pixels that convolutions and windows alone can reach.
    """
    subject: Subject
    stages: List[StageAttention]
    maps: List[Tensor]
    field_stage: int
    field: Tensor
    field_cut: Optional[Tensor]
    field_reach: Reach

    @property
    def whose(self) -> str:
        """Network and weights, for titles."""
        return f'{self.subject.name}, {self.subject.weights}'


def look(subject: Subject, image: Image, point: Point,
         field_stage: int = 3, draws: int = 8, others: Sequence = ()) -> Insight:
    """Compute attention, maps and receptive field for a point.

    Args:
        subject: From :func:`~fastervit_mm.insight.load_subject`.
        image: A file, or pixels as the config's pipeline reads them.
        point: x and y in pixels of the image.
        field_stage: Stage of the receptive field, 1 to 4. Default 3.
        draws: Random signs for the receptive field (:func:`effective_receptive_field`). Default 8.
        others: More images to average the receptive field over; scaled to the first one's size.

    Raises:
        FileNotFoundError: For an image that does not exist.
        ValueError: For a file that is not an image, a point outside the image, or a stage that the
            backbone does not have.
    """
    backbone = subject.backbone
    prepared = subject.prepare(image)
    height, width = prepared.size
    if not (0 <= point[0] < width and 0 <= point[1] < height):
        raise ValueError(f'point={tuple(point)}: the image is {width} wide and {height} high; give '
                         f'x from 0 to {width - 1} and y from 0 to {height - 1}')
    inputs, place = prepared.inputs, prepared.to_inputs(point)
    size = tuple(inputs.shape[2:])
    stages = attention_at(backbone, inputs, place)
    with torch.no_grad():
        maps = [m[0] for m in backbone(inputs)]
    cell = StageGrid(field_stage, 2 * 2**field_stage,
                     tuple(-(-n // (2 * 2**field_stage)) for n in size), (1, 1), 1, 0
                     ).cell_of(place)
    images = [inputs] + [F.interpolate(subject.prepare(other).inputs, size, mode='bilinear')
                         for other in others]
    field = effective_receptive_field(backbone, images, field_stage, cell, draws)
    carriers = any(s.grid.ct_size for s in stages if s.grid.stage <= field_stage)
    cut = effective_receptive_field(backbone, images, field_stage, cell, draws,
                                    carriers=False) if carriers else None
    return Insight(prepared, place, subject, stages, maps, field_stage, field, cut,
                   reach(backbone, size, field_stage, cell))


def draw_all(insight: Insight, out: Union[str, Path], head: Optional[int] = None,
             block: Optional[int] = None) -> List[Path]:
    """Draw all figures into a folder.

    Args:
        insight: From :func:`look`.
        out: Folder; created if it does not exist.
        head: Attention head to draw, from 0. Default the mean of all.
        block: Block of stage 3 in the overview, from 0. Default the one in which the point's cell
            attends most to its carriers.

    Returns:
        Paths of the figures.

    Raises:
        ValueError: For a head or block that the backbone does not have.
    """
    _check_choice(insight, head, block)
    main = main_stage(insight.stages)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    if main.grid.ct_size:
        paths.append(draw_overview(insight, folder / 'overview.jpg', head, block))
    for stage in insight.stages:
        paths.append(draw_attention(insight, stage,
                                    folder / f'attention_stage{stage.grid.stage}.png', head))
    paths.append(draw_maps(insight, folder / 'feature_maps.png'))
    paths.append(draw_field(insight, folder / 'receptive_field.png'))
    return paths


def _check_choice(insight: Insight, head: Optional[int], block: Optional[int]) -> None:
    for stage in insight.stages:
        heads = stage.blocks[0].cells.shape[0]
        if head is not None and not 0 <= head < heads:
            raise ValueError(f'head={head}: stage {stage.grid.stage} has heads 0 to {heads - 1}')
    main = main_stage(insight.stages)
    if block is not None and not 0 <= block < len(main.blocks):
        raise ValueError(f'block={block}: stage {main.grid.stage} has blocks 0 to '
                         f'{len(main.blocks) - 1}')
    if block is not None and main.grid.ct_size and main.blocks[block].carriers is None:
        having = [b.block for b in main.blocks if b.carriers is not None]
        raise ValueError(f'block={block}: has no carriers; of stage {main.grid.stage} '
                         f'{", ".join(map(str, having))} have')


def draw_attention(insight: Insight, stage: StageAttention, target: Union[str, Path],
                   head: Optional[int] = None) -> Path:
    """Draw a stage's attention, a row for each block.

    Args:
        insight: From :func:`look`.
        stage: One of its stages.
        target: Path of the figure.
        head: Attention head, from 0. Default the mean of all.
    """
    blocks = stage.blocks
    kinds = ['cell', 'window'] + ['across', 'through'] * bool(stage.grid.ct_size)
    # A window is square; the image need not be.
    figure, axes = panels.figure(
        f'{insight.whose}: stage {stage.grid.stage}, {_heads(head)}', len(blocks),
        [1 if kind in ('cell', 'window') else insight.ratio for kind in kinds], 3.0)
    for column, kind in enumerate(kinds):
        shown = [panels.values_of(kind, block, head) for block in blocks]
        some = [values for values in shown if values is not None]
        norm = panels.common_norm(*some)
        for row, (block, values) in enumerate(zip(blocks, shown)):
            axis = axes[row][column]
            if values is None:
                axis.axis('off')
                continue
            draw = panels.draw_window if kind in ('cell', 'window') else panels.draw_carriers
            drawn = draw(axis, insight, stage, values, norm)
            axis.set_title((_HEADINGS[kind] + '\n' if row == 0 else '')
                           + _note(kind, insight, stage, block, values, head), fontsize=9)
            if column == 0:
                axis.set_ylabel(f'block {block.block}', fontsize=11)
        label = 'probability' if kind != 'through' else 'share of the cell\'s attention'
        panels.bar(figure, drawn, list(axes[:, column]), label + panels.uniform(*some))
    return panels.save(figure, target)


def _note(kind: str, insight: Insight, stage: StageAttention, block: BlockAttention,
          values: Tensor, head: Optional[int]) -> str:
    """Describe the attention to carriers and padding, for a title."""
    if kind in ('across', 'through'):
        return f'{panels.percent(values.sum())} in all' if kind == 'through' else ''
    carriers = block.carriers if kind == 'cell' else block.window_carriers
    notes = [] if carriers is None else [
        f'{panels.percent(panels.one(carriers, head).sum())} to carriers']
    padding = ~stage.grid.inside(insight.prepared.valid)[stage.grid.cells_of(stage.window)]
    if padding.any():
        notes.append(f'{panels.percent(values[padding].sum())} to padding')
    return ', '.join(notes)


def draw_overview(insight: Insight, target: Union[str, Path], head: Optional[int] = None,
                  block: Optional[int] = None) -> Path:
    """Draw one block of hierarchical attention, and its effect.

    Args:
        insight: From :func:`look`, of a backbone with carriers.
        target: Path of the figure.
        head: Attention head, from 0. Default the mean of all.
        block: Number of the block, from 0. Default the one in which the cell attends most to its
            carriers.
    """
    stage = main_stage(insight.stages)
    having = [b for b in stage.blocks if b.carriers is not None]
    shares = torch.stack([panels.one(b.carriers, head).sum() for b in having])
    b = having[int(shares.argmax())] if block is None else stage.blocks[block]
    height, width = insight.prepared.valid
    figure, axes = panels.figure(None, 2, [width / height] * 3,
                              10.5 / (3 * width / height))  # 1200 pixels wide in all
    figure.suptitle(
        f'Hierarchical attention at one place: stage {stage.grid.stage}, block {b.block} of 0 to '
        f'{len(stage.blocks) - 1}, {_heads(head)} ({insight.whose})\nThe cell gives its carriers '
        f'{", ".join(map(panels.percent, shares))} of its attention, block by block', fontsize=11)
    _draw_steps(figure, axes.flat, insight, stage, b, head)
    _draw_effect(figure, axes.flat[4:], insight)
    return panels.save(figure, target)


def _draw_steps(figure, axes, insight: Insight, stage: StageAttention, block: BlockAttention,
                head: Optional[int]) -> None:
    """Draw windows, carriers, the cell, and both combined."""
    first, second, third, fourth = axes[:4]
    grid = stage.grid
    panels.draw_scene(first, insight, grey=False)
    panels.draw_grid(first, stage)
    panels.draw_dots(first, stage)
    first.set_title(f'1  Windows of {grid.window_size} x {grid.window_size} cells, each with\n'
                    f'{grid.ct_size} x {grid.ct_size} carriers. Blue: one cell\'s window', **_TITLE)

    across = panels.values_of('across', block, head)
    drawn = panels.draw_carriers(second, insight, stage, across, panels.common_norm(across))
    panels.draw_arrows(second, stage, across)
    second.set_title('2  First, the window\'s carriers\nlook over the whole image', **_TITLE)
    panels.bar(figure, drawn, second, 'probability' + panels.uniform(across))

    cells, carriers = panels.one(block.cells, head), panels.one(block.carriers, head)
    share, norm = panels.percent(carriers.sum()), panels.common_norm(cells, carriers)
    drawn = panels.draw_window(third, insight, stage, cells, norm)
    panels.draw_dots(third, stage, carriers, norm)
    third.set_title(f'3  Then the cell looks at its window\n({panels.percent(cells.sum())}) and '
                    f'at its carriers ({share}, dots)', **_TITLE)
    panels.bar(figure, drawn, third, 'probability' + panels.uniform(cells, carriers))

    through = panels.values_of('through', block, head)
    drawn = panels.draw_carriers(fourth, insight, stage, through, panels.common_norm(through))
    fourth.set_title(f'4  So {share} of its attention\nreaches the whole image', **_TITLE)
    panels.bar(figure, drawn, fourth,
            'share of the cell\'s attention: 2 times 3, head by head' + panels.uniform(through))


def _draw_effect(figure, axes, insight: Insight) -> None:
    """Draw the receptive field without carriers and with them."""
    cut = insight.field if insight.field_cut is None else insight.field_cut
    peak = float(max(insight.field.max(), cut.max()))
    for axis, field, title in zip(axes, (cut, insight.field), (
            '5  Receptive field, carriers cut:\nwindows and convolutions (dashes)',
            f'6  The same with carriers: {panels.percent(_beyond(insight.field, insight))} of\n'
            'its gradient comes from beyond')):
        drawn = panels.draw_heat(axis, insight, field, peak, insight.field_reach)
        axis.set_title(title, **_TITLE)
    panels.bar(figure, drawn, list(axes), f'effective receptive field after stage '
            f'{insight.field_stage}: gradient of the input, relative to the peak (log)')


def draw_maps(insight: Insight, target: Union[str, Path]) -> Path:
    """Draw the backbone's outputs as principal components and magnitudes."""
    maps = insight.maps
    height, width = insight.prepared.valid
    figure, axes = panels.figure(f'{insight.whose}: feature maps, as neck and heads get them', 2,
                              [insight.ratio] * len(maps), 3.0)
    for (top, bottom), index, values in zip(axes.T, insight.subject.backbone.out_indices, maps):
        stride = 4 * 2**index
        # Without this crop, cells of padding would affect the colours.
        h, w = (-(-n // stride) for n in (height, width))
        values = values[:, :h, :w].float().cpu()
        settings = dict(extent=(0, w * stride, h * stride, 0), interpolation='nearest')
        top.imshow(panels.principal_colours(values), **settings)
        top.set_title(f'stage {index + 1}: {len(values)} channels, {h} x {w}, stride {stride}',
                      fontsize=9)
        drawn = bottom.imshow(values.square().mean(0).sqrt(), cmap=panels.HEAT, **settings)
        panels.bar(figure, drawn, bottom, 'each map has its own scale')
        for axis in (top, bottom):
            panels.frame(axis, insight)
    axes[0][0].set_ylabel('first three principal\ncomponents as R, G, B')
    axes[1][0].set_ylabel('root mean square\nover channels')
    return panels.save(figure, target)


def draw_field(insight: Insight, target: Union[str, Path]) -> Path:
    """Draw the effective receptive field, with carriers and without."""
    fields = [('', insight.field)] if insight.field_cut is None else [
        ('with carriers', insight.field),
        ('carriers cut: masked out of the windows\' attention', insight.field_cut)]
    figure, axes = panels.figure(
        f'{insight.whose}: effective receptive field of one cell after stage '
        f'{insight.field_stage}', 1, [insight.ratio] * len(fields), 4.2)
    peak = max(float(field.max()) for _, field in fields)
    for axis, (name, field) in zip(axes[0], fields):
        drawn = panels.draw_heat(axis, insight, field, peak, insight.field_reach)
        axis.set_title(f'{name}\n{panels.percent(_beyond(field, insight))} of the gradient from '
                       'beyond the dashes', fontsize=10)
    panels.bar(figure, drawn, list(axes[0]), 'gradient of the input, relative to the peak (log).\n'
            'Dashes: what convolutions and windows reach')
    return panels.save(figure, target)


def draw_place(prepared: Prepared, point: Point, stage: StageAttention,
               block: int = 0) -> np.ndarray:
    """Draw a place's attention in one block, (H, W, 3) RGB.

    Args:
        prepared: The image.
        point: x and y in the network's input.
        stage: From :func:`attention_at`.
        block: Number of the block, from 0. Default 0.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    place, found = panels.Place(prepared, point), stage.blocks[block]
    kinds = ['cell'] + ['across', 'through'] * (found.carriers is not None)
    figure, axes = panels.figure(None, 1, [1 if kind == 'cell' else place.ratio for kind in kinds],
                              3.4)
    for axis, kind in zip(axes[0], kinds):
        values = panels.values_of(kind, found, None)
        draw = panels.draw_window if kind == 'cell' else panels.draw_carriers
        drawn = draw(axis, place, stage, values, panels.common_norm(values))
        axis.set_title(dict(
            cell=f'The cell looks at\nits window: {panels.percent(values.sum())}',
            across='Its window\'s carriers\nlook at all carriers',
            through=f'What the cell sees\nthrough its carriers: {panels.percent(values.sum())}'
        )[kind], fontsize=10)
        label = 'share of the cell\'s attention' if kind == 'through' else 'probability'
        panels.bar(figure, drawn, axis, label + panels.uniform(values))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _heads(head: Optional[int]) -> str:
    return 'mean of the heads' if head is None else f'head {head}'


def _beyond(field: Tensor, insight: Insight) -> float:
    """Share of a receptive field beyond convolutions and windows."""
    inner = insight.field_reach
    within = field[inner.top:inner.bottom, inner.left:inner.right].double().sum()
    return max(0.0, float(1 - within / field.double().sum()))
