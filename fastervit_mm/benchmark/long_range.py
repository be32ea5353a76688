"""Small networks trained alike on the long-range task: who sees what is far away?"""
import copy
import json
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean, median
from typing import Dict, List, NamedTuple, Optional, Sequence

from ..apis.demo_hat import plot_accuracy
from ..complexity import analyse
from ..datasets.long_range import EDGES, SIZE
from ..engine import launch
from ..engine.curves import read_run
from .charts import save_figure, titled_figure
from .run import machine


class Network(NamedTuple):
    """A backbone of the comparison.

    Attributes:
        title: In tables and figures.
        backbone: What differs from the config's, or the whole with ``_delete_``.
    """
    title: str
    backbone: dict


def _fastervit(**settings) -> dict:
    of_arch = ('hierarchical', 'propagate_carriers', 'carrier_bias')
    return dict({k: v for k, v in settings.items() if k not in of_arch},
                arch={k: v for k, v in settings.items() if k in of_arch})


_SWIN = dict(_delete_=True, embed_dims=16, depths=(2, 2, 4), num_heads=(1, 2, 4), window_size=2,
             out_indices=(2, ), drop_path_rate=0.)

NETWORKS: Dict[str, Network] = {
    'carriers': Network('carriers', _fastervit()),
    'windows': Network('windows alone', _fastervit(hierarchical=False)),
    'global': Network('global attention', _fastervit(hierarchical=False, window_size=8)),
    'bias-0': Network('carriers, carrier_bias 0', _fastervit(carrier_bias=0.)),
    'swin': Network('shifted windows (Swin)', dict(_SWIN, type='SwinTransformer')),
    'swin-hat': Network('windows with carriers (SwinHAT)', dict(
        _delete_=True, type='SwinHAT', window_size=2, ct_size=1, out_indices=(2, ),
        arch=dict(embed_dims=16, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8)), drop_path_rate=0.,
        init_cfg=dict(type='Xavier', layer='Linear'))),
    'ct-2': Network('carriers, 2 x 2 a window', _fastervit(ct_size=2)),
    'propagated': Network('carriers, propagated', _fastervit(propagate_carriers=True)),
}


def train(config: str, name: str, seed: int, folder: Path, options: Optional[dict] = None) -> dict:
    """Train one network with the config's schedule and evaluate it; returns its figures.

    Args:
        config: That of the task, ``configs/mmseg/fcn_fvit_long_range.py``.
        name: A key of :data:`NETWORKS`.
        seed: Of weights, order and flips.
        folder: Where the run's logs and its checkpoint go.
        options: Settings that replace the config's, by dotted name. Default none.
    """
    work_dir = folder / f'{name}-{seed}'
    cfg = launch.load_config(config, work_dir=str(work_dir), cfg_options={
        'model.backbone': copy.deepcopy(NETWORKS[name].backbone), 'randomness.seed': seed,
        # The visualizer, which writes the scalars, is one for each name in a process.
        'visualizer.name': str(work_dir), **(options or {})})
    runner = launch.train(cfg)
    curves = read_run(sorted(work_dir.glob('*/vis_data/scalars.json'))[-1])
    said = {key: curve[-1][1] for key, curve in curves.items() if key.startswith('accuracy')}
    return dict(
        accuracy=round(said.pop('accuracy'), 2),
        by_distance={key.split('/')[1]: round(value, 2) for key, value in said.items()},
        seconds_per_step=round(median(value for _, value in curves['time']), 4),
        iterations=runner.iter,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'))


def compare(config: str, names: Sequence[str], seeds: Sequence[int], out: Path, folder: Path,
            command: str, options: Optional[dict] = None) -> dict:
    """Train every network with every seed, but for those that ``out`` has already.

    Args:
        config, folder, options: As in :func:`train`.
        names: Keys of :data:`NETWORKS`.
        seeds: Whole numbers.
        out: JSON of the figures, written after each training.
        command: What was typed, for the report.

    Returns:
        The report.

    Raises:
        ValueError: For figures in ``out`` of another schedule or other images.
    """
    cfg = launch.load_config(config, cfg_options=options)
    about = dict(config=Path(config).name, iterations=cfg.train_cfg.max_iters,
                 batch=cfg.train_dataloader.batch_size, lr=cfg.optim_wrapper.optimizer.lr,
                 options=options or {})
    report = json.loads(out.read_text()) if out.is_file() else dict(about=about, networks={})
    if report['about'] != about:
        raise ValueError(f'out={str(out)!r}: holds figures of {report["about"]}, not of {about}. '
                         'Give another file')
    for seed in seeds:  # one seed of all first: a run that is stopped has compared something
        for name in names:
            found = report['networks'].setdefault(name, dict(runs={}))
            if str(seed) in found['runs']:
                continue
            if 'parameters' not in found:
                total = analyse(config, (SIZE, SIZE), cfg_options={
                    'model.backbone': copy.deepcopy(NETWORKS[name].backbone), **(options or {})}
                                ).total
                found.update(parameters=total.parameters, multiply_adds=total.multiply_adds)
            report.update(command=command, machine=machine())
            found['runs'][str(seed)] = train(config, name, seed, folder, options)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report, indent=1) + '\n')
    return report


def table(report: dict) -> List[str]:
    """The report as lines of a Markdown table, in the order of :data:`NETWORKS`."""
    ranges = [f'{near}-{far}' for near, far in zip(EDGES, EDGES[1:])]
    lines = ['| network | accuracy | each seed | ' + ' | '.join(
        f'{r} px' for r in (ranges[0], ranges[2], ranges[-1])) +
        ' | parameters, k | multiply-adds, M |', '|---' * 8 + '|']
    for name in (n for n in NETWORKS if report['networks'].get(n, {}).get('runs')):
        found = report['networks'][name]
        runs = list(found['runs'].values())
        cells = [f'{mean(r["accuracy"] for r in runs):.1f}',
                 ', '.join(f'{r["accuracy"]:.1f}' for r in runs)]
        cells += [f'{mean(r["by_distance"][d] for r in runs):.1f}'
                  for d in (ranges[0], ranges[2], ranges[-1])]
        cells += [f'{found["parameters"] / 1e3:.0f}', f'{found["multiply_adds"] / 1e6:.1f}']
        lines.append(f'| {NETWORKS[name].title} | ' + ' | '.join(cells) + ' |')
    return lines


def draw(report: dict, stem: Path) -> Path:
    """Draw accuracy over distance, the mean of the seeds; returns the path of the figure."""
    about = report['about']
    figure, axis = titled_figure(
        dict(report, date=max(r['date'] for n in report['networks'].values()
                              for r in n['runs'].values())),
        f'What is seen from far away\n{about["iterations"]} steps of {about["batch"]} images of '
        f'{SIZE} x {SIZE}, the mean of all seeds')
    plot_accuracy(axis, {
        NETWORKS[name].title: _by_distance(report['networks'][name]['runs'].values())
        for name in NETWORKS if report['networks'].get(name, {}).get('runs')})
    return save_figure(figure, stem, 'distance')


def _by_distance(runs) -> Dict[str, float]:
    runs = list(runs)
    return {key: mean(r['by_distance'][key] for r in runs) for key in runs[0]['by_distance']}
