"""Training, evaluation and pictures in one go, for a newcomer."""
import json
import os
import shutil
import time
from pathlib import Path
from typing import Dict, List

from rich.console import Console
from rich.table import Table

from . import launch
from .pictures import contact_sheet


def run_demo(config: str, work_dir: str) -> Dict[str, float]:
    """Train what a config says, evaluate the result, leave table and pictures in ``work_dir``.

    Args:
        config: A config whose data set makes itself, such as ``cascade_fvit_shapes.py``.
        work_dir: Folder of the results; what an earlier demo left there is replaced.

    Returns:
        The metrics of the final evaluation.
    """
    console = Console()
    folder = Path(work_dir)
    if (folder / 'demo.json').is_file():  # an earlier demo's, and nothing else's
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'demo.json').write_text('{}')

    console.rule(f'1/3  Training {Path(config).stem} from scratch: 3 to 5 minutes on two cores')
    started = time.perf_counter()
    runner = launch.train(launch.load_config(config, work_dir=str(folder)))
    training = time.perf_counter() - started
    checkpoint = Path((folder / 'last_checkpoint').read_text())

    console.rule('2/3  Evaluating on pictures it has not seen')
    drawn = folder / 'predictions'
    cfg = launch.load_config(config, work_dir=str(folder / 'evaluation'))
    metrics = launch.test(cfg, str(checkpoint), show_dir=str(drawn))

    console.rule('3/3  Pictures')
    contact_sheet(sorted(drawn.glob('*.*'))[:8], folder / 'predictions.png',
                  'ground truth (left) and prediction (right), four at a time')
    _table(metrics, console)
    facts = dict(metrics=metrics, training_seconds=round(training, 1), config=config,
                 iterations=runner.iter)
    (folder / 'demo.json').write_text(json.dumps(facts, indent=2))
    console.print(f'Trained {runner.iter} iterations in {training / 60:.1f} minutes.\n')
    for name, what in (('predictions.png', 'predictions beside ground truth'),
                       ('curves.png', 'loss and metrics over training'),
                       ('predictions', 'every validation picture'),
                       (checkpoint.name, 'the trained detector'),
                       ('demo.json', 'the figures')):
        console.print(f'  {folder / name}  [dim]{what}[/dim]', highlight=False, soft_wrap=True)
    console.print('\n'.join(_next_steps(config, os.path.relpath(checkpoint))), highlight=False,
                  soft_wrap=True)
    return metrics


def _table(metrics: Dict[str, float], console: Console) -> None:
    table = Table(title='COCO metrics on the validation pictures')
    columns = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m')
    table.add_column('')
    for column in columns:
        table.add_column(column, justify='right')
    for kind in ('bbox', 'segm'):
        table.add_row(kind, *(f'{metrics[f"coco/{kind}_{c}"]:.3f}' for c in columns))
    console.print(table)


def _next_steps(config: str, checkpoint: str) -> List[str]:
    return [
        '', 'What to try next:',
        f'  .venv/bin/python tools/test.py {config} {checkpoint} --tta',
        f'  .venv/bin/python tools/train.py {config} --work-dir work_dirs/ln '
        '--cfg-options model.backbone.out_norm=LN   # see why BN is the default',
        '  tools/dist_train.sh configs/mmdet/cascade_fvit.py 8   '
        '# the real thing: COCO in data/coco, 8 GPUs (README)',
    ]
