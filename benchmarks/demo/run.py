"""Training, evaluation and figures in one run, for a newcomer."""
import os
import time
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional

from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from benchmarks.demo import folder as demo_folder
from fastervit_mm.apis.contact_sheet import contact_sheet
from fastervit_mm.engine import launch

_SOME = 12  # number of a classifier's validation images to draw


def run_demo(config: str, work_dir: str) -> Dict[str, float]:
    """Train a config, evaluate it, write a table and figures.

    Args:
        config: A config of mmdet, mmseg or mmpretrain that trains in minutes and whose dataset
            exists, such as ``cascade_fvit_shapes.py``.
        work_dir: Folder for the results. A stopped demo in it is resumed; a finished one is
            replaced once this one has finished (:func:`~benchmarks.demo.folder.begin`).

    Returns:
        The metrics of the final evaluation.
    """
    console, folder = Console(), Path(work_dir)
    cfg = launch.load_config(config, work_dir=str(folder / 'evaluation'))
    goes_on = demo_folder.begin(folder, repr(launch.load_config(config)), console)
    scope = cfg.default_scope
    minutes = 'about 5' if scope == 'mmpretrain' else '5 to 11'
    console.rule(f'1/3  Training {Path(config).stem} from scratch: {minutes} minutes on two cores')
    trained = train(config, folder, goes_on)

    console.rule('2/3  Evaluating on images it has not seen')
    drawn = folder / 'predictions'
    if scope == 'mmpretrain':
        _draw_some(cfg, drawn)
    metrics = launch.test(cfg, trained.checkpoint,
                          out=str(folder / 'label_maps') if scope == 'mmseg' else None,
                          show_dir=None if scope == 'mmpretrain' else str(drawn))

    console.rule('3/3  Figures')
    shown, title, columns = (
        (_SOME, 'ground truth and prediction', 4) if scope == 'mmpretrain' else
        (8, 'ground truth (left) and prediction (right), four at a time', 2))
    contact_sheet(sorted(drawn.glob('*.*'))[:shown], folder / 'predictions.png', title, columns)
    table = _table(metrics)
    console.print(table)
    with (folder / 'table.txt').open('w') as file:
        Console(file=file, width=80).print(table)
    # mmseg's metrics are numpy scalars.
    demo_folder.finish(folder, dict(
        metrics={name: float(value) for name, value in metrics.items()}, config=config,
        training_seconds=trained.seconds, iterations=trained.iterations))
    console.print(f'Trained {trained.iterations} iterations' + (
        f' in {trained.seconds / 60:.1f} minutes.\n' if trained.seconds else ', with a stop.\n'))
    say_files(folder, console, {
        'predictions.png': 'predictions beside ground truth',
        'curves.png': 'loss and metrics over training',
        'predictions': 'images of the validation',
        **({'label_maps': 'its predictions as label maps'} if scope == 'mmseg' else {}),
        Path(trained.checkpoint).name: 'the trained network',
        'table.txt': 'the table above', 'demo.json': 'the figures'})
    console.print('\n'.join(_next_steps(config, os.path.relpath(trained.checkpoint), scope)),
                  highlight=False, soft_wrap=True)
    return metrics


class Trained(NamedTuple):
    """Result of a training.

    Attributes:
        checkpoint: Path of the last checkpoint.
        seconds: Duration; None if it had been stopped.
        iterations: Number of iterations.
    """
    checkpoint: str
    seconds: Optional[float]
    iterations: int


def train(config: str, folder: Path, goes_on: bool) -> Trained:
    """Train as a config says.

    Args:
        config: The config.
        folder: For logs and checkpoints.
        goes_on: Whether to resume what is in the folder.
    """
    cfg = launch.load_config(config, work_dir=str(folder))
    cfg.visualizer.name = str(folder)  # mmengine shares visualizers of one name; it writes scalars
    started = time.perf_counter()
    runner = launch.train(cfg, resume='auto' if goes_on else None)
    seconds = None if goes_on else round(time.perf_counter() - started, 1)
    return Trained((folder / 'last_checkpoint').read_text(), seconds, runner.iter)


def say_files(folder: Path, console: Console, files: Mapping[str, str]) -> None:
    """Print a demo's files and their meaning."""
    for name, what in files.items():
        console.print(f'  {folder / name}  [dim]{what}[/dim]', highlight=False, soft_wrap=True)


def _draw_some(cfg: Config, folder: Path) -> None:
    """Let mmpretrain's hook draw images at equal steps."""
    from mmpretrain.registry import DATASETS
    count = len(DATASETS.build(cfg.test_dataloader.dataset))
    cfg.default_hooks.visualization.update(
        enable=True, interval=-(-count // _SOME), out_dir=str(folder), resize=320)


def _table(metrics: Dict[str, float]) -> Table:
    table = Table(title='On the validation images', min_width=40)
    table.add_column('metric')
    table.add_column('value', justify='right')
    for name, value in metrics.items():
        if value >= 0:  # pycocotools gives -1 for sizes without objects
            table.add_row(name, f'{value:.3f}')
    return table


def _next_steps(config: str, checkpoint: str, scope: str) -> List[str]:
    if scope == 'mmpretrain':
        return [
            '', 'What to try next:',
            '  .venv/bin/python tools/train.py configs/mmseg/upernet_fvit_shapes.py --work-dir '
            'work_dirs/pretrained \\\n    --cfg-options model.backbone.init_cfg._delete_=True '
            'model.backbone.init_cfg.type=Pretrained '
            f'model.backbone.init_cfg.checkpoint={checkpoint}   # it starts a segmentor',
            '  .venv/bin/python tools/test.py configs/mmpretrain/fastervit-2_in1k.py '
            'fastervit://2-224-1k   # the real thing: ImageNet in data/imagenet',
        ]
    other, data = (('mmseg/upernet_fvit.py', 'ADE20K in data/ade') if scope == 'mmseg'
                   else ('mmdet/cascade_fvit.py', 'COCO in data/coco'))
    return [
        '', 'What to try next:',
        f'  .venv/bin/python tools/test.py {config} {checkpoint} --tta',
        f'  .venv/bin/python tools/train.py {config} --work-dir work_dirs/ln '
        '--cfg-options model.backbone.out_norm=LN   # see why BN is the default',
        f'  tools/dist_train.sh configs/{other} 8   '
        f'# the real thing: {data}, 8 GPUs (docs/train.md)',
    ]
