"""A benchmark: the cases of each group take turns; then figures, tables and a file."""
import json
import os
import platform
import shlex
import sys
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table
from torch import nn

from ..engine.memory import keep_freed_memory
from ..engine.onednn import use_onednn
from ..models import switch_to_deploy
from .measure import Matmul, interleave, multiply_adds, peak_memory, spread
from .peers import PEERS, Size, compile_backbone

MODES = ('eager', 'onednn', 'channels_last', 'deployed', 'compiled', 'graph')
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'amp': torch.bfloat16}


@dataclass
class Result:
    """One case and its figures.

    Attributes:
        model: Key of :data:`~fastervit_mm.benchmark.peers.PEERS`.
        mode: Some of :data:`MODES`, joined by ``+``.
        precision: Key of :data:`PRECISIONS`.
        step: ``'forward'`` or ``'train'``, forward and backward.
        size: (height, width) in pixels.
        batch: Images a step.
        seconds: Median time of a step.
        low, high: Quartiles, in seconds.
        images_per_second: Batch over median.
        peak_bytes: Peak memory of a step, beyond weights and input.
        multiply_adds: Multiply-adds of a step.
        fraction_of_peak: Share of the speed of a matrix product, measured in that precision.
        error: Why there are no figures; None if there are.
        all_seconds: Time of each measured step.
    """
    model: str
    mode: str
    precision: str
    step: str
    size: Size
    batch: int
    seconds: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None
    images_per_second: Optional[float] = None
    peak_bytes: Optional[int] = None
    multiply_adds: Optional[int] = None
    fraction_of_peak: Optional[float] = None
    error: Optional[str] = None
    all_seconds: List[float] = field(default_factory=list)


def machine() -> Dict[str, object]:
    """The machine and the versions of software, for the report."""
    cpu = platform.processor()
    info = Path('/proc/cpuinfo')
    if info.is_file():
        names = [line.split(':')[1].strip() for line in info.read_text().splitlines()
                 if line.startswith('model name')]
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return dict(cpu=cpu, cores=len(os.sched_getaffinity(0)), threads=torch.get_num_threads(),
                gpu=gpu, torch=torch.__version__, python=platform.python_version(),
                system=platform.platform(), capability=torch.backends.cpu.get_cpu_capability())


class Case:
    """One model in one mode, ready to step."""

    def __init__(self, result: Result, device: torch.device):
        self.result = result
        modes = result.mode.split('+')
        unknown = [m for m in modes if m not in MODES]
        if unknown:
            raise ValueError(f'mode={result.mode!r}: give {", ".join(MODES)}, joined by "+"')
        if 'onednn' in modes and device.type != 'cpu':
            raise ValueError('onednn: products through oneDNN need a CPU')
        if 'graph' in modes and device.type != 'cuda':
            raise ValueError('graph: CUDA graphs need a GPU')
        if result.step == 'train' and ('deployed' in modes or 'graph' in modes):
            raise ValueError(f'{result.mode}: only the forward step is measured')
        torch.manual_seed(0)
        peer = PEERS[result.model]
        if peer.whole and result.step == 'train':
            raise ValueError('whole networks: only the forward step is measured')
        network = peer.build(result.size).to(device).train(result.step == 'train')
        if 'deployed' in modes:
            switch_to_deploy(network)
        if 'onednn' in modes:  # as our tools do on a CPU; it helps every model
            use_onednn(network)
        image = torch.randn(result.batch, 3, *result.size, device=device)
        if result.precision == 'bf16':
            network, image = network.bfloat16(), image.bfloat16()
        if 'channels_last' in modes:
            network = network.to(memory_format=torch.channels_last)
            image = image.contiguous(memory_format=torch.channels_last)
        self.plain = network
        self.network = compile_backbone(network) if 'compiled' in modes else network
        self.image, self.device = image, device
        self.graph = None
        if 'graph' in modes:
            self._capture()

    def _cast(self):
        return (torch.autocast(self.device.type, torch.bfloat16)
                if self.result.precision == 'amp' else nullcontext())

    def step(self, network: Optional[nn.Module] = None) -> None:
        """Forward, or forward and backward."""
        network = network or self.network
        if self.graph is not None:
            self.graph.replay()
        elif self.result.step == 'forward':
            with torch.no_grad(), self._cast():
                network(self.image)
        else:
            with self._cast():
                maps = network(self.image)
            sum(m.float().mean() for m in maps).backward()
            network.zero_grad(set_to_none=True)

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiling and tuning must not be in the graph
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.no_grad(), self._cast():
            self.outputs = self.network(self.image)
        self.graph = graph


def run(models: Sequence[str], sizes: Sequence[Size], batches: Sequence[int],
        precisions: Sequence[str], modes: Sequence[str], steps: Sequence[str], rounds: int = 10,
        warmup: int = 2, device: str = 'cpu', memory: bool = True,
        console: Optional[Console] = None) -> Dict[str, object]:
    """Measure every combination.

    Cases of the same step and precision take turns in one process, sizes and batches too, so that
    their ratios hold on a noisy machine.

    Args:
        models: Keys of :data:`~fastervit_mm.benchmark.peers.PEERS`, or ``model:mode`` for a mode
            of its own in place of ``modes``.
        sizes: (height, width) in pixels.
        batches: Images a step.
        precisions: Keys of :data:`PRECISIONS`.
        modes: Each some of :data:`MODES`, joined by ``+``.
        steps: ``'forward'``, ``'train'`` or both.
        rounds: Measured repetitions. Default 10.
        warmup: Repetitions before them; the first one compiles. Default 2.
        device: ``'cpu'`` or ``'cuda'``. Default the CPU.
        memory: Whether to measure memory and count multiply-adds as well. Default True.
        console: Where to print. Default the terminal.

    Returns:
        The report that :func:`save` writes: the machine, its peaks, and a list of results. A case
        that fails is in it, with its error.

    Raises:
        ValueError: For an unknown model or precision.
    """
    console, place = console or Console(), torch.device(device)
    kept = place.type == 'cpu' and keep_freed_memory()  # for all models alike
    named: List[Tuple[str, str]] = []
    for model in models:
        name, _, own = model.partition(':')
        if name not in PEERS:
            raise ValueError(f'models={model!r}: give some of {", ".join(PEERS)}')
        named += [(name, mode) for mode in ([own] if own else modes)]
    unknown = [p for p in precisions if p not in PRECISIONS]
    if unknown:
        raise ValueError(f'precisions={unknown}: give some of {", ".join(PRECISIONS)}')
    peaks: Dict[str, Dict[str, float]] = {}
    results: List[Result] = []
    groups = list(product(steps, precisions))
    cases = list(product(sizes, batches, named))
    columns = (*Progress.get_default_columns(), TextColumn('{task.fields[now]}'))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task('Measuring',
                                 total=len(groups) * (rounds + len(cases)), now='')
        for step, precision in groups:
            results += _group([Result(name, mode, precision, step, tuple(size), batch)
                               for size, batch, (name, mode) in cases], rounds, warmup, place,
                              memory, peaks, progress, task)
    for r in results:
        if r.seconds and r.multiply_adds:
            r.fraction_of_peak = 2 * r.multiply_adds / r.seconds / max(peaks[r.precision].values())
    return dict(command=shlex.join(sys.argv), device=device,
                date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
                machine=dict(machine(), freed_memory_kept=kept),
                matmul_peak_flops=peaks, rounds=rounds, warmup=warmup,
                results=[asdict(r) for r in results])


def _group(results: List[Result], rounds: int, warmup: int, device: torch.device, memory: bool,
           peaks: Dict[str, Dict[str, float]], progress: Progress, task) -> List[Result]:
    cases: Dict[str, Case] = {}
    for result in results:
        height, width = result.size
        name = f'{result.model} {result.mode} {height}x{width} batch {result.batch}'
        progress.update(task, now=f'{name}: building, warming up')
        try:
            case = Case(result, device)
            for _ in range(warmup):
                case.step()
            if memory:
                result.peak_bytes = peak_memory(case.step, device)
                # Counted on the network as written: a compiled one is opaque.
                if not (case.graph or 'compiled' in result.mode):
                    result.multiply_adds = multiply_adds(case.step)
            cases[name] = case
        except Exception as error:  # noqa: BLE001  a peer that cannot do this is a result too
            result.error = f'{type(error).__name__}: {error}'.split('\n')[0][:300]
        progress.advance(task)
    progress.update(task, now='in turns')
    # The machine's limit is measured among the others, and the best of all groups counts.
    precision = results[0].precision
    matmul = Matmul(device, PRECISIONS[precision])
    for step in matmul.steps.values():
        step()
    seconds = interleave({**matmul.steps, **{n: c.step for n, c in cases.items()}}, rounds, device,
                         lambda: progress.advance(task, 1 / (len(matmul.steps) + len(cases))))
    reached = peaks.setdefault(precision, {})
    for name in matmul.steps:
        reached[name] = max(reached.get(name, 0), matmul.operations / min(seconds[name]))
    for name, case in cases.items():
        result = case.result
        result.all_seconds = [round(s, 6) for s in seconds[name]]
        result.seconds, result.low, result.high = spread(seconds[name])
        result.images_per_second = result.batch / result.seconds
    counted = {(r.model, r.size, r.batch): r.multiply_adds for r in results if r.multiply_adds}
    for r in results:
        r.multiply_adds = r.multiply_adds or counted.get((r.model, r.size, r.batch))
    return results


def tables(report: Dict[str, object], reference: Optional[str] = None) -> List[Table]:
    """The figures, a table for each size, batch, precision and step; cases with an error left out.

    Args:
        report: From :func:`run`.
        reference: The model that the column ``faster`` compares with. Default the first of a table.
    """
    groups: Dict[tuple, List[dict]] = defaultdict(list)
    for r in report['results']:
        groups[r['step'], tuple(r['size']), r['batch'], r['precision']].append(r)
    return [_table(*group, results, reference) for group, results in groups.items()]


def _table(step: str, size: Size, batch: int, precision: str, results: List[dict],
           reference: Optional[str]) -> Table:
    out = Table(title=f'{step}, {size[0]} x {size[1]}, batch {batch}, {precision}',
                title_justify='left')
    out.add_column('model', no_wrap=True)
    out.add_column('mode', overflow='fold')
    for name in ('ms', '±', 'im/s', 'faster', 'MiB', 'GMAC', 'peak'):
        out.add_column(name, justify='right', no_wrap=True)
    first = next((r['seconds'] for r in results
                  if r['seconds'] and reference in (None, r['model'])), None)
    for r in results:
        if r['error']:
            continue
        half_spread = 50 * (r['high'] - r['low']) / r['seconds']
        out.add_row(
            r['model'], r['mode'], f'{1e3 * r["seconds"]:.1f}', f'{half_spread:.0f} %',
            f'{r["images_per_second"]:.2f}', f'{first / r["seconds"]:.2f} x' if first else '',
            f'{r["peak_bytes"] / 2**20:.0f}' if r['peak_bytes'] else '',
            f'{r["multiply_adds"] / 1e9:.1f}' if r['multiply_adds'] else '',
            f'{100 * r["fraction_of_peak"]:.0f} %' if r['fraction_of_peak'] else '')
    return out


def save(report: Dict[str, object], target: Path) -> None:
    """Write a report as JSON."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1))
