"""Runs that leave logs: samples of COCO and ADE20K, real runners, tiny networks."""
import json
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

from fastervit_mm.engine import launch
from tests.conftest import REPO, TINY
from tests.running import run_tool

SEGMENTOR = f"""
_base_ = '{REPO}/configs/mmseg/upernet_fvit.py'
data_root = 'ROOT'
load, resize = dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64))
annotate = dict(type='LoadAnnotations', reduce_zero_label=True)
pack = dict(type='PackSegInputs')
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(
    data_root=data_root, indices=8, pipeline=[load, annotate, resize, pack]))
val_dataloader = dict(**loader, dataset=dict(
    data_root=data_root, indices=2, pipeline=[load, resize, annotate, pack]))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{TINY}), init_cfg=None),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=16),
    data_preprocessor=dict(size=(64, 64)), test_cfg=dict(_delete_=True, mode='whole'))
optim_wrapper = dict(type='OptimWrapper')
param_scheduler = None
train_cfg = dict(max_iters=8, val_interval=4)
default_hooks = dict(logger=dict(interval=2), checkpoint=dict(interval=4))
randomness = dict(seed=0)
"""
# In place of its backbone, with maps of the same widths.
SWIN_HAT = dict(_delete_=True, type='SwinHAT', arch=dict(
    embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 4)), drop_path_rate=0.)
DETECTOR = f"""
_base_ = '{REPO}/configs/mmdet/cascade_fvit_shapes.py'
data_root = 'ROOT/'
dataset_type = 'CocoDataset'
num_classes = 80
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(96, 96)),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                          'scale_factor'))]
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(
    _delete_=True, type=dataset_type, data_root=data_root, indices=8, pipeline=pipeline,
    ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')), **loader)
val_dataloader = dict(dataset=dict(
    _delete_=True, type=dataset_type, data_root=data_root, indices=2, pipeline=pipeline,
    test_mode=True, ann_file='annotations/instances_val2017.json',
    data_prefix=dict(img='val2017/')), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{TINY})),
    neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=[dict(
        type='ConvFCBBoxHead', num_shared_convs=0, num_shared_fcs=1, in_channels=48,
        fc_out_channels=32, roi_feat_size=7, num_classes=80, reg_class_agnostic=True,
        reg_decoded_bbox=True, bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.] * 4, target_stds=[0.1] * 4),
        loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='GIoULoss'))] * 3,
        mask_head=dict(num_classes=80)),
    test_cfg=dict(rcnn=dict(score_thr=0., max_per_img=5)))
train_cfg = dict(max_epochs=2, val_interval=1)
param_scheduler = None
default_hooks = dict(logger=dict(interval=3))  # logs the third of each four
"""


class Run(NamedTuple):
    work_dir: Path
    first: str  # console output of the run and, where there was one, of its resumption
    second: str = ''


def train(config, *options, without=()):
    """Console output of tools/train.py, run beside the config."""
    done = run_tool('train.py', config, *options, cwd=config.parent, without=without, warn=True,
                    environment={'CUDA_VISIBLE_DEVICES': ''})  # the logs of a CPU
    assert done.returncode == 0, done.output[-3000:]
    return done.output


def once(folder: Path, text: str, name: str, resume: str, options: list, **kwargs) -> Run:
    """A run and its resumption, made once for all pytest-xdist workers, which only read it."""
    said = folder / 'said.json'
    with FileLock(folder.with_name(f'{folder.name}.lock')):
        if not said.is_file():
            folder.mkdir(exist_ok=True)
            config = folder / f'{name}.py'
            config.write_text(text)
            work_dir = folder / 'work_dirs' / name
            outputs = [train(config), train(config, '--resume', str(work_dir / resume),
                                            '--cfg-options', *options, **kwargs)]
            said.write_text(json.dumps(outputs))
    return Run(folder / 'work_dirs' / name, *json.loads(said.read_text()))


@pytest.fixture(scope='session')
def resumed(session_folder, tiny_ade20k) -> Run:
    """A segmentor: 8 iterations, then from the 4th again to the 12th, without TensorBoard."""
    return once(session_folder / 'resumed', SEGMENTOR.replace('ROOT', str(tiny_ade20k)),
                'tiny_segmentor', 'iter_4.pth', ['train_cfg.max_iters=12'],
                without=['tensorboard'])


@pytest.fixture(scope='session')
def by_epoch(session_folder, tiny_coco) -> Run:
    """A detector: 2 epochs of 4 iterations, then from the first again to the third.

    An evaluation follows each epoch.
    """
    return once(session_folder / 'by_epoch', DETECTOR.replace('ROOT', str(tiny_coco)),
                'tiny_detector', 'epoch_1.pth', ['train_cfg.max_epochs=3'])


@pytest.fixture
def built(monkeypatch):
    """The configs that would have been run."""
    seen = []

    class Stop(Exception):
        pass

    def stop(cfg):
        seen.append(cfg)
        raise Stop

    monkeypatch.setattr(launch, 'build_runner', stop)
    # No data are here.
    monkeypatch.setattr(launch, 'check_config', lambda cfg, training, split='test': [])

    def run(function, *args, **kwargs):
        with pytest.raises(Stop):
            function(*args, **kwargs)
        return seen[-1]

    return run
