"""Cases measured in turns, in separate processes, and their report."""
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn

from benchmarks.reports import origin, save

from .cases import PRECISIONS, Case, Product, Result, modes_of
from .compare import equals
from .measure import LAP_SECONDS, Matmul, NotMeasured
from .peers import PEERS, SETS, Size
from .workers import Worker, in_turns

TOGETHER = 24
"""Most cases that take turns; each case's process stays in memory."""

TURN_BURN_IN = {'cuda': 0.2}
"""Seconds of calls before a lap whose turn has come, by type of device."""


def run(models: Sequence[str], sizes: Sequence[Size], batches: Sequence[int],
        precisions: Sequence[str], modes: Sequence[str], steps: Sequence[str], rounds: int = 10,
        warmup: int = 2, device: str = 'cpu', memory: bool = True,
        console: Optional[Console] = None, sets: Sequence[str] = (),
        save_to: Optional[Path] = None) -> Dict[str, object]:
    """Measure every combination.

    Each case has its own process, and cases to compare take turns, so that their ratios hold on a
    noisy machine: the cases of one step and precision, for all sizes and batches if they are at
    most :data:`TOGETHER`, else for one size and batch. The networks of a set, and those of
    ``models``, are measured one group after another.

    Args:
        models: Keys of :data:`~benchmarks.speed.peers.PEERS`, or ``model:mode`` for another mode
            than ``modes``.
        sizes: (height, width) in pixels.
        batches: Images a step.
        precisions: Keys of :data:`PRECISIONS`.
        modes: Each some of :data:`MODES`, joined by ``+``, or ``all`` for every mode that may be a
            network's best (:func:`~benchmarks.speed.cases.modes_of`).
        steps: ``'forward'``, ``'train'`` or both.
        rounds: Measured laps. Default 10.
        warmup: Steps before them; the first one compiles. Default 2.
        device: ``'cpu'`` or ``'cuda'``. Default the CPU.
        memory: Whether to measure memory and count multiply-adds as well. Default True.
        console: Where to print. Default the terminal.
        sets: Keys of :data:`~benchmarks.speed.peers.SETS`, measured after ``models``.
        save_to: Write the report there after each group. Default nowhere.

    Returns:
        The report: the command, the machine, its peaks, the settings, a list of results, and our
        networks compared with equally accurate ones. A case that could not be measured has the
        reason.

    Raises:
        ValueError: For an unknown model, set or precision.
    """
    for name, given, known in (('models', [m.partition(':')[0] for m in models], PEERS),
                               ('sets', sets, SETS), ('precisions', precisions, PRECISIONS)):
        for value in given:
            if value not in known:
                raise ValueError(f'{name}={value!r}: give some of {", ".join(known)}')
    groups = _groups(models, sizes, batches, precisions, modes, steps, device, sets)
    report = dict(origin(), device=device,
                  settings=dict(lap_seconds=LAP_SECONDS, sizes=sizes, batches=batches),
                  matmul_peak_flops={}, rounds=rounds, warmup=warmup, results=[])
    columns = (*Progress.get_default_columns(), TextColumn('{task.fields[now]}'))
    # Without a redrawing thread, which would run during measurements.
    with Progress(*columns, console=console or Console(), transient=True,
                  auto_refresh=False) as progress:
        task = progress.add_task('Measuring', total=sum(len(g) for g in groups) * 2, now='')

        def show(now: str, advance: float) -> None:
            progress.update(task, now=now, advance=advance, refresh=True)
        for results in groups:
            _measure(results, torch.device(device), rounds, warmup, memory, report, show)
            report['results'] += [asdict(r) for r in results]
            for r in report['results']:
                if r['seconds'] and r['multiply_adds']:
                    peak = max(report['matmul_peak_flops'][r['precision']].values())
                    r['fraction_of_peak'] = 2 * r['multiply_adds'] / r['seconds'] / peak
            report['equal_accuracy'] = equals(report['results'])
            if save_to is not None:
                save(report, save_to)
    return report


def _groups(models: Sequence[str], sizes: Sequence[Size], batches: Sequence[int],
            precisions: Sequence[str], modes: Sequence[str], steps: Sequence[str], device: str,
            sets: Sequence[str]) -> List[List[Result]]:
    """Results to measure; those of a list take turns."""
    teams = [*([models] if models else []), *(team for name in sets for team in SETS[name])]
    groups = []
    for step, precision, team in product(steps, precisions, teams):
        named = []
        for model in team:
            name, _, own = model.partition(':')
            for mode in [own] if own else modes:
                named += [(name, m) for m in (
                    modes_of(name, device, step, precision) if mode == 'all' else [mode])]
        shapes = list(product(sizes, batches))
        small = len(named) * len(shapes) <= TOGETHER
        for together in [shapes] if small else [[shape] for shape in shapes]:
            groups.append([Result(name, mode, precision, step, tuple(size), batch,
                                  PEERS[name].top1, len(groups))
                           for size, batch in together for name, mode in named])
    return groups


def _measure(results: List[Result], device: torch.device, rounds: int, warmup: int, memory: bool,
             report: Dict[str, object], show: Callable[[str, float], None]) -> None:
    """Measure results in turns; add the machine's speed and settings."""
    precision, workers = results[0].precision, {}
    products = list(Matmul.names(device))  # the machine's limit takes turns too
    for key in [*range(len(results)), *products]:
        if key in products:
            build = (Product, key, device, precision)
        else:
            result = results[key]
            show(f'{result.model} {result.mode} {result.size[0]}x{result.size[1]} batch '
                 f'{result.batch}: building, warming up', 1)
            build = (Case, result, device, warmup, memory)
        try:
            workers[key] = Worker(*build)
            for name, value in ({} if key in products else workers[key].ask('facts')).items():
                setattr(result, name, value)
        except NotMeasured as reason:
            _refuse(results, key, reason)
    seconds = in_turns(workers, rounds, TURN_BURN_IN.get(device.type, 0),
                       partial(_refuse, results),
                       lambda: show('in turns', len(results) / rounds))
    reached = report['matmul_peak_flops'].setdefault(precision, {})
    for key, worker in workers.items():
        report['settings'].update(worker.settings)
        if key in products:  # the best of all groups counts
            speed = worker.ask('operations') / min(seconds[key])
            reached[key] = max(reached.get(key, 0), speed)
        else:
            results[key].enter(seconds[key])
        worker.close()
    counted = {(r.model, r.size, r.batch): r.multiply_adds for r in results if r.multiply_adds}
    for r in results:
        r.multiply_adds = r.multiply_adds or counted.get((r.model, r.size, r.batch))


def _refuse(results: List[Result], key: object, reason: NotMeasured) -> None:
    if not isinstance(key, int):
        raise reason  # the machine's own limit
    results[key].error = str(reason)
