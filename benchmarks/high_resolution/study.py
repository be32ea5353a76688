"""Comparison of networks from 512 to 3840 pixels a side."""
import json
from dataclasses import asdict
from itertools import product
from math import log
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.reports import machine, origin, save
from benchmarks.speed.cases import Case, Product, Result
from benchmarks.speed.charts import titled_figure
from benchmarks.speed.measure import NotMeasured
from benchmarks.speed.peers import PEERS, Size
from benchmarks.speed.workers import Worker
from fastervit_mm.complexity import ATTENTION

SIDES = (512, 960, 1440, 1920, 3840)
"""Sides of the square images to measure."""

COUNTED = (2880, 7680)
"""Sides for which only multiply-adds are counted."""

MODE = 'onednn+channels_last'
"""Mode of every network on a CPU, a key of ``speed.MODES``."""

SHORT = 10.
"""Expected seconds of a step above which only one is measured."""

NETWORKS: Dict[str, str] = {
    'fastervit-0': 'FasterViT-0',
    'fastervit-0-windows': 'FasterViT-0, no carriers',
    'fastervit-0-ct1': 'FasterViT-0, ct_size 1',
    'fastervit-0-ct4': 'FasterViT-0, ct_size 4',
    'fastervit-0-w14': 'FasterViT-0, windows of 14',
    'fastervit-0-w14-ct4': 'FasterViT-0, windows of 14, ct_size 4',
    'swin-hat-t': 'SwinHAT-T',
    'swin-t': 'Swin-T',
    'swinv2-t': 'SwinV2-T',
    'convnext-t': 'ConvNeXt-T',
    'hiera-t': 'Hiera-T',
    'vit-s': 'ViT-S/16',
}
"""Titles of the networks, by their key in :data:`~benchmarks.speed.peers.PEERS`."""


class Counts(NamedTuple):
    """Multiply-adds of a network for one image.

    Attributes:
        total: Of convolutions and all matrix products, attention's included.
        carriers: Part of the two products of attention among carriers, which grow with the square
            of their number.
    """
    total: int
    carriers: int


def count(model: str, size: Size) -> Counts:
    """Count a network's multiply-adds for a (height, width) image."""
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(
            display=False, custom_mapping=ATTENTION) as counter:
        PEERS[model].build(size).eval()(torch.empty(1, 3, *size))
    # On the meta device, attention is two batched products, linear layers plain ones.
    carriers = sum(operators.get(torch.ops.aten.bmm, 0)
                   for name, operators in counter.get_flop_counts().items()
                   if name.endswith('.carriers.attn'))
    return Counts(counter.get_total_flops() // 2, carriers // 2)


def compare(names: Sequence[str], sides: Sequence[int], counted: Sequence[int], out: Path,
            longest: float = 120., show: Callable[[str], None] = print,
            note: Optional[str] = None) -> dict:
    """Measure every network at every size that ``out`` lacks.

    Each runs in a separate process that ends before the next begins: at 3840 x 3840 memory does not
    suffice for several. The first step gives the peak memory, three laps the time; if a step takes
    more than :data:`SHORT`, a single step gives both.

    Args:
        names: Keys of :data:`NETWORKS`.
        sides: Of square images, in pixels, ascending.
        counted: Sides for which only multiply-adds are counted.
        out: JSON of the report, written after each network. Restarted with the same file, the
            program continues with what is missing.
        longest: Seconds of a step above which a network is not run, estimated from the next smaller
            size and the multiply-adds of both. Default 120.
        show: Called with a line for each network and size. Default ``print``.
        note: Note about the circumstances, for the report. Default none.

    Returns:
        A report as of :func:`~benchmarks.speed.run`, with ``counts``: each network's
        :class:`Counts` by side. If a network was not run, ``error`` says why.

    Raises:
        ValueError: For an unknown network, sides out of order, or figures in ``out`` that were
            measured in another way.
    """
    report = _opened(names, sides, out, longest)

    def keep(line: str) -> None:
        report.update(origin(), note=note)
        save(report, out)
        show(line)
    for side, name in product([*sides, *counted], names):
        counts = report['counts'].setdefault(name, {})
        if str(side) not in counts:
            counts[str(side)] = count(name, (side, side))
            keep(f'{name} {side}: {counts[str(side)].total / 1e9:.0f} G multiply-adds')
    done = {(r['size'][0], r['model']) for r in report['results']}
    for side, name in product(sides, names):
        if (side, name) in done:
            continue
        result = Result(name, MODE, 'fp32', 'forward', (side, side), 1, PEERS[name].top1,
                        multiply_adds=report['counts'][name][str(side)][0])
        expected, first = _expected(report['results'], result), None
        if expected > longest:
            result.error = (f'not run: {result.multiply_adds / 1e9:.0f} G multiply-adds, a step of '
                            f'some {expected:.0f} s')
        else:
            first = _measure(result, report, expected)
        report['results'].append(dict(asdict(result), first_seconds=first))
        report['results'].sort(key=lambda r: r['size'][0])
        _shares(report)
        keep(f'{name} {side}: ' + (result.error or f'{result.seconds:.2f} s, '
                                   f'{result.peak_bytes / 2**20:.0f} MiB'))
    return report


def _opened(names: Sequence[str], sides: Sequence[int], out: Path, longest: float) -> dict:
    """Check the arguments; return the report to continue."""
    for name in names:
        if name not in NETWORKS:
            raise ValueError(f'networks={name!r}: give some of {", ".join(NETWORKS)}')
    if list(sides) != sorted(set(sides)) or min(sides) < 32:
        raise ValueError(f'sides={list(sides)}: give ascending numbers of at least 32')
    about = dict(longest=longest, mode=MODE, threads=torch.get_num_threads(), cpu=machine()['cpu'])
    report = json.loads(out.read_text()) if out.is_file() else dict(
        about=about, device='cpu', settings={}, matmul_peak_flops={'fp32': {}}, matmul_speeds=[],
        counts={}, results=[])
    if report['about'] != about:
        raise ValueError(f'out={str(out)!r}: holds figures of {report["about"]}, not of {about}. '
                         'Give another file')
    return report


def _expected(results: List[dict], result: Result) -> float:
    """Expected seconds of a step, from the next smaller size."""
    known = [r for r in results if r['model'] == result.model and r['seconds']
             and r['size'][0] < result.size[0]]
    return (known[-1]['seconds'] * result.multiply_adds / known[-1]['multiply_adds'] if known
            else 0)


def _measure(result: Result, report: dict, expected: float) -> Optional[float]:
    """Measure a result and the machine's speed.

    Returns the seconds of the first step, which allocates its memory anew.
    """
    device = torch.device('cpu')
    try:
        worker = Worker(Case, result, device, 0, True, None, False)
        result.peak_bytes = worker.ask('facts')['peak_bytes']
        first = worker.ask('checked_seconds')
        seconds = [first] if expected > SHORT else [worker.ask('lap') for _ in range(3)]
    except NotMeasured as reason:
        result.error = str(reason)
        return None
    report['settings'].update(worker.settings)
    worker.close()
    result.enter(seconds)
    speeds = report['matmul_peak_flops']['fp32']
    beside = Worker(Product, 'conv', device, 'fp32')
    speed = beside.ask('operations') / min(beside.ask('lap') for _ in range(2))
    beside.close()
    speeds['conv'] = max(speeds.get('conv', 0), speed)
    report['matmul_speeds'].append(round(speed / 1e9, 1))  # GFLOP/s: was the machine steady?
    return first


def _shares(report: dict) -> None:
    peak = max(report['matmul_peak_flops']['fp32'].values(), default=0)
    for r in report['results']:
        if r['seconds']:
            r['fraction_of_peak'] = 2 * r['multiply_adds'] / r['seconds'] / peak


def tables(report: dict) -> List[str]:
    """Markdown tables of a report."""
    names = [name for name in NETWORKS if name in report['counts']]
    results = {(r['model'], r['size'][0]): r for r in report['results']}
    sides = sorted({side for _, side in results})
    counts = {(name, int(side)): Counts(*pair) for name in names
              for side, pair in report['counts'][name].items()}
    counted = sorted({side for _, side in counts})

    def lines(title: str, sides: Sequence[int], cell: Callable, values: Callable) -> List[str]:
        out = [f'**{title}**', '', '| network | ' + ' | '.join(map(str, sides)) + ' | exponent |',
               '|---' * (len(sides) + 2) + '|']
        for name in names:
            cells = [cell(name, side) for side in sides]
            out.append(f'| {NETWORKS[name]} | ' + ' | '.join([*cells, _exponent(values(name))])
                       + ' |')
        return [*out, '']

    def of(key: str, scale: float, digits: int) -> Sequence[Callable]:
        def cell(name: str, side: int) -> str:
            r = results.get((name, side))
            if r is None:
                return ''
            return f'{r[key] / scale:.{digits}f}' if r[key] else (
                'not run' if r['error'].startswith('not run') else 'failed')
        return cell, lambda name: {side: results[name, side][key] for side in sides
                                   if results.get((name, side), {}).get(key)}

    def time(name: str, side: int) -> str:
        r = results.get((name, side), {})
        return of_time(name, side) + ('*' if len(r.get('all_seconds', [])) == 1 else '')

    def times(name: str) -> Dict[int, float]:
        """Times, of the first step for sizes with no others."""
        found = {side: results[name, side] for side in median_of(name)}
        last = max((side for side in found if 2 * side in found), default=0)
        cold = last and any(len(found[side]['all_seconds']) == 1 for side in (last, 2 * last))
        return {side: r['first_seconds' if cold else 'seconds'] for side, r in found.items()}

    def share(name: str, side: int) -> str:
        found = counts.get((name, side))
        return f'{100 * found.carriers / found.total:.1f}' if found else ''
    of_time, median_of = of('seconds', 1, 2)
    out = [*lines('Time of an image, s (* the first step alone)', sides, time, times),
           *lines('Memory of a step, MiB', sides, *of('peak_bytes', 2**20, 0)),
           *lines('Multiply-adds, G', counted, lambda name, side: (
               f'{counts[name, side].total / 1e9:.0f}' if (name, side) in counts else ''),
               lambda name: {side: counts[name, side].total for side in counted
                             if (name, side) in counts})]
    names = [name for name in names if any(counts[name, side].carriers for side in counted
                                           if (name, side) in counts)]
    return [*out, *lines(
        'Carriers\' attention with each other, per cent of the multiply-adds', counted, share,
        lambda name: {side: counts[name, side].carriers for side in counted
                      if (name, side) in counts})][:-1]


def _exponent(values: Dict[int, float]) -> str:
    """Exponent in pixels over the last doubling; 1.00 is linear."""
    last = max((side for side in values if 2 * side in values), default=None)
    if last is None or not values[last]:
        return ''
    return f'{log(values[2 * last] / values[last]) / log(4):.2f} ({last} to {2 * last})'


def draw(report: dict, path: Path) -> Path:
    """Plot time, memory and multiply-adds over pixels, log-log."""
    from matplotlib import colormaps
    figure, axes = titled_figure(report, f'One image, batch 1, float32, {MODE.replace("+", ", ")}: '
                                 'a line that ends early took too long or too much memory',
                                 panels=3)
    figure.set_size_inches(13.5, 6)
    colors = colormaps['tab20']
    results = [r for r in report['results'] if r['seconds']]
    panels = (
        ('time, s', lambda n: {r['size'][0]: r['seconds'] for r in results if r['model'] == n}),
        ('memory of a step, GiB', lambda n: {
            r['size'][0]: r['peak_bytes'] / 2**30 for r in results if r['model'] == n}),
        ('multiply-adds, G', lambda n: {
            int(side): pair[0] / 1e9 for side, pair in report['counts'][n].items()}))
    for axis, (label, values) in zip(axes, panels):
        lowest = []
        for number, name in enumerate(n for n in NETWORKS if n in report['counts']):
            points = sorted(values(name).items())
            if points:
                lowest.append(points[0])
                axis.plot(*zip(*points), label=NETWORKS[name], color=colors(number),
                          marker='o' if 'fastervit' in name else 's', markersize=4,
                          linestyle='-' if 'fastervit' in name else '--')
        if lowest:  # starts at the cheapest network's first point
            side, value = min(lowest, key=lambda point: point[1])
            ends = [side, max(int(s) for c in report['counts'].values() for s in c)]
            axis.plot(ends, [0.7 * value * (end / side)**2 for end in ends], color='black',
                      linewidth=1, linestyle=':', label='linear in pixels')
        axis.set(xlabel='side of the image, pixels', ylabel=label, xscale='log', yscale='log')
        ticks = sorted({int(s) for c in report['counts'].values() for s in c})
        axis.set_xticks(ticks, [str(t) for t in ticks], fontsize=7)
        axis.minorticks_off()
    handles, labels = axes[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=5, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
