"""Train networks with carriers and without: `make demo-hat`."""
import argparse
from pathlib import Path
from typing import Dict, Mapping, NamedTuple, Optional

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.demo import folder as demo_folder
from benchmarks.demo.run import say_files, train
from benchmarks.long_range.task import (
    CLASSES,
    PALETTE,
    inside,
    majority_class,
    make_long_range,
    read_discs,
)
from fastervit_mm.command_line import errors_in_one_line
from fastervit_mm.engine import launch
from fastervit_mm.insight import load_subject
from fastervit_mm.insight.drawing import draw_overview, look

CONFIG = str(Path(__file__).resolve().parents[1] / 'configs/fcn_fvit_long_range.py')
_SHOWN = 5  # images in the figure


class _Trained(NamedTuple):
    """A trained network, its metrics and label maps."""
    checkpoint: str
    metrics: Dict[str, float]
    seconds: Optional[float]
    maps: Path
    images: Path


def run_hat_demo(configs: Mapping[str, str], work_dir: str) -> Dict[str, Dict[str, float]]:
    """Train on the long-range task and draw the predictions.

    Args:
        configs: A config of the task for each network, by its name in the figure; the first has
            carriers.
        work_dir: Folder for the results. A stopped demo in it is resumed; a finished one is
            replaced once this one has finished (:func:`~benchmarks.demo.folder.begin`).

    Returns:
        The metrics of each network.
    """
    console = Console()
    folder = Path(work_dir)
    settings = repr([launch.load_config(config) for config in configs.values()])
    goes_on = demo_folder.begin(folder, settings, console)
    found = {name: _trained(name, config, folder / Path(config).stem, goes_on, console)
             for name, config in configs.items()}
    metrics = {name: one.metrics for name, one in found.items()}

    console.rule('How far each network sees')
    console.print(_table(metrics))
    figure = folder / 'long_range.png'
    _draw(found, figure)
    attention = folder / 'attention.jpg'
    _draw_attention(next(iter(configs.values())), next(iter(found.values())), attention)
    demo_folder.finish(folder, dict(
        metrics=metrics, configs=dict(configs),
        training_seconds={name: one.seconds for name, one in found.items()}))
    say_files(folder, console, {
        figure.name: 'accuracy over distance, and predictions of each network',
        attention.name: 'one disc\'s attention, through its carriers',
        'demo.json': 'the figures'})
    console.print('\nMore networks, three seeds each: docs/hierarchical_attention.md')
    return metrics


def plot_accuracy(axis, curves: Mapping[str, Mapping[str, float]]) -> None:
    """Draw accuracy over distance.

    Args:
        axis: Of matplotlib.
        curves: Per cent by range of distances, such as ``'16-36'``, for each network; all have the
            same ranges.
    """
    ends = sorted({int(end) for key in next(iter(curves.values())) for end in key.split('-')})
    for number, (name, by_distance) in enumerate(curves.items()):
        middles = [sum(map(float, key.split('-'))) / 2 for key in by_distance]
        axis.plot(middles, list(by_distance.values()), marker='os^vDPX*'[number % 8], label=name)
    chance = 100 / len(CLASSES)
    axis.axhline(chance, color='gray', linestyle='--', linewidth=0.8)
    axis.annotate('chance', (ends[0], chance), xytext=(0, 3), textcoords='offset points',
                  fontsize=8, color='gray')
    axis.set(xlabel='pixels from the bar to the disc',
             ylabel='discs of the right colour, per cent',
             ylim=(0, 104), xlim=(ends[0], ends[-1]), xticks=ends)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _trained(name: str, config: str, folder: Path, goes_on: bool, console: Console) -> _Trained:
    console.rule(f'Training a network {name}')
    checkpoint, seconds, _ = train(config, folder, goes_on)
    cfg = launch.load_config(config, work_dir=str(folder / 'evaluation'))
    dataset = cfg.test_dataloader.dataset
    metrics = launch.test(cfg, checkpoint, out=str(folder / 'label_maps'))
    return _Trained(checkpoint, {key: float(value) for key, value in metrics.items()}, seconds,
                    folder / 'label_maps', Path(dataset.data_root) / dataset.data_prefix.img_path)


def _table(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title='Discs of the right colour, per cent (chance is 25)')
    table.add_column('pixels from the bar')
    for name in metrics:
        table.add_column(name, justify='right')
    for key in next(iter(metrics.values())):
        table.add_row(key.replace('accuracy/', '').replace('accuracy', 'all'), *(
            f'{one[key]:.1f}' for one in metrics.values()))
    return table


def _draw(found: Mapping[str, _Trained], path: Path) -> None:
    from matplotlib.figure import Figure
    one = next(iter(found.values()))
    figure = Figure(figsize=(12, 1.75 * (1 + len(found)) + 0.4), layout='constrained')
    curve, pictures = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    figure.suptitle('What colour is the bar? Each disc has to tell, however far away it is')
    axis = curve.subplots()
    plot_accuracy(axis, {name: {key.split('/')[1]: value for key, value in trained.metrics.items()
                                if '/' in key} for name, trained in found.items()})
    discs = read_discs(one.images.parent, one.images.name)
    names = sorted(path.name for path in one.maps.iterdir())[:_SHOWN]
    axes = pictures.subplots(1 + len(found), len(names), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ['the image', *found]):
        axis.set_ylabel(name, fontsize=9)
    for column, name in zip(axes.T, names):
        image = np.asarray(Image.open(one.images / name).convert('RGB'))
        truth = _labels(one.images.parent / 'labels' / one.images.name / name)
        column[0].imshow(image)
        for axis, trained in zip(column[1:], found.values()):
            said, shown, right = _labels(trained.maps / name), image.copy(), 0
            for disc in discs[name]:
                pixels = inside(disc, said.shape)
                label = majority_class(said[pixels])
                shown[pixels] = PALETTE[label]
                right += label == majority_class(truth[pixels])
            axis.imshow(shown)
            axis.set_xlabel(f'{right} of {len(discs[name])} right', fontsize=9)
    figure.savefig(path, dpi=110)


def _draw_attention(config: str, trained: _Trained, path: Path) -> None:
    """Draw the attention of the first image's furthest disc."""
    discs = read_discs(trained.images.parent, trained.images.name)
    name = min(discs)
    x, y, _ = max(discs[name], key=lambda disc: disc[2])
    draw_overview(look(load_subject(config, trained.checkpoint), trained.images / name, (x, y)),
                  path)


def _labels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.long_range.demo',
                                     description=__doc__)
    parser.add_argument('--carriers', default=CONFIG, help='config of the network with carriers')
    parser.add_argument('--windows', default=CONFIG.replace('.py', '_windows.py'),
                        help='config of the network without')
    parser.add_argument('--work-dir', default='work_dirs/demo-hat', help='folder for all results')
    args = parser.parse_args()
    with errors_in_one_line('demo_hat', go_on='the same command goes on'):
        make_long_range(launch.load_config(args.carriers).train_dataloader.dataset.data_root)
        run_hat_demo({'with carriers': args.carriers, 'without carriers': args.windows},
                     args.work_dir)


if __name__ == '__main__':
    main()
