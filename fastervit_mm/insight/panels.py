"""Panels of figures: values over an image, colour bars."""
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import BlockAttention, Point, StageAttention
from .receptive_field import Reach
from .subject import Prepared

HEAT = 'inferno'
_MARK = '#0072ff'  # of the chosen point, its cell and its window; no heat has this colour
_LINES = dict(color='white', linewidth=0.7, alpha=0.8)
_PADDING = (190 / 255, ) * 3
_FLOOR = 1e-5  # of a receptive field, relative to its peak
_EVEN = 0.1  # values closer than this share of their peak look the same in these colours


@dataclass(frozen=True)
class Place:
    """An image and a point on it.

    Attributes:
        prepared: The image.
        point: x and y in the network's input.
    """
    prepared: Prepared
    point: Point

    @property
    def ratio(self) -> float:
        """Width over height of the image, between 0.5 and 2."""
        height, width = self.prepared.valid
        return min(max(width / height, 0.5), 2)


def one(values: Tensor, head: Optional[int]) -> Tensor:
    """Take one head, or the mean, of values, (heads, ...)."""
    return (values.mean(0) if head is None else values[head]).float().cpu()


def values_of(kind: str, block: BlockAttention, head: Optional[int]) -> Optional[Tensor]:
    """Values of a panel; None if it needs absent carriers.

    Args:
        kind: ``'cell'``, ``'window'``, ``'across'`` or ``'through'``.
        block: The block.
        head: Attention head, from 0, or None for the mean of all.
    """
    if kind in ('cell', 'window'):
        return one(block.cells if kind == 'cell' else block.window_cells, head)
    if block.carriers is None:
        return None
    return one(block.across.mean(1) if kind == 'across' else block.through_carriers, head)


def draw_scene(axis, place: Place, grey: bool = True) -> None:
    """Draw the image and mark the point."""
    picture = place.prepared.picture
    if grey:
        lightness = 90 + 0.6 * (picture.astype(float) @ (0.299, 0.587, 0.114))
        picture = np.repeat(lightness[..., None], 3, -1).astype(np.uint8)
    height, width = picture.shape[:2]
    axis.imshow(picture, extent=(0, width, height, 0))
    frame(axis, place)


def frame(axis, place: Place) -> None:
    """Limit an axis to the image, and mark the point."""
    height, width = place.prepared.valid
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], facecolor=_PADDING)
    x, y = place.point
    for thickness, colour in ((4, 'white'), (2, _MARK)):
        axis.plot(x + 0.5, y + 0.5, marker='+', markersize=10,
                  markeredgewidth=thickness, color=colour, zorder=4)


def draw_grid(axis, stage: StageAttention) -> None:
    """Draw windows, and outline the point's window and cell."""
    grid = stage.grid
    side = grid.window_size * grid.stride
    for n in range(1, grid.windows[0]):
        axis.axhline(n * side, **_LINES)
    for n in range(1, grid.windows[1]):
        axis.axvline(n * side, **_LINES)
    for (row, column), length, thickness in ((stage.window, side, 1.8),
                                             (stage.cell, grid.stride, 1.2)):
        _outline(axis, column * length, row * length, length, length, edgecolor=_MARK,
                 linewidth=thickness)


def _outline(axis, left: float, top: float, width: float, height: float, **settings) -> None:
    from matplotlib.patches import Rectangle
    axis.add_patch(Rectangle((left, top), width, height, fill=False, **settings))


def draw_dots(axis, stage: StageAttention, own: Optional[Tensor] = None, norm=None) -> None:
    """Draw carriers as dots.

    Args:
        axis: Of the figure.
        stage: Whose carriers.
        own: (ct, ct), values of the window's carriers, to draw only these, coloured.
        norm: Scale of the values.
    """
    y, x = np.meshgrid(*_carrier_centres(stage), indexing='ij')
    place = stage.grid.carriers_of(stage.window)
    settings = dict(edgecolors='black', zorder=3)
    if own is not None:
        axis.scatter(x[place], y[place], s=260, c=own.numpy(), cmap='YlOrRd', norm=norm,
                     linewidths=1.2, **settings)
        return
    mine = np.zeros(x.shape, bool)
    mine[place] = True
    axis.scatter(x, y, s=16, linewidths=0.6, c=np.where(mine.ravel(), _MARK, 'white'), **settings)


def draw_arrows(axis, stage: StageAttention, values: Tensor) -> None:
    """Draw arrows from the window to its favoured carriers."""
    y, x = _carrier_centres(stage)
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


def _carrier_centres(stage: StageAttention) -> Sequence[np.ndarray]:
    """Rows and columns of the carriers, in input pixels."""
    grid = stage.grid
    step = grid.window_size * grid.stride / grid.ct_size
    return [(np.arange(windows * grid.ct_size) + 0.5) * step for windows in grid.windows]


def draw_carriers(axis, place: Place, stage: StageAttention, values: Tensor, norm):
    """Draw values of the carriers' grid over the image."""
    grid = stage.grid
    draw_scene(axis, place)
    height, width = (n * grid.window_size * grid.stride for n in grid.windows)
    drawn = axis.imshow(values.float().cpu(), cmap=_clear_to_red(), norm=norm,
                        extent=(0, width, height, 0), interpolation='nearest')
    draw_grid(axis, stage)
    frame(axis, place)
    return drawn


def draw_window(axis, place: Place, stage: StageAttention, values: Tensor, norm):
    """Draw the window's values over the image; padding is grey."""
    grid = stage.grid
    rows, columns = grid.cells_of(stage.window)
    extent = tuple(n * grid.stride for n in (columns.start, columns.stop, rows.stop, rows.start))
    draw_scene(axis, place)
    inside = grid.inside(place.prepared.valid)[rows, columns].numpy()
    drawn = axis.imshow(np.ma.masked_array(values.float().cpu(), ~inside),
                        cmap=_clear_to_red(), norm=norm, extent=extent, interpolation='nearest')
    draw_grid(axis, stage)
    axis.set(xlim=extent[:2], ylim=extent[2:])
    return drawn


def draw_heat(axis, place: Place, field: Tensor, peak: float, inner: Reach):
    """Draw a receptive field on a log scale; outline ``inner``."""
    from matplotlib.colors import LogNorm
    height, width = field.shape
    values = (field / peak).clamp(min=_FLOOR).float().cpu().numpy()
    drawn = axis.imshow(values, cmap=HEAT, norm=LogNorm(_FLOOR, 1), extent=(0, width, height, 0),
                        interpolation='nearest')
    frame(axis, place)
    _outline(axis, inner.left, inner.top, inner.right - inner.left, inner.bottom - inner.top,
             edgecolor='white', linewidth=1.5, linestyle='--')
    return drawn


def principal_colours(values: Tensor) -> np.ndarray:
    """Principal components as colours, (C, H, W) -> (H, W, 3).

    Each is scaled from its 1st to its 99th percentile.
    """
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


def common_norm(*panels: Tensor):
    """Scale panels alike; uniform ones get the middle colour."""
    from matplotlib.colors import PowerNorm
    peak = max(float(values.max()) for values in panels) * (4 if uniform(*panels) else 1)
    return PowerNorm(0.5, 0, max(peak, 1e-12))  # a few large values would hide the rest


def uniform(*panels: Tensor) -> str:
    """``' (uniform)'`` if each panel is nearly uniform, else ``''``."""
    even = all(values.max() - values.min() <= _EVEN * values.max() for values in panels)
    several = any(values.numel() > 1 for values in panels)
    return ' (uniform)' if even and several else ''


def percent(share) -> str:
    """Format a share of 1 as per cent."""
    share = 100 * float(share)
    if share == 0:
        return '0 %'
    return f'{share:.0f} %' if share >= 9.95 else f'{share:.1f} %' if share >= 0.05 else (
        'less than 0.1 %')


def figure(title: Optional[str], rows: int, ratios: Sequence[float], panel: float):
    """Make a figure and its axes, (rows, columns).

    Args:
        title: Of the figure; None for none.
        rows: Number of rows.
        ratios: Width over height of each column's panels.
        panel: Height of a panel in inches.
    """
    from matplotlib.figure import Figure
    columns = len(ratios)
    figure = Figure(figsize=(panel * sum(ratios) + 0.5 * columns, (panel + 0.9) * rows + 0.6),
                    layout='constrained')
    if title is not None:
        figure.suptitle(title, fontsize=11)
    return figure, figure.subplots(rows, columns, squeeze=False, width_ratios=ratios)


def bar(figure, drawn, axes, label: str) -> None:
    """Add a colour bar below some axes."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, MaxNLocator
    colours = figure.colorbar(drawn, ax=axes, location='bottom', shrink=0.8, pad=0.02, aspect=35)
    colours.set_label(label, fontsize=8)
    if not isinstance(drawn.norm, LogNorm):
        colours.set_ticks(MaxNLocator(5).tick_values(drawn.norm.vmin, drawn.norm.vmax)[:-1])
        # Matplotlib would print a common power of ten over the label.
        colours.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:.3g}'))
    colours.ax.tick_params(labelsize=7)


def save(figure, target: Union[str, Path]) -> Path:
    """Write a figure; returns its path."""
    settings = dict(pil_kwargs=dict(quality=85)) if Path(target).suffix == '.jpg' else {}
    figure.savefig(target, dpi=100, **settings)
    return Path(target)
