"""Comparison of small networks on the long-range task."""
import copy
import json
import re
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean, median
from typing import Dict, List, NamedTuple, Optional, Sequence

import torch
from mmengine.model import BaseModule
from mmengine.model.weight_init import update_init_info
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS, init_default_scope
from mmseg.models.backbones import SwinTransformer
from torch import nn
from torch.utils.benchmark import Timer

from benchmarks.long_range.demo import plot_accuracy
from benchmarks.reports import machine, origin, save
from benchmarks.speed.charts import save_figure, titled_figure
from fastervit_mm.complexity import analyse
from fastervit_mm.engine import launch
from fastervit_mm.engine.curves import read_run

from .task import SIZE, edges, make_long_range

_STRIDE = 16  # of stage 3's map, which the head reads
_CHECKS = 4  # validations in a training


class Network(NamedTuple):
    """A backbone of the comparison.

    Attributes:
        title: Title in tables and figures.
        backbone: Differences from the config's backbone, or a whole one with ``_delete_``. A
            ``window_size`` of ``'map'`` is the whole map's.
        group: Its table: ``'networks'``, ``'ablations'`` or ``'start'``.
    """
    title: str
    backbone: dict
    group: str = 'networks'


def _fastervit(**settings) -> dict:
    of_arch = ('hierarchical', 'propagate_carriers', 'carrier_bias', 'layer_scale')
    return dict({k: v for k, v in settings.items() if k not in of_arch},
                arch={k: v for k, v in settings.items() if k in of_arch})


_XAVIER = dict(type='Xavier', layer='Linear')  # as of the config
_SWIN = dict(_delete_=True, drop_path_rate=0., out_indices=(2, ), init_cfg=_XAVIER)


def _start(title: str, *init_cfg: dict, **settings) -> Network:
    if init_cfg:
        settings['init_cfg'] = list(init_cfg)
    return Network(title, _fastervit(**settings), 'start')


NETWORKS: Dict[str, Network] = {
    'windows': Network('windows alone', _fastervit(hierarchical=False)),
    'swin': Network('shifted windows (Swin)', dict(
        _SWIN, type='SwinInitialisedByConfig', embed_dims=16, depths=(2, 2, 4),
        num_heads=(1, 2, 4))),
    'swin-hat': Network('windows with carriers (SwinHAT)', dict(
        _SWIN, type='SwinHAT', ct_size=1,
        arch=dict(embed_dims=16, depths=(2, 2, 4, 2), num_heads=(1, 2, 4, 8)))),
    'carriers': Network('carriers', _fastervit()),
    'bias-0': Network('carriers, carrier_bias 0', _fastervit(carrier_bias=0.)),
    'ct-2': Network('carriers, 2 x 2 a window', _fastervit(ct_size=2)),
    'ct-4': Network('carriers, 4 x 4 a window', _fastervit(ct_size=4)),
    'propagated': Network('carriers, propagated', _fastervit(propagate_carriers=True)),
    'global': Network('global attention', _fastervit(hierarchical=False, window_size='map')),
    'windows-4': Network('windows of 4 x 4 cells', _fastervit(window_size=4), 'ablations'),
    'bias-4': _start('carrier_bias 4', carrier_bias=4.),
    'bias-12': _start('carrier_bias 12', carrier_bias=12.),
    'normal': _start('linear layers from a normal of std 0.02',
                     dict(type='TruncNormal', layer='Linear', std=0.02)),
    'flat': _start('position MLPs that give the same everywhere', _XAVIER,
                   dict(type='Scaled', names=r'position\w*\.(mlp\.fc2\.weight|weight2)',
                        factor=0.)),
    'layer-scale': _start('layer scale, 1e-5', layer_scale=1e-5),
    'layer-scale-0.1': _start('layer scale, 0.1', layer_scale=0.1),
    'empty': _start('carriers that start empty', _XAVIER,
                    dict(type='Scaled', names=r'carrier_init\.conv', factor=0.)),
    'sharp': _start('logits of carriers among each other, 4 times as large', _XAVIER,
                    dict(type='Scaled', names=r'carriers?[._]attn\.qkv\.weight', factor=2.,
                         rows=2 / 3)),
}


@MODELS.register_module()
class SwinInitialisedByConfig(SwinTransformer):
    """mmseg's Swin, initialised by ``init_cfg`` without a checkpoint too."""

    def init_weights(self) -> None:
        """Initialise as mmengine's modules do."""
        BaseModule.init_weights(self)


@WEIGHT_INITIALIZERS.register_module()
class Scaled:
    """Initialiser that scales parameters, for the end of ``init_cfg``.

    Args:
        names: Regular expression to search in the parameters' names.
        factor: Factor.
        rows: Share of the rows to scale, from the first: in a layer for queries, keys and values,
            2 / 3 are queries and keys. Default 1, all.

    Raises:
        ValueError: If no parameter's name matches.
    """

    def __init__(self, names: str, factor: float, rows: float = 1.):
        self.names = names
        self.factor = factor
        self.rows = rows

    def __call__(self, module: nn.Module) -> None:
        found = [p for name, p in module.named_parameters() if re.search(self.names, name)]
        if not found:
            raise ValueError(f'names={self.names!r}: no parameter of {type(module).__name__} has '
                             'such a name')
        with torch.no_grad():
            for parameter in found:
                parameter[:round(self.rows * len(parameter))] *= self.factor
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'{type(self).__name__}: {vars(self)}')


class Task(NamedTuple):
    """Data and training of the comparison.

    Attributes:
        config: Config of the task, such as :data:`CONFIG`.
        size: Side of the images, in pixels. Default 128.
        window_size: Side of a window, in cells of 16 pixels. Default 2.
        options: Settings that replace the config's, by dotted name. Default none.
    """
    config: str
    size: int = SIZE
    window_size: int = 2
    options: Optional[dict] = None

    def settings(self, name: Optional[str] = None, size: Optional[int] = None) -> dict:
        """Settings that replace the config's, by dotted name.

        Args:
            name: A key of :data:`NETWORKS`. Default the config's network.
            size: Side of the images. Default the training's.
        """
        size = size or self.size
        found = dict(self.options or {})
        if size != SIZE:
            found['model.data_preprocessor.size'] = (size, size)
            for loader in ('train', 'val', 'test'):
                key = f'{loader}_dataloader.dataset.'
                root = found.get(f'{key}data_root', 'data/long_range')
                found[f'{key}data_root'] = f'{root}_{size}'
        if name:
            backbone = copy.deepcopy(NETWORKS[name].backbone)
            if backbone.get('window_size') == 'map':
                backbone['window_size'] = self.size // _STRIDE
            backbone.setdefault('window_size', self.window_size)
            found['model.backbone'] = backbone
        return found

    def fitting(self) -> List[str]:
        """Networks that fit the windows and differ from each other."""
        return [name for name, network in NETWORKS.items()
                if network.backbone.get('ct_size', 1) <= self.window_size
                and network.backbone.get('window_size') != self.window_size]


def train(task: Task, name: str, seed: int, folder: Path, sizes: Sequence[int] = ()) -> dict:
    """Train and evaluate one network; return its figures.

    Args:
        task: The task.
        name: A key of :data:`NETWORKS`.
        seed: Seed of weights, order and flips.
        folder: Folder for the run's logs and checkpoint.
        sizes: Sides of larger images, in pixels, on which it is evaluated too. Default none.
    """
    work_dir = folder / f'{name}-{task.size}-{seed}'

    def load(size: Optional[int] = None):
        return launch.load_config(task.config, work_dir=str(work_dir), cfg_options={
            'randomness.seed': seed,
            # mmengine shares visualizers of one name, and they write the scalars.
            'visualizer.name': f'{work_dir}-{size}', **task.settings(name, size)})
    for side in (task.size, *sizes):
        make_long_range(load(side).train_dataloader.dataset.data_root, side)
    cfg = load()
    cfg.train_cfg.val_interval = max(cfg.train_cfg.max_iters // _CHECKS, 1)
    runner = launch.train(cfg)
    curves = read_run(sorted(work_dir.glob('*/vis_data/scalars.json'))[-1])
    said = {key: curve[-1][1] for key, curve in curves.items() if key.startswith('accuracy')}
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    larger = {str(size): launch.test(load(size), checkpoint) for size in sizes}
    return dict(
        accuracy=round(said.pop('accuracy'), 2),
        by_step={str(step): round(value, 2) for step, value in curves['accuracy']},
        by_distance=_by_range(said),
        larger={size: dict(accuracy=round(found['accuracy'], 2), by_distance=_by_range(found))
                for size, found in larger.items()},
        iterations=runner.iter,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'))


def _by_range(metrics: dict) -> Dict[str, float]:
    return {key.split('/')[1]: round(float(value), 2) for key, value in metrics.items()
            if '/' in key}


def compare(task: Task, names: Sequence[str], seeds: Sequence[int], out: Path, folder: Path,
            sizes: Sequence[int] = ()) -> dict:
    """Train every network with every seed that ``out`` lacks.

    Args:
        task: The task.
        names: Keys of :data:`NETWORKS`.
        seeds: Whole numbers.
        out: JSON of the figures, written after each training.
        folder, sizes: As in :func:`train`.

    Returns:
        The report.

    Raises:
        ValueError: For figures in ``out`` of another schedule or other images.
    """
    cfg = launch.load_config(task.config, cfg_options=task.settings())
    about = dict(config=Path(task.config).name, iterations=cfg.train_cfg.max_iters,
                 batch=cfg.train_dataloader.batch_size, lr=cfg.optim_wrapper.optimizer.lr,
                 size=task.size, window_size=task.window_size, sizes=list(sizes),
                 options=task.options or {})
    report = _read(out, about)
    for seed in seeds:  # all networks with one seed first, so that a stopped run has compared them
        for name in names:
            found = report['networks'].setdefault(name, dict(runs={}))
            if str(seed) in found['runs']:
                continue
            if 'parameters' not in found:
                total = analyse(task.config, (task.size, task.size),
                                cfg_options=task.settings(name)).total
                found.update(parameters=total.parameters, multiply_adds=total.multiply_adds)
            run = train(task, name, seed, folder, sizes)
            report = _read(out, about)  # another process may have extended it
            report['networks'].setdefault(name, found)['runs'][str(seed)] = run
            save(dict(report, **origin()), out)
    return report


def _read(out: Path, about: dict) -> dict:
    report = json.loads(out.read_text()) if out.is_file() else dict(about=about, networks={})
    if report['about'] != about:
        raise ValueError(f'out={str(out)!r}: holds figures of {report["about"]}, not of {about}. '
                         'Give another file')
    return report


def add_times(task: Task, out: Path, batch: int = 8, rounds: int = 15) -> dict:
    """Time every backbone in ``out``, in turns; return the report.

    A network's ``milliseconds`` are the median for one image, in float32, on one thread.

    Args:
        task: The task of ``out``.
        out: JSON of :func:`compare`, to which times are added.
        batch: Images at a time. Default 8.
        rounds: Number of turns. Default 15.
    """
    report = json.loads(out.read_text())
    init_default_scope('mmseg')
    backbones = {name: MODELS.build(launch.load_config(
        task.config, cfg_options=task.settings(name)).model.backbone)
        for name in report['networks']}
    for backbone in backbones.values():
        backbone.eval()  # Swin's eval() returns None
    images = torch.rand(batch, 3, task.size, task.size)
    laps: Dict[str, List[float]] = {name: [] for name in backbones}
    with torch.inference_mode():
        for _ in range(rounds):
            for name, backbone in backbones.items():
                timer = Timer('backbone(images)', globals=dict(backbone=backbone, images=images))
                laps[name].append(timer.timeit(1).median / batch * 1e3)  # on one thread
    for name, its in laps.items():
        report['networks'][name]['milliseconds'] = round(median(its), 3)
    report['timed'] = dict(machine=machine(), batch=batch, rounds=rounds, threads=1)
    save(report, out)
    return report


def table(report: dict) -> List[str]:
    """Lines of a Markdown table of a report."""
    ends, about = edges(report['about']['size']), report['about']
    ranges = [f'{ends[number]}-{ends[number + 1]}' for number in (0, 2, 4)]
    early = str(about['iterations'] // _CHECKS)
    head = ['network', 'accuracy', 'each seed', f'after {early} steps',
            *(f'{r} px' for r in ranges),
            *(f'at {size} x {size}' for size in about['sizes']),
            'parameters, k', 'multiply-adds, M', 'ms']
    lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    for name in _found(report):
        found = report['networks'][name]
        runs = list(found['runs'].values())
        cells = [f'{mean(r["accuracy"] for r in runs):.1f}',
                 ', '.join(f'{r["accuracy"]:.1f}' for _, r in sorted(found['runs'].items())),
                 f'{mean(r["by_step"][early] for r in runs):.1f}']
        cells += [f'{mean(r["by_distance"][d] for r in runs):.1f}' for d in ranges]
        cells += [f'{mean(r["larger"][str(size)]["accuracy"] for r in runs):.1f}'
                  for size in about['sizes']]
        cells += [f'{found["parameters"] / 1e3:.0f}', f'{found["multiply_adds"] / 1e6:.1f}',
                  f'{found["milliseconds"]:.2f}' if 'milliseconds' in found else '–']
        lines.append(f'| {NETWORKS[name].title} | ' + ' | '.join(cells) + ' |')
    return lines


def draw(report: dict, stem: Path) -> Path:
    """Draw mean accuracy over distance; return the figure's path."""
    about = report['about']
    figure, axis = titled_figure(
        dict(report, date=max(r['date'] for n in report['networks'].values()
                              for r in n['runs'].values())),
        f'What is seen from far away\n{about["iterations"]} steps of {about["batch"]} images of '
        f'{about["size"]} x {about["size"]}, the mean of all seeds')
    plot_accuracy(axis, {
        NETWORKS[name].title: _mean_by_distance(report['networks'][name]['runs'].values())
        for name in _found(report) if NETWORKS[name].group == 'networks'})
    return save_figure(figure, stem, 'distance')


def _found(report: dict) -> List[str]:
    return [name for name in NETWORKS if report['networks'].get(name, {}).get('runs')]


def _mean_by_distance(runs) -> Dict[str, float]:
    runs = list(runs)
    return {key: mean(r['by_distance'][key] for r in runs) for key in runs[0]['by_distance']}
