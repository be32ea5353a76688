"""Figures of a benchmark."""
from collections import defaultdict
from pathlib import Path
from typing import Callable, Dict, List

from .compare import best_modes, equals, table_of
from .peers import PEERS


def draw(report: Dict[str, object], stem: Path) -> List[Path]:
    """Draw the figures that a report's cases allow.

    Throughput over published accuracy, if several models have one; time over pixels for several
    sizes; latency over batch size for several batches; speed of our networks over that of others
    with equal accuracy. Only forward steps are drawn.

    Args:
        report: From :func:`~benchmarks.speed.run`.
        stem: Path of the figures, before the last word: ``stem-accuracy.png``.

    Returns:
        Paths of the figures.
    """
    results = [r for r in report['results'] if r['seconds'] and r['step'] == 'forward']
    pictures = [
        _accuracy(results, report, stem),
        _lines(results, report, stem, 'pixels', 'megapixels of an image', 'ms an image',
               lambda r: r['size'][0] * r['size'][1] / 1e6,
               lambda r: 1e3 * r['seconds'] / r['batch']),
        _lines(results, report, stem, 'latency', 'batch', 'ms a step',
               lambda r: r['batch'], lambda r: 1e3 * r['seconds']),
        _equals(equals(results), report, stem),
    ]
    return [picture for picture in pictures if picture]


def titled_figure(report: Dict[str, object], title: str, panels: int = 1):
    """Figure with axes, title, and the report's machine and date."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7.5, 4.8), layout='constrained')
    head = report['machine']
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.text(0.01, 0.005, f'{head["gpu"] or head["cpu"]}, {head["threads"]} threads, torch '
                f'{head["torch"]}, {report["date"][:10]}', fontsize=7, color='gray')
    return figure, axes if panels > 1 else axes[0]


def save_figure(figure, stem: Path, name: str) -> Path:
    """Write ``stem-name.png`` and return its path."""
    path = stem.with_name(f'{stem.name}-{name}.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _accuracy(results: List[dict], report: Dict[str, object], stem: Path):
    """Draw each model in its best mode, at one setting.

    That is the first size, batch and precision with several models.
    """
    groups = defaultdict(dict)
    for r in best_modes(results):
        if PEERS[r['model']].box_ap and not r['model'].startswith('authors'):
            groups[table_of(r)][r['model']] = r
    groups = {k: v for k, v in groups.items() if len(v) > 1}
    if not groups:
        return None
    (_, (height, width), batch, precision, _), best = next(iter(groups.items()))
    figure, axis = titled_figure(
        report, 'Speed measured, accuracy as published (not re-trained here)\n'
        f'{height} x {width}, batch {batch}, {precision}, each model in its fastest mode measured')
    families = defaultdict(list)
    for name, r in best.items():
        families[name.rsplit('-', 1)[0]].append((r['images_per_second'], PEERS[name].box_ap, name))
    for family, points in families.items():
        points.sort()
        axis.plot(*list(zip(*points))[:2], marker='o', label=family)
        for x, y, name in points:
            axis.annotate(name, (x, y), xytext=(5, 4), textcoords='offset points', fontsize=8)
    axis.set(xlabel='images a second', ylabel='COCO box AP, Cascade Mask R-CNN 3x (the paper\'s)')
    axis.margins(0.12)
    axis.legend()
    return save_figure(figure, stem, 'accuracy')


def _lines(results: List[dict], report: Dict[str, object], stem: Path, name: str, xlabel: str,
           ylabel: str, x: Callable, y: Callable):
    """Draw a line for each mode with several points."""
    lines = defaultdict(dict)
    for r in results:
        fixed = r['batch'] if name == 'pixels' else tuple(r['size'])
        lines[r['model'], r['mode'], r['precision'], fixed].setdefault(x(r), y(r))
    lines = {k: sorted(v.items()) for k, v in lines.items() if len(v) > 1}
    if not lines:
        return None
    figure, axis = titled_figure(report, {'pixels': 'Time against pixels',
                                          'latency': 'Latency against batch'}[name])
    for (model, mode, precision, _), points in lines.items():
        axis.plot(*zip(*points), marker='o', label=f'{model}, {mode}, {precision}')
    axis.set(xlabel=xlabel, ylabel=ylabel, xscale='log', yscale='log')
    ticks = sorted({point[0] for points in lines.values() for point in points})
    axis.set_xticks(ticks, [f'{t:g}' for t in ticks])
    axis.minorticks_off()
    axis.legend(fontsize=7)
    return save_figure(figure, stem, name)


def _equals(pairs: List[dict], report: Dict[str, object], stem: Path):
    """Draw each pair's ratio of images a second as bar."""
    if not pairs:
        return None
    figure, axis = titled_figure(report, 'Speed beside networks of equal accuracy, each in its '
                                 'best mode\n(gray: not within 0.3 of ImageNet top-1)')
    figure.set_figheight(2.2 + 0.32 * len(pairs))
    labels = [f'{p["model"]} ({p["top1"]}) beside {p["peer"]} ({p["peer_top1"]}), '
              f'{p["size"][0]} x {p["size"][1]}, batch {p["batch"]}, {p["precision"]}'
              for p in pairs]
    bars = axis.barh(range(len(pairs)), [p['faster'] for p in pairs],
                     color=['C0' if p['equal'] else 'lightgray' for p in pairs])
    axis.bar_label(bars, [f'{p["faster"]:.2f}' for p in pairs], padding=3, fontsize=8)
    axis.set_yticks(range(len(pairs)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.axvline(1, color='black', linewidth=0.8)
    axis.margins(x=0.12)
    axis.set_xlabel('times its images a second')
    return save_figure(figure, stem, 'equal-accuracy')
