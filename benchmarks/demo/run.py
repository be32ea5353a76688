"""Training, evaluation and figures in one run, for a newcomer."""
import os
import time
from pathlib import Path
from typing import Dict, List

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.demo import folder as demo_folder
from fastervit_mm.apis.contact_sheet import contact_sheet
from fastervit_mm.engine import launch

_SOME = 12  # a classifier's validation images that are drawn, of thousands


def run_demo(config: str, work_dir: str) -> Dict[str, float]:
    """Train as a config says, evaluate the result, and write a table and figures to ``work_dir``.

    Args:
        config: A config of mmdet, mmseg or mmpretrain that trains in minutes and whose dataset is
            there, such as ``cascade_fvit_shapes.py``.
        work_dir: Folder for the results. A demo that was stopped there goes on; a finished one is
            replaced, once this one is finished (:func:`~benchmarks.demo.folder.begin`).

    Returns:
        The metrics of the final evaluation.
    """
    console = Console()
    folder = Path(work_dir)
    cfg = launch.load_config(config)
    goes_on = demo_folder.begin(folder, repr(cfg), console)
    cfg.work_dir = str(folder)

    segments, classifies = (cfg.default_scope == name for name in ('mmseg', 'mmpretrain'))
    minutes = 'about 5' if classifies else '5 to 11'
    console.rule(
        f'1/3  Training {Path(config).stem} from scratch: {minutes} minutes on two cores')
    started = time.perf_counter()
    runner = launch.train(cfg, resume='auto' if goes_on else None)
    training = None if goes_on else round(time.perf_counter() - started, 1)
    checkpoint = Path((folder / 'last_checkpoint').read_text())

    console.rule('2/3  Evaluating on images it has not seen')
    cfg = launch.load_config(config, work_dir=str(folder / 'evaluation'))
    drawn, maps = folder / 'predictions', folder / 'label_maps'
    if classifies:
        _draw_some(cfg, drawn)
    metrics = launch.test(cfg, str(checkpoint), out=str(maps) if segments else None,
                          show_dir=None if classifies else str(drawn))

    console.rule('3/3  Figures')
    if classifies:
        contact_sheet(sorted(drawn.glob('*.*'))[:_SOME], folder / 'predictions.png',
                      'ground truth and prediction', columns=4)
        table = _accuracy_table(metrics)
    else:
        contact_sheet(sorted(drawn.glob('*.*'))[:8], folder / 'predictions.png',
                      'ground truth (left) and prediction (right), four at a time')
        table = _iou_table(metrics, cfg, maps) if segments else _coco_table(metrics)
    console.print(table)
    with (folder / 'table.txt').open('w') as file:
        Console(file=file, width=80).print(table)
    # mmseg's metrics are numpy scalars.
    facts = dict(metrics={name: float(value) for name, value in metrics.items()},
                 training_seconds=training, config=config, iterations=runner.iter)
    demo_folder.finish(folder, facts)
    console.print(f'Trained {runner.iter} iterations' + (
        f' in {training / 60:.1f} minutes.\n' if training else ', with a stop.\n'))
    for name, what in (('predictions.png', 'predictions beside ground truth'),
                       ('curves.png', 'loss and metrics over training'),
                       ('predictions', f'{"some" if classifies else "every"} validation image'
                        + 's' * classifies),
                       *([('label_maps', 'its prediction as label maps')] if segments else []),
                       (checkpoint.name, 'the trained network'),
                       ('table.txt', 'the table above'),
                       ('demo.json', 'the figures')):
        console.print(f'  {folder / name}  [dim]{what}[/dim]', highlight=False, soft_wrap=True)
    console.print('\n'.join(_next_steps(config, os.path.relpath(checkpoint), cfg.default_scope)),
                  highlight=False, soft_wrap=True)
    return metrics


def _draw_some(cfg: Config, folder: Path) -> None:
    """Let mmpretrain's hook draw images from all over the test dataset."""
    from mmpretrain.registry import DATASETS
    count = len(DATASETS.build(cfg.test_dataloader.dataset))
    cfg.default_hooks.visualization.update(
        enable=True, interval=-(-count // _SOME), out_dir=str(folder), resize=320)


def _accuracy_table(metrics: Dict[str, float]) -> Table:
    table = Table(title='Accuracy on the validation images, per cent', min_width=50)
    for name in metrics:
        table.add_column(name.removeprefix('accuracy/'), justify='right')
    table.add_row(*(f'{value:.2f}' for value in metrics.values()))
    return table


def _coco_table(metrics: Dict[str, float]) -> Table:
    table = Table(title='COCO metrics on the validation images')
    columns = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m')
    table.add_column('')
    for column in columns:
        table.add_column(column, justify='right')
    for kind in ('bbox', 'segm'):
        table.add_row(kind, *(f'{metrics[f"coco/{kind}_{c}"]:.3f}' for c in columns))
    return table


def _iou_table(metrics: Dict[str, float], cfg: Config, maps: Path) -> Table:
    """IoU and accuracy of every class, from the label maps that the evaluation wrote."""
    from mmseg.evaluation import IoUMetric
    from mmseg.registry import DATASETS
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    classes = dataset.metainfo['classes']
    areas = []
    for index in range(len(dataset)):
        truth = Path(dataset.get_data_info(index)['seg_map_path'])
        pair = (torch.from_numpy(np.array(Image.open(path))) for path in (maps / truth.name, truth))
        areas.append(IoUMetric.intersect_and_union(*pair, len(classes), dataset.ignore_index))
    figures = IoUMetric.total_area_to_metrics(*map(sum, zip(*areas)))
    table = Table(title='Validation, per cent', show_footer=True)
    table.add_column('class', 'mean')
    table.add_column('IoU', f'{metrics["mIoU"]:.2f}', justify='right')
    table.add_column('Acc', f'{metrics["mAcc"]:.2f}', justify='right')
    for name, iou, acc in zip(classes, figures['IoU'], figures['Acc']):
        table.add_row(name, f'{100 * iou:.2f}', f'{100 * acc:.2f}')
    table.caption = f'all pixels (aAcc): {metrics["aAcc"]:.2f}'
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
        f'# the real thing: {data}, 8 GPUs (README)',
    ]
