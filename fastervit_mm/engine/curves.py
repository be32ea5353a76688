"""Curves of runs, read from the scalars that mmengine writes.

mmdet's ``analyze_logs.py`` cannot be imported, draws one key per figure, and treats a resumed run
as two.
"""
import json
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

Curve = List[Tuple[int, float]]
# Ends of the names of the headline metrics.
_HEADLINES = ('mAP', 'mIoU', 'top1')
_TIMES = ('time', 'data_time')  # mmengine uses these names in training and in validation


def read_run(run: Union[str, Path]) -> Dict[str, Curve]:
    """Read a run's curves: name -> [(iteration, value), ...].

    A resumed run has several time-stamped folders in its work directory. Where two overlap, the
    later one counts: from its first iteration on, its values replace the earlier ones.

    Args:
        run: A work directory, one of its time-stamped folders, or a ``scalars.json``.

    Returns:
        Losses, learning rate, memory and metrics. A metric has the number of iterations trained
        before it was measured, even where mmengine counts epochs: exact in a run with
        :class:`~fastervit_mm.engine.MemoryLogProcessor`, else that of the last loss logged before.
        ``epoch`` is included where training counts epochs. ``time`` and ``data_time`` are the
        seconds of an iteration in training, ``val/time`` and ``val/data_time`` in validation.
        Empty if nothing was logged.
    """
    read = [(curves, of_training) for curves, of_training in map(_read_file, _files(Path(run)))
            if curves]
    # A run that only evaluates has no iterations; it counts if nothing was trained.
    trained = [curves for curves, of_training in read if of_training] or [
        curves for curves, _ in read[-1:]]
    curves: Dict[str, Curve] = {}
    for later in trained:
        # A run that was killed in its first validation replaces nothing else.
        first = later['loss'][0][0] if 'loss' in later else float('inf')
        for name in {**curves, **later}:
            kept = [point for point in curves.get(name, []) if point[0] < first]
            # A validation that is run again comes before the first iteration.
            curves[name] = sorted(dict(kept + later.get(name, [])).items())
    return {name: curve for name, curve in curves.items() if curve}


def _files(run: Path) -> List[Path]:
    if run.is_file():
        return [run]
    own = run / 'vis_data/scalars.json'
    # Names are time stamps, so their order is that of the runs.
    return [own] if own.is_file() else sorted(run.glob('*/vis_data/scalars.json'))


def _read_file(file: Path) -> Tuple[Dict[str, Curve], bool]:
    """Read a file's curves, and whether they are a training's."""
    curves: Dict[str, Dict[int, float]] = {}
    iteration, epoch, of_training = 0, None, False
    for scalars in _lines(file):
        training = 'loss' in scalars
        of_training |= training or 'iter' in scalars
        step = scalars.get('step', 0)
        if training:
            iteration = place = scalars.get('iter', step)
            epoch = scalars.get('epoch')
        else:
            # Without an iter a metric's step is an epoch or an iteration, and an epoch never
            # exceeds the iteration.
            place = scalars.get('iter', max(iteration, step))
            scalars.setdefault('epoch', epoch)
        for name, value in scalars.items():
            if isinstance(value, (int, float)) and name not in ('step', 'iter'):
                name = f'val/{name}' if name in _TIMES and not training else name
                curves.setdefault(name, {})[place] = value
    return {name: list(curve.items()) for name, curve in curves.items()}, of_training


def _lines(file: Path) -> Iterator[dict]:
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed


def headlines(names: Iterable[str]) -> List[str]:
    """Choose the main metrics among names, such as ``coco/bbox_mAP``."""
    return [name for name in names if name.endswith(_HEADLINES)]


def compare_runs(runs: Sequence[Union[str, Path]], keys: Optional[Sequence[str]] = None
                 ) -> Dict[str, Dict[str, Curve]]:
    """Curves of several runs: key -> label of the run -> curve.

    Args:
        runs: Each as in :func:`read_run`.
        keys: Names of curves, whole or only the part after the last slash: ``bbox_mAP`` also
            finds ``coco/bbox_mAP``. Default the loss and the headline metrics of any run.

    Returns:
        The curves. A run's label is the end of its path, long enough to differ from the others.
        A run without a curve is absent from that key.

    Raises:
        FileNotFoundError: For a run that does not exist, or in which nothing was logged.
        ValueError: For no runs, a run given twice, or a key that no run has.
    """
    if not runs:
        raise ValueError('runs=[]: give at least one work directory')
    curves = {}
    for label, run in zip(_labels(runs), runs):
        curves[label] = read_run(run)
        if not curves[label]:
            raise FileNotFoundError(
                f'run={str(run)!r}: ' + ('no such folder' if not Path(run).exists() else
                                         'nothing was logged here; give a work directory, which '
                                         'has a TIMESTAMP/vis_data/scalars.json'))
    names = list(dict.fromkeys(name for run in curves.values() for name in run))
    if keys is None:
        found = dict.fromkeys(['loss', *headlines(names)])
        found = [name for name in found if name in names] or names[:1]
    else:
        found = []
        for key in keys:
            matching = [n for n in names if n == key] or [n for n in names
                                                          if n.split('/')[-1] == key]
            if not matching:
                raise ValueError(f'keys={key!r}: not in any run. Give some of {", ".join(names)}')
            found += matching
    return {name: {label: run[name] for label, run in curves.items() if name in run}
            for name in found}


def plot_run(run: Union[str, Path], picture: Union[str, Path]) -> bool:
    """Draw the loss and the headline metrics of one run.

    Args:
        run: As in :func:`read_run`.
        picture: PNG to write.

    Returns:
        Whether it was drawn; False for a run without a loss.
    """
    curves = read_run(run)
    if 'loss' not in curves:
        return False
    plot_runs({key: {Path(run).name: curves[key]} for key in ['loss', *headlines(curves)]}, picture)
    return True


def plot_runs(curves: Mapping[str, Mapping[str, Curve]], picture: Union[str, Path]) -> None:
    """Draw runs side by side, a panel for each key.

    Args:
        curves: From :func:`compare_runs`.
        picture: PNG to write; its folder is created.
    """
    # Not pyplot: a hook must not change its program's figures or back-end.
    from matplotlib.figure import Figure
    columns = min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flat
    labels = list(dict.fromkeys(label for lines in curves.values() for label in lines))
    for (key, lines), axis in zip(curves.items(), axes):
        for label, curve in lines.items():
            marker = 'o' if len(curve) <= 50 else None
            axis.plot(*zip(*curve), color=f'C{labels.index(label)}', marker=marker, markersize=3,
                      label=label)
        axis.set(title=key, xlabel='iteration')
        if headlines([key]):  # mmdet reports 0 to 1, mmseg and mmpretrain per cent
            highest = max(value for curve in lines.values() for _, value in curve)
            axis.set(ylim=(0, 1 if highest <= 1 else 100))
        elif key == 'loss':
            axis.set(ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in list(axes):  # unused ones in the last row
        axis.set_axis_off()
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)


def _labels(runs: Sequence[Union[str, Path]]) -> List[str]:
    parts = [Path(run).resolve().parts for run in runs]
    parts = [p[:-2] if p[-2:] == ('vis_data', 'scalars.json') else p for p in parts]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ['/'.join(p[-length:]) for p in parts]
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError(f'runs: {", ".join(map(str, runs))}: give each once')
