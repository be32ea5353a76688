"""The runs of each part."""
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

from mmengine.config import Config

CONFIG = Path(__file__).resolve().parents[1] / 'configs/fastervit_photographs.py'
# The backbone that transfers start from where the part before was not run.
PRETRAINED = Path(__file__).with_name('pretrained.safetensors')
CAMVID_CLASSES = ('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
                  'pedestrian', 'bicyclist')
BACKBONE = 'model.backbone'


@dataclass(frozen=True)
class Task:
    """A dataset and how it is trained on.

    Attributes:
        folder: Name in the folder of data.
        title: In tables.
        metric: Key of the metric in tables.
        new_config: Arguments of ``tools/new_config.py``; none for the classifier's own config.
        best: Whether the checkpoint with the best validation is tested, not the last: only where
            the test has images of its own.
    """
    folder: str
    title: str
    metric: str
    new_config: Tuple[str, ...] = ()
    best: bool = False


TASKS: Dict[str, Task] = {
    'imagenette': Task('imagenette128', 'Imagenette, 3925 images', 'accuracy/top1'),
    'camvid': Task('camvid', 'CamVid, test', 'mIoU', ('seg', '--classes', *CAMVID_CLASSES), True),
    'nuclei': Task('nuclei', 'nuclei, val', 'coco/segm_mAP_50', ('det', )),
    'cells': Task('bccd', 'BCCD, test', 'coco/bbox_mAP_50', ('det', ), True),
}


@dataclass(frozen=True)
class Run:
    """A training and its tests.

    Attributes:
        name: Folder in the work directory and key of the results.
        task: A key of :data:`TASKS`.
        options: Settings that replace the config's, by dotted name.
        seed: Seed of weights, order and augmentation.
        start: Name of the run whose backbone it starts from; None for random weights.
        split: Tested split; settings are compared on ``'val'``.
        tta: Whether the test is repeated with test-time augmentation.
    """
    name: str
    task: str
    options: Dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    start: Optional[str] = None
    split: str = 'test'
    tta: bool = False


def parts() -> Dict[str, List[Run]]:
    """Runs by part, in the order of the campaign."""
    runs = {'pretrain': [Run('pretrain', 'imagenette')]}
    for task, options in (('camvid', _schedule(1000)), ('nuclei', _nuclei(3)),
                          ('cells', _schedule(16, 'max_epochs'))):
        runs[f'transfer-{task}'] = [
            Run(f'{task}-{title}-{seed}', task, {BACKBONE: _fastervit(), **options}, seed, start,
                tta=start is not None and task != 'nuclei')  # which leaves masks out
            for seed in (0, 1)
            for title, start in (('scratch', None), ('pretrained', 'pretrain'))]
    runs['transfer-nuclei-longer'] = [
        Run('nuclei-longer', 'nuclei', {BACKBONE: _fastervit(), **_nuclei(9)}, 0, 'pretrain')]
    runs['settings-camvid'] = list(_settings('camvid', _schedule(300), {
        'crop 224': _crop(224), 'crop 448': _crop(448)}))
    runs['settings-cells'] = list(_settings('cells', _schedule(6, 'max_epochs'), {}))
    runs['compare-pretrain'] = [
        Run(f'pretrain-{name}', 'imagenette', {
            BACKBONE: dict(backbone, out_indices=(3, )), 'model.head.in_channels': widths[-1],
            **_schedule(12, 'max_epochs'), 'custom_hooks.3.schedule.0.action_epoch': 9,
            'custom_hooks.2.momentum': 0.008})  # of fewer steps
        for name, (backbone, widths) in networks().items()]
    for size, batch, iterations in ((256, 4, 300), (480, 2, 200)):
        runs[f'compare-{size}'] = [
            Run(f'{name}-{size}-{title}-{seed}', 'camvid', {
                BACKBONE: backbone, 'model.decode_head.in_channels': widths,
                'model.auxiliary_head.in_channels': widths[2], **_crop(size),
                **_schedule(iterations), 'train_dataloader.batch_size': batch}, seed, start)
            for name, (backbone, widths) in networks().items()
            for title, start in (('scratch', None), ('pretrained', f'pretrain-{name}'))
            for seed in (0, 1)]
    return runs


def networks() -> Dict[str, Tuple[dict, List[int]]]:
    """Backbones of equal multiply-adds at 256 x 256 (1.0 G, 5 % more or less), and their widths."""
    ours = [32, 64, 128, 256]
    other = dict(out_indices=(0, 1, 2, 3), drop_path_rate=0.1, _delete_=True)
    return {
        'fastervit': (_fastervit(), ours),
        'published': (_fastervit(carrier_bias=0.), ours),
        'windows': (_fastervit(hierarchical=False, depths=(1, 2, 9, 4)), ours),
        'resnet': (dict(other, type='mmpretrain.ResNet', depth=18, stem_channels=40,
                        base_channels=40), [40, 80, 160, 320]),
        'convnext': (dict(other, type='mmpretrain.ConvNeXt', gap_before_final_norm=False,
                          arch=dict(depths=[2, 2, 6, 2], channels=[48, 96, 192, 384])),
                     [48, 96, 192, 384]),
        'swin': (dict(other, type='mmpretrain.SwinTransformer', img_size=128, window_size=4,
                      pad_small_map=True,
                      init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.),
                      arch=dict(embed_dims=40, depths=[2, 2, 6, 2], num_heads=[2, 4, 8, 16])),
                 [40, 80, 160, 320]),
    }


def _settings(task: str, budget: Dict[str, Any], more: Dict[str, dict]) -> Iterable[Run]:
    """One setting at a time, on the validation images, from the pretrained network."""
    lr, decay = 'optim_wrapper.optimizer.lr', 'optim_wrapper.paramwise_cfg'
    changes: Dict[str, dict] = {
        **{f'drop path {rate}': {BACKBONE: _fastervit(drop_path_rate=rate)}
           for rate in (0.3, 0.5)},
        **{f'windows {a} and {b}': {BACKBONE: _fastervit(window_size=(a, b))}
           for a, b in ((7, 7), (20, 10))},
        **{f'lr {rate}': {lr: rate} for rate in (3e-4, 3e-3)},
        **{f'layer decay {rate}': {decay: dict(_delete_=True, layer_decay_rate=rate)}
           for rate in (0.7, 0.9)},
        **{f'frozen stages {n}': {BACKBONE: _fastervit(frozen_stages=n)} for n in (1, 4)},
        **more}
    for seed in (0, 1, 2):
        yield Run(f'{task}-base-{seed}', task, {BACKBONE: _fastervit(), **budget}, seed,
                  'pretrain', 'val')
    for title, change in changes.items():
        yield Run(f'{task}-{title.replace(" ", "-")}', task,
                  {BACKBONE: _fastervit(), **budget, **change}, 0, 'pretrain', 'val')


@cache
def _pretrained() -> dict:
    return Config.fromfile(CONFIG).model.backbone.to_dict()


def _fastervit(**changes: Any) -> dict:
    """The pretrained network with changes, of FasterViT's arguments or of its ``arch``."""
    backbone = deepcopy(_pretrained())
    for name in ('hierarchical', 'carrier_bias', 'depths'):
        if name in changes:
            backbone['arch'][name] = changes.pop(name)
    del backbone['out_indices']
    return dict(backbone, _delete_=True, **changes)


def _schedule(number: int, unit: str = 'max_iters') -> Dict[str, int]:
    """Length of a training, with at most four validations."""
    interval = -(-number // 4)
    return {f'train_cfg.{unit}': number, 'param_scheduler.1.end': number,
            'train_cfg.val_interval': interval, 'default_hooks.checkpoint.interval': interval}


def _nuclei(epochs: int) -> Dict[str, Any]:
    scales = {f'{split}_dataloader.dataset.pipeline.{n}.scale': (384, 384)
              for split, n in (('train', 2), ('val', 1), ('test', 1))}
    # A validation takes as long as an epoch.
    return {**scales, **_schedule(epochs, 'max_epochs'), 'train_cfg.val_interval': 3}


def _crop(side: int) -> Dict[str, Any]:
    return {'model.data_preprocessor.size': (side, side),
            'train_dataloader.dataset.pipeline.3.crop_size': (side, side)}
