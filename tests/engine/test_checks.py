"""Mistakes in a config, found before training or testing."""
import json
import os

import pytest
import torch
from mmengine.config import Config

from fastervit_mm.engine import launch
from fastervit_mm.engine.checks import ConfigError, check_config
from tests.conftest import REPO
from tests.running import run_tool

COCO_CONFIG = REPO / 'configs/mmdet/cascade_fvit.py'
ADE_CONFIG = REPO / 'configs/mmseg/upernet_fvit.py'
SHAPES_CONFIGS = [REPO / 'configs/mmdet/cascade_fvit_shapes.py',
                  REPO / 'configs/mmseg/upernet_fvit_shapes.py']


@pytest.fixture
def coco(tmp_path, tiny_coco, monkeypatch):
    """The COCO config on a sample, complete and right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/coco').symlink_to(tiny_coco)
    return launch.load_config(str(COCO_CONFIG), work_dir='work')


@pytest.fixture
def ade(tmp_path, tiny_ade20k, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/ade').mkdir(parents=True)
    (tmp_path / 'data/ade/ADEChallengeData2016').symlink_to(tiny_ade20k)
    return launch.load_config(str(ADE_CONFIG), work_dir='work')


def problems(cfg, training=True, split='test'):
    with pytest.raises(ConfigError) as caught:
        check_config(cfg, training, split)
    head, *several = str(caught.value).splitlines()
    return several or [head.partition('cannot run as it is: ')[2]]


def test_right_configs_pass(coco, ade):
    for training in (True, False):
        check_config(ade, training)
        check_config(coco, training)


@pytest.mark.parametrize('path', SHAPES_CONFIGS, ids=lambda p: p.stem)
def test_missing_generated_shapes_are_reported(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = problems(launch.load_config(str(path)))
    assert "train_dataloader.dataset.data_root='data/shapes/': no such folder" in found[0]
    assert 'prepare_data' not in found[0]  # they are not COCO


def test_another_split_is_checked_in_its_place(coco):
    coco.val_dataloader.dataset.ann_file = 'annotations/absent.json'
    check_config(coco, training=False)
    found, = problems(Config(coco.to_dict()), training=False, split='val')
    assert 'val_dataloader.dataset.ann_file' in found


def test_a_missing_data_folder_names_the_tool_that_helps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = problems(launch.load_config(str(COCO_CONFIG)))
    assert "train_dataloader.dataset.data_root='data/coco/': no such folder" in found[0]
    assert 'tools/prepare_data.py coco --root data/coco/' in found[0]
    assert any('val_evaluator.ann_file' in p and 'does not follow data_root' in p for p in found)
    found = problems(launch.load_config(str(ADE_CONFIG)))
    assert 'tools/prepare_data.py ade20k --root data/ade/ADEChallengeData2016' in found[0]
    found = problems(launch.load_config(str(COCO_CONFIG)), training=False)
    assert 'test_dataloader' in found[0] and 'train_dataloader' not in ''.join(found)


def test_a_missing_part_of_the_data_is_named(coco):
    coco.train_dataloader.dataset.data_prefix.img = 'train2014/'
    coco.val_evaluator.ann_file = 'data/coco/annotations/absent.json'
    found = problems(coco)
    assert len(found) == 2
    assert 'train_dataloader.dataset.data_prefix.img' in found[0] and 'train2014' in found[0]
    assert "val_evaluator.ann_file='data/coco/annotations/absent.json'" in found[1]


def test_data_in_wrappers_are_found(coco):
    inner = coco.train_dataloader.dataset
    coco.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dict(
        type='ConcatDataset', datasets=[inner, dict(inner, data_root='nowhere')]))
    found = problems(coco)
    assert len(found) == 1
    assert "train_dataloader.dataset.dataset.datasets.1.data_root='nowhere'" in found[0]


@pytest.mark.parametrize('categories_first', [True, False])
def test_annotations_without_the_configs_classes(coco, tmp_path, categories_first):
    content = dict(images=[], annotations=[], categories=[
        dict(id=1, name='bus'), dict(id=2, name='cat')])
    if categories_first:
        content = dict(reversed(content.items()))
    (tmp_path / 'mine.json').write_text(json.dumps(content))
    coco.train_dataloader.dataset.ann_file = str(tmp_path / 'mine.json')
    coco.train_dataloader.dataset.metainfo = dict(classes=('bus', 'dog'))
    coco.val_dataloader.dataset.metainfo = dict(classes=('bus', 'dog'))
    for head in [*coco.model.roi_head.bbox_head, coco.model.roi_head.mask_head]:
        head.num_classes = 2
    found, = problems(coco)
    assert "no category named 'dog'" in found and "It has 2: 'bus', 'cat'" in found
    coco.train_dataloader.dataset.metainfo = dict(classes=('bus', 'cat'))
    check_config(coco, training=True)


def test_heads_of_another_number_of_classes(coco, ade):
    coco.model.roi_head.bbox_head[1].num_classes = 81
    coco.model.roi_head.mask_head.num_classes = 3
    found = problems(coco)
    assert 'model.roi_head.bbox_head.1.num_classes=81, but the data have 80' in found[0]
    assert 'Set model.roi_head.mask_head.num_classes=80' in found[1]
    ade.model.auxiliary_head.num_classes = 19
    found, = problems(ade)
    assert 'model.auxiliary_head.num_classes=19, but the data have 150' in found
    check_config(ade, training=False)  # to test a network on data of other classes is possible


def test_widths_that_the_neck_does_not_expect(coco, ade):
    coco.model.backbone.arch = '3'
    found, = problems(coco)
    assert 'model.neck.in_channels=[96, 192, 384, 768]' in found
    assert "arch='3'" in found and 'Set model.neck.in_channels=[128, 256, 512, 1024]' in found
    ade.model.backbone.arch = '4'
    found = problems(ade)
    assert 'Set model.decode_head.in_channels=[196, 392, 784, 1568]' in found[0]
    assert 'Set model.auxiliary_head.in_channels=784' in found[1]
    ade.model.backbone.update(arch='2', out_indices=(2, 3))
    found = problems(ade)
    assert any('the backbone gives 2 maps' in p for p in found)


def test_other_backbones_are_not_checked(ade):
    ade.model.backbone = dict(type='ResNetV1c', depth=50)
    check_config(ade, training=False)


def test_absent_checkpoints(coco):
    coco.model.backbone.init_cfg.checkpoint = 'weights/mine.pth'
    coco.load_from = 'gone.pth'
    found = problems(coco)
    assert "load_from='gone.pth': no such file" in found[0]
    assert "model.backbone.init_cfg.checkpoint='weights/mine.pth'" in found[1]
    assert 'init_cfg=None' in found[1]
    coco.load_from = None
    check_config(coco, training=False)  # a test reads no pretrained file
    coco.model.backbone.init_cfg.checkpoint = 'fastervit://2'
    found, = problems(coco)
    assert 'fastervit://2-224-1k' in found


def test_a_work_dir_that_cannot_be_written_to(coco, tmp_path):
    (tmp_path / 'file').write_text('')
    coco.work_dir = 'file/below'
    found, = problems(coco)
    assert "work_dir='file/below': cannot be written to" in found and '--work-dir' in found


def test_every_problem_is_listed_at_once(coco):
    coco.work_dir = '/proc/nothing'
    coco.model.backbone.arch = '3'
    coco.model.roi_head.mask_head.num_classes = 3
    assert len(problems(coco)) == 3


@pytest.mark.parametrize('launcher, environment, accumulated, warned', [
    ('none', {}, 1, 'The batch is 2 (2 x 1 processes), and the learning rate 0.0001 was chosen for '
     '16. In proportion it would be 1.25e-05: --auto-scale-lr, or'),
    ('pytorch', {'WORLD_SIZE': '8'}, 1, None),
    ('slurm', {'SLURM_NTASKS': '4'}, 1, 'it would be 5e-05'),
    ('none', {}, 8, None),
    ('none', {}, 2, 'x 2 accumulated), and the learning rate 0.0001 was chosen for 16. In '
     'proportion it would be 2.5e-05: --cfg-options')])
def test_a_batch_whose_learning_rate_was_not_scaled(coco, monkeypatch, launcher, environment,
                                                    accumulated, warned):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    coco.launcher = launcher
    coco.optim_wrapper.accumulative_counts = accumulated
    warnings = check_config(coco, training=True)
    assert len(warnings) == bool(warned)
    if warned:
        assert warned in warnings[0]
        coco.auto_scale_lr.enable = True
        assert check_config(coco, training=True) == []


@pytest.mark.parametrize('tool, arguments', [('train.py', []), ('test.py', ['x.pth'])])
def test_both_tools_report_problems_without_a_traceback(tool, arguments, tmp_path):
    done = run_tool(tool, COCO_CONFIG, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert f'{tool[:-3]}: {COCO_CONFIG}: this config cannot run as it is:' in done.stderr
    assert 'prepare_data.py coco' in done.stderr and 'Traceback' not in done.stderr


def test_results_that_cannot_be_written_are_found_before_the_test(coco, tmp_path):
    torch.save(dict(weight=torch.zeros(1)), tmp_path / 'x.pth')
    (tmp_path / 'file').write_text('')
    for argument, value in (('out', 'file/out.pkl'), ('show_dir', 'file/shown')):
        with pytest.raises(ConfigError, match=f'{argument}=.*cannot be written to'):
            launch.test(Config(coco.to_dict()), 'x.pth', **{argument: value})
    assert not os.path.exists('work/vis_data')
