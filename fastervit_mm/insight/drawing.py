"""Figures of attention, feature maps and receptive fields."""
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import (
    BlockAttention,
    Point,
    StageAttention,
    StageGrid,
    attention_at,
    main_stage,
)
from .receptive_field import Reach, effective_receptive_field, reach
from .subject import Image, Prepared, Subject

_HEAT = 'inferno'
_MARK = '#0072ff'  # of the chosen point, its cell and its window; no heat has this colour
_LINES = dict(color='white', linewidth=0.7, alpha=0.8)
_TITLE = dict(fontsize=11)  # of the overview, which is shown scaled down
_PADDING = 190
_FLOOR = 1e-5  # of a receptive field, relative to its peak
_EVEN = 0.1  # values that differ by less of their peak look the same in these colours


@dataclass(frozen=True)
class Place:
    """An image and a point on it.

    Attributes:
        prepared: The image.
        point: x and y in the network's input.
    """
    prepared: Prepared
    point: Point


@dataclass(frozen=True)
class Insight(Place):
    """Everything that is drawn for one image and point.

    Attributes:
        prepared, point: As in :class:`Place`.
        subject: The backbone that it is computed with.
        stages: Attention of the stages that have it, 3 and 4, as far as the backbone has them.
        maps: The backbone's outputs, each (C, H, W).
        field_stage: Stage of the receptive field, 1 to 4.
        field, field_cut: (H, W), with carriers and without; the second is None if no layer up to
            ``field_stage`` has carriers.
        field_reach: The pixels that convolutions and windows alone can reach.
    """
    subject: Subject
    stages: List[StageAttention]
    maps: List[Tensor]
    field_stage: int
    field: Tensor
    field_cut: Optional[Tensor]
    field_reach: Reach


def look(subject: Subject, image: Image, point: Point,
         field_stage: int = 3, draws: int = 8, others: Sequence = ()) -> Insight:
    """Compute everything that is drawn for an image and a point.

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
    """Draw everything into a folder.

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


def draw_attention(insight: Insight, stage: StageAttention, target: Union[str, Path],
                   head: Optional[int] = None) -> Path:
    """One row for each block of a stage: the cell, its window, its carriers, and both combined.

    Args:
        insight: From :func:`look`.
        stage: One of its stages.
        target: Path of the figure.
        head: Attention head, from 0. Default the mean of all.
    """
    grid, blocks = stage.grid, stage.blocks
    kinds = ['cell', 'window'] + ['across', 'through'] * bool(grid.ct_size)
    heading = dict(cell='the point\'s cell looks at its window',
                   window='the window\'s cells look at it, on average',
                   across='its carriers look at all carriers',
                   through='what the cell sees through its carriers')
    # A window is square; the image need not be.
    height, width = insight.prepared.valid
    panel = 3.0
    ratio = np.clip(width / height, 0.5, 2)
    ratios = [1 if kind in ('cell', 'window') else ratio for kind in kinds]
    figure, axes = _figure(
        insight, f'stage {grid.stage}, {_heads(head)}',
        len(blocks), len(kinds), ratios, panel)
    shown = {kind: [_panel(kind, b, head) for b in blocks] for kind in kinds}
    for column, kind in enumerate(kinds):
        some = [values for values in shown[kind] if values is not None]
        norm = _norm(*some)
        for row, block in enumerate(blocks):
            axis = axes[row][column]
            values = shown[kind][row]
            if values is None:
                axis.axis('off')
                continue
            if kind in ('cell', 'window'):
                drawn = _draw_window(axis, insight, stage, values, norm)
                mine = block.carriers if kind == 'cell' else block.window_carriers
                notes = [] if mine is None else [f'{_percent(_one(mine, head).sum())} to carriers']
                padding = ~grid.inside(insight.prepared.valid)[grid.cells_of(stage.window)]
                if padding.any():
                    notes.append(f'{_percent(values[padding].sum())} to padding')
                title = ', '.join(notes)
            else:
                drawn = _draw_carriers(axis, insight, stage, values, norm)
                title = f'{_percent(values.sum())} in all' if kind == 'through' else ''
            axis.set_title((heading[kind] + '\n' if row == 0 else '') + title, fontsize=9)
            if column == 0:
                axis.set_ylabel(f'block {block.block}', fontsize=11)
        label = 'probability' if kind != 'through' else 'share of the cell\'s attention'
        _bar(figure, drawn, [axes[r][column] for r in range(len(blocks))],
             label + _evenly(*some))
    return _save(figure, target)


def draw_overview(insight: Insight, target: Union[str, Path], head: Optional[int] = None,
                  block: Optional[int] = None) -> Path:
    """Hierarchical attention at a glance: one block (of stage 3), one head, and their effect.

    Args:
        insight: From :func:`look`, of a backbone with carriers.
        target: Path of the figure.
        head: Attention head, from 0. Default the mean of all.
        block: Number of the block, from 0. Default the one in which the cell attends most to its
            carriers.
    """
    stage = main_stage(insight.stages)
    grid, prepared = stage.grid, insight.prepared
    having = [b for b in stage.blocks if b.carriers is not None]
    shares = torch.stack([_one(b.carriers, head).sum() for b in having])
    b = having[int(shares.argmax())] if block is None else stage.blocks[block]
    height, width = prepared.valid
    panel = 10.5 / (3 * width / height)  # 1200 pixels wide in all
    figure, axes = _figure(insight, None, 2, 3, [width / height] * 3, panel)
    figure.suptitle(
        f'Hierarchical attention at one place: stage {grid.stage}, block {b.block} of 0 to '
        f'{len(stage.blocks) - 1}, '
        f'{_heads(head)} ({_whose(insight)})\nThe cell gives its carriers '
        f'{", ".join(map(_percent, shares))} of its attention, block by block', fontsize=11)
    (first, second, third), (fourth, fifth, sixth) = axes
    share = _percent(_one(b.carriers, head).sum())

    _draw_scene(first, insight, grey=False)
    _draw_grid(first, stage)
    _draw_dots(first, stage)
    first.set_title(f'1  Windows of {grid.window_size} x {grid.window_size} cells, each with\n'
                    f'{grid.ct_size} x {grid.ct_size} carriers. Blue: one cell\'s window', **_TITLE)

    across = _one(b.across.mean(1), head)
    drawn = _draw_carriers(second, insight, stage, across, _norm(across))
    _draw_arrows(second, stage, across)
    second.set_title('2  First, the window\'s carriers\nlook over the whole image', **_TITLE)
    _bar(figure, drawn, second, 'probability' + _evenly(across))

    cells, carriers = _one(b.cells, head), _one(b.carriers, head)
    norm = _norm(cells, carriers)
    drawn = _draw_window(third, insight, stage, cells, norm)
    _draw_dots(third, stage, carriers, norm)
    third.set_title(f'3  Then the cell looks at its window\n({_percent(cells.sum())}) and at its '
                    f'carriers ({share}, dots)', **_TITLE)
    _bar(figure, drawn, third, 'probability' + _evenly(cells, carriers))

    through = _one(b.through_carriers, head)
    drawn = _draw_carriers(fourth, insight, stage, through, _norm(through))
    fourth.set_title(f'4  So {share} of its attention\nreaches the whole image', **_TITLE)
    _bar(figure, drawn, fourth,
         'share of the cell\'s attention: 2 times 3, head by head' + _evenly(through))

    cut = insight.field if insight.field_cut is None else insight.field_cut
    peak = float(max(insight.field.max(), cut.max()))
    drawn = _draw_heat(fifth, insight, cut, peak, insight.field_reach)
    _draw_heat(sixth, insight, insight.field, peak, insight.field_reach)
    fifth.set_title('5  Receptive field, carriers cut:\nwindows and convolutions (dashes)',
                    **_TITLE)
    sixth.set_title(f'6  The same with carriers: {_percent(_beyond(insight.field, insight))} of\n'
                    'its gradient comes from beyond', **_TITLE)
    _bar(figure, drawn, [fifth, sixth], f'effective receptive field after stage '
         f'{insight.field_stage}: gradient of the input, relative to the peak (log)')
    return _save(figure, target)


def draw_maps(insight: Insight, target: Union[str, Path]) -> Path:
    """The backbone's outputs: three principal components as colours, and the root mean square."""
    maps = insight.maps
    height, width = insight.prepared.valid
    figure, axes = _figure(insight, 'feature maps, as neck and heads get them', 2, len(maps),
                           [np.clip(width / height, 0.5, 2)] * len(maps), 3.0)
    for column, (index, values) in enumerate(zip(insight.subject.backbone.out_indices, maps)):
        stride = 4 * 2**index
        # Without this crop, cells of padding would affect the colours.
        h, w = (-(-n // stride) for n in (height, width))
        values = values[:, :h, :w].float().cpu()
        extent = (0, w * stride, h * stride, 0)
        top, bottom = axes[0][column], axes[1][column]
        top.imshow(_components(values), extent=extent, interpolation='nearest')
        top.set_title(f'stage {index + 1}: {len(values)} channels, {h} x {w}, stride {stride}',
                      fontsize=9)
        drawn = bottom.imshow(values.square().mean(0).sqrt(), cmap=_HEAT, extent=extent,
                              interpolation='nearest')
        _bar(figure, drawn, bottom, 'each map has its own scale')
        for axis in (top, bottom):
            _frame(axis, insight)
    axes[0][0].set_ylabel('first three principal\ncomponents as R, G, B')
    axes[1][0].set_ylabel('root mean square\nover channels')
    return _save(figure, target)


def draw_field(insight: Insight, target: Union[str, Path]) -> Path:
    """The effective receptive field, with carriers and without, on one scale."""
    fields = [('', insight.field)] if insight.field_cut is None else [
        ('with carriers', insight.field),
        ('carriers cut: masked out of the windows\' attention', insight.field_cut)]
    height, width = insight.prepared.valid
    figure, axes = _figure(
        insight, f'effective receptive field of one cell after stage {insight.field_stage}',
        1, len(fields), [np.clip(width / height, 0.5, 2)] * len(fields), 4.2)
    peak = max(float(field.max()) for _, field in fields)
    for axis, (name, field) in zip(axes[0], fields):
        drawn = _draw_heat(axis, insight, field, peak, insight.field_reach)
        axis.set_title(f'{name}\n{_percent(_beyond(field, insight))} of the gradient from beyond '
                       'the dashes', fontsize=10)
    _bar(figure, drawn, list(axes[0]), 'gradient of the input, relative to the peak (log).\n'
         'Dashes: what convolutions and windows reach')
    return _save(figure, target)


def draw_place(prepared: Prepared, point: Point, stage: StageAttention,
               block: int = 0) -> np.ndarray:
    """A figure of what a place attends to in one block, mean of the heads: (H, W, 3) uint8 RGB.

    Args:
        prepared: The image.
        point: x and y in the network's input.
        stage: From :func:`attention_at`.
        block: Number of the block, from 0. Default 0.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    place = Place(prepared, point)
    found = stage.blocks[block]
    height, width = prepared.valid
    carries = found.carriers is not None
    ratios = [1] + [float(np.clip(width / height, 0.5, 2))] * (2 if carries else 0)
    figure = Figure(figsize=(3.4 * sum(ratios), 4.3), dpi=100, layout='constrained')
    axes = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    values = _one(found.cells, None)
    drawn = _draw_window(axes[0], place, stage, values, _norm(values))
    axes[0].set_title(f'The cell looks at\nits window: {_percent(values.sum())}', fontsize=10)
    _bar(figure, drawn, axes[0], 'probability' + _evenly(values))
    if carries:
        share = _percent(_one(found.carriers, None).sum())
        for axis, values, title, label in (
                (axes[1], _one(found.across.mean(1), None),
                 'Its window\'s carriers\nlook at all carriers', 'probability'),
                (axes[2], _one(found.through_carriers, None),
                 f'What the cell sees\nthrough its carriers: {share}',
                 'share of the cell\'s attention')):
            drawn = _draw_carriers(axis, place, stage, values, _norm(values))
            axis.set_title(title, fontsize=10)
            _bar(figure, drawn, axis, label + _evenly(values))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _panel(kind: str, block: BlockAttention, head: Optional[int]) -> Optional[Tensor]:
    if kind == 'cell':
        return _one(block.cells, head)
    if kind == 'window':
        return _one(block.window_cells, head)
    if block.carriers is None:
        return None
    if kind == 'across':
        return _one(block.across.mean(1), head)
    return _one(block.through_carriers, head)


def _one(values: Tensor, head: Optional[int]) -> Tensor:
    return (values.mean(0) if head is None else values[head]).float().cpu()


def _heads(head: Optional[int]) -> str:
    return 'mean of the heads' if head is None else f'head {head}'


def _beyond(field: Tensor, insight: Insight) -> float:
    inner = insight.field_reach
    within = field[inner.top:inner.bottom, inner.left:inner.right].double().sum()
    return max(0.0, float(1 - within / field.double().sum()))


def _draw_scene(axis, place: Place, grey: bool = True) -> None:
    picture = place.prepared.picture
    if grey:
        lightness = 90 + 0.6 * (picture.astype(float) @ (0.299, 0.587, 0.114))
        picture = np.repeat(lightness[..., None], 3, -1).astype(np.uint8)
    height, width = picture.shape[:2]
    axis.imshow(picture, extent=(0, width, height, 0))
    _frame(axis, place)


def _frame(axis, place: Place) -> None:
    height, width = place.prepared.valid
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], facecolor=_grey())
    x, y = place.point
    for thickness, colour in ((4, 'white'), (2, _MARK)):
        axis.plot(x + 0.5, y + 0.5, marker='+', markersize=10,
                  markeredgewidth=thickness, color=colour, zorder=4)


def _grey() -> tuple:
    return (_PADDING / 255, ) * 3


def _draw_grid(axis, stage: StageAttention) -> None:
    from matplotlib.patches import Rectangle
    grid = stage.grid
    side = grid.window_size * grid.stride
    for n in range(1, grid.windows[0]):
        axis.axhline(n * side, **_LINES)
    for n in range(1, grid.windows[1]):
        axis.axvline(n * side, **_LINES)
    row, column = stage.window
    axis.add_patch(Rectangle((column * side, row * side), side, side, fill=False,
                             edgecolor=_MARK, linewidth=1.8))
    row, column = stage.cell
    axis.add_patch(Rectangle((column * grid.stride, row * grid.stride), grid.stride, grid.stride,
                             fill=False, edgecolor=_MARK, linewidth=1.2))


def _draw_dots(axis, stage: StageAttention, own: Optional[Tensor] = None, norm=None) -> None:
    """Carriers as dots; with ``own``, (ct, ct), the window's alone, coloured by value."""
    y, x = (_carrier_centres(stage, axis) for axis in (0, 1))
    y, x = np.meshgrid(y, x, indexing='ij')
    place = stage.grid.carriers_of(stage.window)
    settings = dict(edgecolors='black', zorder=3)
    if own is not None:
        axis.scatter(x[place], y[place], s=260, c=own.numpy(), cmap='YlOrRd', norm=norm,
                     linewidths=1.2, **settings)
        return
    mine = np.zeros(x.shape, bool)
    mine[place] = True
    axis.scatter(x, y, s=16, linewidths=0.6, c=np.where(mine.ravel(), _MARK, 'white'), **settings)


def _draw_arrows(axis, stage: StageAttention, values: Tensor) -> None:
    """From the window to the carriers that most of its attention goes to."""
    y, x = (_carrier_centres(stage, axis) for axis in (0, 1))
    rows, columns = stage.grid.carriers_of(stage.window)
    start = x[columns].mean(), y[rows].mean()
    for value, index in zip(*values.flatten().topk(min(6, values.numel()))):
        row, column = divmod(int(index), values.shape[1])
        if rows.start <= row < rows.stop and columns.start <= column < columns.stop:
            continue
        if value < 0.25 * values.max():
            break
        axis.annotate('', (x[column], y[row]), start, zorder=3, arrowprops=dict(
            arrowstyle='-|>', color=_MARK, linewidth=1.6, shrinkA=8, shrinkB=2))


def _carrier_centres(stage: StageAttention, axis: int) -> np.ndarray:
    """Along an axis, in pixels of the network's input."""
    grid = stage.grid
    step = grid.window_size * grid.stride / grid.ct_size
    return (np.arange(grid.windows[axis] * grid.ct_size) + 0.5) * step


def _draw_carriers(axis, place: Place, stage: StageAttention, values: Tensor, norm):
    """Values of the carriers' grid over the image."""
    grid = stage.grid
    _draw_scene(axis, place)
    height, width = (n * grid.window_size * grid.stride for n in grid.windows)
    drawn = axis.imshow(values.float().cpu(), cmap=_clear_to_red(), norm=norm,
                        extent=(0, width, height, 0), interpolation='nearest')
    _draw_grid(axis, stage)
    _frame(axis, place)
    return drawn


def _draw_window(axis, place: Place, stage: StageAttention, values: Tensor, norm):
    """Values of one window's cells over its part of the image; padding is grey."""
    grid = stage.grid
    rows, columns = grid.cells_of(stage.window)
    extent = tuple(n * grid.stride for n in (columns.start, columns.stop, rows.stop, rows.start))
    _draw_scene(axis, place)
    inside = grid.inside(place.prepared.valid)[rows, columns].numpy()
    drawn = axis.imshow(np.ma.masked_array(values.float().cpu(), ~inside),
                        cmap=_clear_to_red(), norm=norm, extent=extent, interpolation='nearest')
    _draw_grid(axis, stage)
    axis.set(xlim=extent[:2], ylim=extent[2:])
    return drawn


def _draw_heat(axis, place: Place, field: Tensor, peak: float, inner: Reach):
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    height, width = field.shape
    values = (field / peak).clamp(min=0).float().cpu().numpy()
    drawn = axis.imshow(np.where(values < _FLOOR, _FLOOR, values), cmap=_HEAT,
                        norm=LogNorm(_FLOOR, 1), extent=(0, width, height, 0),
                        interpolation='nearest')
    _frame(axis, place)
    axis.add_patch(Rectangle((inner.left, inner.top), inner.right - inner.left,
                             inner.bottom - inner.top, fill=False, edgecolor='white',
                             linewidth=1.5, linestyle='--'))
    return drawn


def _components(values: Tensor) -> np.ndarray:
    """(C, H, W) -> (H, W, 3): principal components, each from its 1st to its 99th percentile."""
    flat = values.flatten(1).T.double()
    flat = flat - flat.mean(0)
    count = min(3, *flat.shape)
    directions = torch.linalg.svd(flat, full_matrices=False).Vh[:count]
    colours = flat @ directions.T
    low, high = (torch.quantile(colours, q, dim=0) for q in (0.01, 0.99))
    colours = F.pad(((colours - low) / (high - low).clamp(min=1e-12)).clamp(0, 1), (0, 3 - count))
    return colours.unflatten(0, values.shape[1:]).numpy()


def _clear_to_red():
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    colours = colormaps['YlOrRd'](np.linspace(0.15, 1, 256))
    colours[:, 3] = np.linspace(0, 0.95, 256) ** 0.6  # low values let the image show through
    return ListedColormap(colours)


def _norm(*panels: Tensor):
    """Of panels on one scale. Uniform ones get its middle colour, not that of a peak."""
    from matplotlib.colors import PowerNorm
    peak = max(float(values.max()) for values in panels) * (4 if _evenly(*panels) else 1)
    return PowerNorm(0.5, 0, max(peak, 1e-12))  # a few large values would hide the rest


def _evenly(*panels: Tensor) -> str:
    """A remark for the label of panels if each of them is nearly uniform, else nothing."""
    even = all(values.max() - values.min() <= _EVEN * values.max() for values in panels)
    several = any(values.numel() > 1 for values in panels)
    return ' (uniform)' if even and several else ''


def _percent(share) -> str:
    share = 100 * float(share)
    if share == 0:
        return '0 %'
    return f'{share:.0f} %' if share >= 9.95 else f'{share:.1f} %' if share >= 0.05 else (
        'less than 0.1 %')


def _whose(insight: Insight) -> str:
    subject = insight.subject
    return f'{subject.name}, {subject.weights}'


def _figure(insight: Insight, title: Optional[str], rows: int, columns: int,
            ratios: Sequence[float], panel: float):
    from matplotlib.figure import Figure
    figure = Figure(figsize=(panel * sum(ratios) + 0.5 * columns, (panel + 0.9) * rows + 0.6),
                    layout='constrained')
    if title is not None:
        figure.suptitle(f'{_whose(insight)}: {title}', fontsize=11)
    return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=ratios)


def _bar(figure, drawn, axes, label: str) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, MaxNLocator
    bar = figure.colorbar(drawn, ax=axes, location='bottom', shrink=0.8, pad=0.02, aspect=35)
    bar.set_label(label, fontsize=8)
    if not isinstance(drawn.norm, LogNorm):
        bar.set_ticks(MaxNLocator(5).tick_values(drawn.norm.vmin, drawn.norm.vmax)[:-1])
        # Matplotlib would take a power of ten out of small numbers and print it over the label.
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.3g}'))
    bar.ax.tick_params(labelsize=7)


def _save(figure, target: Union[str, Path]) -> Path:
    settings = dict(pil_kwargs=dict(quality=85)) if Path(target).suffix == '.jpg' else {}
    figure.savefig(target, dpi=100, **settings)
    return Path(target)
