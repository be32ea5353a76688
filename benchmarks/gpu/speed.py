"""Steps 4 and 5: speed compared with other networks."""
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from benchmarks.speed.cases import Case, Product, Result, modes_of
from benchmarks.speed.peers import PEERS
from benchmarks.speed.run import TURN_BURN_IN
from benchmarks.speed.workers import Worker, in_turns

from .networks import sized
from .report import Report

SIZES = {'224': dict(size=(224, 224), batches=(128, 1)),
         '800': dict(size=(800, 1280), batches=(16, 1))}
LARGEST_WAVE = 8  # cases built at once: 16 cores compile, and all stay in memory


class Named(NamedTuple):
    """Network in a mode."""
    model: str
    mode: str
    precision: str

    def __str__(self) -> str:
        return f'{self.model}, {self.mode}, {self.precision}'


BEST = 'channels_last+compiled+graph'
# In this order, as far as the time allows. First the cases of the targets.
TARGETS = (Named('authors-2', 'eager', 'amp'), Named('authors-2', 'channels_last', 'amp'),
           Named('swin-t-unfused', 'channels_last', 'amp'),
           Named('swin-t', 'channels_last', 'amp'), Named('convnext-t', 'channels_last', 'amp'),
           Named('fastervit-2', 'channels_last', 'amp'),
           Named('fastervit-2', 'channels_last+compiled+deployed', 'bf16'),
           Named('fastervit-2', f'{BEST}+deployed', 'bf16'))
# Then each network's best mode, ours with those of equal accuracy.
EQUALS = {'fastervit-0': ('convnext-t',), 'fastervit-1': ('convnext-s', 'swin-s'),
          'fastervit-2': ('swin-b', 'caformer-s18')}
BESTS = tuple(Named(name, BEST + '+deployed' * name.startswith('fastervit'), 'bf16') for name in (
    'fastervit-0', 'convnext-t', 'swin-b', 'fastervit-1', 'convnext-s', 'swin-s', 'swin-t',
    'authors-2', 'caformer-s18'))


def every_mode(models: Sequence[str]) -> List[Named]:
    """Remaining cases: every mode of each model."""
    return [Named(model, mode, precision) for model in models for precision in ('bf16', 'amp')
            for mode in modes_of(model, 'cuda', 'forward', precision)]


def run(report: Report, which: str) -> None:
    plan = dict(SIZES[which], cases=[*TARGETS, *BESTS, *every_mode(
        ('fastervit-2', 'swin-t', 'convnext-t', 'authors-2', 'swin-t-unfused'))], rounds=10,
        ours='fastervit-2', authors='authors-2', memory=True)
    if report.rehearse:
        plan.update(size=(64, 64), batches=(2, 1) if which == '224' else (1,), rounds=1,
                    ours='fastervit-0', authors='authors-0', memory=False, cases=[
                        Named('authors-0', 'eager', 'amp'), TARGETS[2],
                        Named('fastervit-0', 'channels_last', 'amp'),
                        Named('fastervit-0', f'{BEST}+deployed', 'bf16')])
    if not report.cuda:
        report.skip('speed', 'compiled, graph', 'need CUDA; here the same without them')
    cases = list(dict.fromkeys(plan['cases']))
    if _lacks_authors():
        report.skip('speed', 'authors', 'the package fastervit is not installed')
        cases = [case for case in cases if not case.model.startswith('authors')]
    found: Dict[Tuple[Named, int], Result] = {}
    for part in _waves(cases):
        for batch in plan['batches']:
            report.run('speed', f'batch {batch}: ' + '; '.join(map(str, part)), wave, report, plan,
                       part, batch, found, needs=60 if report.cuda else 5)
            report.extra['results'] = [asdict(result) for result in found.values()]
    targets(report, plan, found, which)


def _lacks_authors() -> bool:
    try:
        import fastervit  # noqa: F401
    except ImportError:
        return True
    return False


def _waves(cases: List[Named]) -> List[List[Named]]:
    return [cases[n:n + LARGEST_WAVE] for n in range(0, len(cases), LARGEST_WAVE)]


def wave(report: Report, plan: dict, cases: Sequence[Named], batch: int,
         found: Dict[Tuple[Named, int], Result]) -> None:
    """Build cases side by side, then measure them in turns."""
    results = {}
    for case in cases:
        mode = case.mode if report.cuda else '+'.join(
            m for m in case.mode.split('+') if m not in ('compiled', 'graph'))
        results[case] = Result(case.model, mode, case.precision, 'forward', plan['size'], batch,
                               PEERS[case.model].top1)
    try:
        workers = built(report, {case: (Case, result, report.device, 2, plan['memory'])
                                 for case, result in results.items()} | (
            {'product': (Product, 'mm', report.device, 'bf16')} if report.cuda else {}))
        seconds = in_turns(workers, plan['rounds'], TURN_BURN_IN.get(report.device.type, 0),
                           lambda key, reason: _refuse(report, key, batch, reason))
        for key, worker in workers.items():
            if key == 'product':
                report.extra['product_flops'] = max(
                    report.extra.get('product_flops', 0),
                    worker.ask('operations') / min(seconds[key]))
            else:
                _enter(report, key, batch, results[key], worker.ask('facts'), seconds[key], found)
            worker.close()
    finally:
        for process in multiprocessing.active_children():  # only this step's
            process.kill()


def built(report: Report, builds: Dict[Union[Named, str], tuple]
          ) -> Dict[Union[Named, str], Worker]:
    """Workers that are ready; failures become rows."""
    # Two at a time without a GPU: each has all threads.
    pool, workers = ThreadPoolExecutor(LARGEST_WAVE + 1 if report.cuda else 2), {}
    try:
        futures = {key: pool.submit(Worker, *args) for key, args in builds.items()}
        for key, future in futures.items():
            try:
                workers[key] = future.result()
            except Exception as reason:  # noqa: BLE001  NotMeasured, or a broken pipe
                _refuse(report, key, None, reason)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # the time may be up
    return workers


def _refuse(report: Report, key, batch: Optional[int], reason: Exception) -> None:
    """Record a failure: a peer's is a result, ours an error."""
    ours = str(key).startswith('fastervit')
    report.add('speed', f'{key}' + (f', batch {batch}' if batch else ''),
               state='error' if ours else 'skipped', note=str(reason))


def _enter(report: Report, case: Named, batch: int, result: Result, facts: dict,
           seconds: List[float], found: Dict[Tuple[Named, int], Result]) -> None:
    for name, value in facts.items():
        setattr(result, name, value)
    result.enter(seconds)
    found[case, batch] = result
    report.add('speed', f'{case}, batch {batch}', 1e3 * result.seconds, unit='ms',
               note=f'{result.images_per_second:.0f} images/s, ± '
                    f'{50 * (result.high - result.low) / result.seconds:.1f} %'
                    + (f', {result.peak_bytes / 2**20:.0f} MiB' if result.peak_bytes else ''))


def targets(report: Report, plan: dict, found: Dict[Tuple[Named, int], Result],
            which: str) -> None:
    """Check the targets, as ratios of measured times."""
    ours, authors, (large, *_) = plan['ours'], plan['authors'], plan['batches']
    size = sized(plan['size'])

    def best(model: str, batch: int, *modes: str, precision: Optional[str] = None):
        """Seconds of a model's fastest case with these modes.

        A '-' before a mode excludes it.
        """
        wanted = {m for m in modes if not m.startswith('-')}
        unwanted = {m[1:] for m in modes if m.startswith('-')}
        times = [r.seconds for (case, b), r in found.items()
                 if case.model == model and b == batch and precision in (None, case.precision)
                 and wanted <= set(case.mode.split('+'))
                 and not unwanted & set(case.mode.split('+'))]
        return min(times, default=None)

    eager = ('-compiled', '-graph', '-deployed')

    def ratio(case: str, slow: Optional[float], fast: Optional[float],
              at_least: Optional[float]) -> None:
        case = f'{size}, {case}'
        if slow is None or fast is None:
            report.add('target', case, state='left out', note='a part of it was not measured')
        elif at_least is None or report.rehearse:
            # A rehearsal's times mean nothing: no GPU, other sizes.
            report.add('target', case, slow / fast, unit='times the speed',
                       limit=f'(>= {at_least:g})' if at_least else '')
        else:
            report.check('target', case, slow / fast, at_least=at_least, unit='times the speed')

    for batch in plan['batches']:
        is_large = batch == large
        theirs = best(authors, batch, *eager, precision='amp')
        ratio(f'batch {batch}: ours compiled beside the authors\' eager AMP', theirs,
              best(ours, batch, 'compiled'), 2 if is_large or which == '800' else None)
        ratio(f'batch {batch}: ours beside Swin-T, both eager, AMP, channels last',
              best('swin-t-unfused', batch, 'channels_last', *eager, precision='amp'),
              best(ours, batch, 'channels_last', *eager, precision='amp'),
              1.5 if is_large else None)
        if batch == 1 and which == '224':
            ratio('batch 1: ours compiled with a graph beside the authors\' eager AMP', theirs,
                  best(ours, 1, 'compiled', 'graph'), 5)
        if report.rehearse:
            continue
        ratio(f'batch {batch}: ours beside Swin-T, best modes', best('swin-t', batch),
              best(ours, batch), None)
        for model, equals in EQUALS.items():
            for other in equals:
                ratio(f'batch {batch}: {model} beside {other}, equal accuracy, best modes',
                      best(other, batch), best(model, batch),
                      1 if is_large and not other.startswith('caformer') else None)
