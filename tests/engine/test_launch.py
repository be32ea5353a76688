"""Settings of train and test, from config and command line."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config

from fastervit_mm import FasterViT
from fastervit_mm.engine import CompleteCheckpointHook, curves, launch, precision
from fastervit_mm.weights import CheckpointError
from tests.conftest import REPO, TINY

COCO_CONFIG = str(REPO / 'configs/mmdet/cascade_fvit.py')


def test_an_absent_config_is_named():
    with pytest.raises(FileNotFoundError, match="config='nowhere.py'"):
        launch.load_config('nowhere.py')


def test_the_work_dir_is_the_command_lines_or_the_configs_name(tmp_path):
    assert launch.load_config(COCO_CONFIG).work_dir == './work_dirs/cascade_fvit'
    assert launch.load_config(COCO_CONFIG, work_dir='elsewhere').work_dir == 'elsewhere'


def test_options_replace_settings_by_dotted_name():
    cfg = launch.load_config(COCO_CONFIG, cfg_options={'model.backbone.arch': '0'})
    assert cfg.model.backbone.arch == '0'


@pytest.mark.parametrize('gpu, expected', [(True, 'AmpOptimWrapper'), (False, 'OptimWrapper')])
def test_mixed_precision_is_left_out_where_there_is_no_gpu(built, monkeypatch, gpu, expected):
    monkeypatch.setattr(precision, 'has_amp_device', lambda: gpu)
    cfg = built(launch.train, launch.load_config(COCO_CONFIG))
    assert cfg.optim_wrapper.type == expected


def test_asking_for_amp_on_a_device_without_it_is_an_error(monkeypatch):
    monkeypatch.setattr(precision, 'get_device', lambda: 'mps')
    with pytest.raises(ValueError, match='amp=True.*Leave --amp out'):
        launch.train(launch.load_config(COCO_CONFIG), amp=True)


def test_compiling_needs_a_torch_that_can(monkeypatch):
    monkeypatch.setattr(launch, 'TORCH', (2, 1))
    for run in (launch.train, lambda cfg, **kwargs: launch.test(cfg, 'x.pth', **kwargs)):
        with pytest.raises(ValueError, match='--compile .* needs torch 2.6 or newer'):
            run(launch.load_config(COCO_CONFIG), compiled=True)


def test_resume_finds_or_names_the_checkpoint(built):
    cfg = built(launch.train, launch.load_config(COCO_CONFIG), resume='auto')
    assert cfg.resume and cfg.load_from is None
    with pytest.raises(FileNotFoundError, match="resume='nowhere.pth'"):
        launch.train(launch.load_config(COCO_CONFIG), resume='nowhere.pth')


def test_auto_scale_lr_needs_a_base_batch(built):
    assert built(launch.train, launch.load_config(COCO_CONFIG),
                 auto_scale_lr=True).auto_scale_lr.enable
    cfg = launch.load_config(COCO_CONFIG)
    cfg.pop('auto_scale_lr')
    with pytest.raises(ValueError, match='auto_scale_lr.base_batch_size'):
        launch.train(cfg, auto_scale_lr=True)


def test_detectors_predictions_go_to_a_pickle(built):
    with pytest.raises(ValueError, match="out='folder': .* ends in .pkl"):
        launch.test(launch.load_config(COCO_CONFIG), 'x.pth', out='folder')


def mmseg_config():
    from mmengine.utils import get_installed_path
    path = (f'{get_installed_path("mmseg")}/.mim/configs/swin/'
            'swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py')
    return launch.load_config(path)


def test_mmseg_configs_go_through_the_same_tools(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = built(launch.test, mmseg_config(), 'x.pth', out=str(tmp_path), show_dir='shown',
                tta=True)
    assert dict(type='LabelMapsHook', out_dir=str(tmp_path)) in cfg.custom_hooks
    assert cfg.model.type == 'SegTTAModel' and cfg.model.module.type == 'EncoderDecoder'
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'
    overlays, = (hook for hook in cfg.custom_hooks if hook['type'] == 'OverlaysHook')
    assert overlays['out_dir'] == 'shown' and not overlays['show']
    assert not cfg.default_hooks.visualization.get('draw')  # it draws one picture in fifty
    with pytest.raises(ValueError, match="out='x.pkl': .* give a folder"):
        launch.test(mmseg_config(), 'x.pth', out='x.pkl')


def test_flip_tta_is_added_for_detectors(built):
    cfg = built(launch.test, launch.load_config(COCO_CONFIG), 'x.pth', tta=True)
    assert cfg.model.type == 'DetTTAModel'
    augmentation = cfg.test_dataloader.dataset.pipeline[-1]
    assert augmentation.type == 'TestTimeAug'
    assert 'flip' in augmentation.transforms[1][0].meta_keys


def test_flip_tta_reaches_every_joined_dataset(built):
    cfg = launch.load_config(COCO_CONFIG)
    one = cfg.test_dataloader.dataset
    other = copy.deepcopy(one)
    other.pipeline[1].scale = (96, 96)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[
        one, dict(type='RepeatDataset', times=1, dataset=other)])
    cfg = built(launch.test, cfg, 'x.pth', tta=True)
    first, second = (d.pipeline for d in (
        cfg.test_dataloader.dataset.datasets[0], cfg.test_dataloader.dataset.datasets[1].dataset))
    assert first[-1].type == second[-1].type == 'TestTimeAug'
    assert (first[1].scale, second[1].scale) == ((1333, 800), (96, 96))


def test_another_split_replaces_the_test_split(built, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cfg = mmseg_config()
    cfg.test_dataloader = dict(cfg.test_dataloader, batch_size=7)
    cfg.test_evaluator = dict(type='IoUMetric', iou_metrics=['mDice'])
    cfg.val_cfg.fp16 = True
    assert built(launch.test, copy.deepcopy(cfg), 'x.pth').test_dataloader.batch_size == 7
    val = built(launch.test, copy.deepcopy(cfg), 'x.pth', out=str(tmp_path), tta=True, split='val')
    assert val.test_dataloader.batch_size == cfg.val_dataloader.batch_size
    assert val.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'
    assert val.test_evaluator.iou_metrics == ['mIoU']
    assert val.test_cfg == dict(type='TestLoop', fp16=True)
    assert val.test_evaluator is not val.val_evaluator
    cfg.pop('val_evaluator')
    with pytest.raises(ValueError, match="split='val': the config has no val_evaluator"):
        launch.test(cfg, 'x.pth', split='val')
    with pytest.raises(ValueError, match="split='train': give one of test, val"):
        launch.test(cfg, 'x.pth', split='train')


class _Runner:
    _load_from = 'other.pth'

    def __init__(self, model):
        self.model = model


def test_a_checkpoint_of_another_model_is_refused():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    hook = CompleteCheckpointHook()
    tensors = model.state_dict()
    hook.after_load_checkpoint(_Runner(model), dict(state_dict=tensors))
    hook.after_load_checkpoint(_Runner(model), tensors)
    with pytest.raises(CheckpointError, match="1 of 7 tensors are missing .'0.weight'"):
        hook.after_load_checkpoint(_Runner(model), dict(
            state_dict={k: v for k, v in tensors.items() if k != '0.weight'}))
    with pytest.raises(CheckpointError, match='1 have another shape'):
        hook.after_load_checkpoint(_Runner(model), dict(
            state_dict={**tensors, '0.weight': torch.rand(3, 5)}))


def test_a_checkpoint_of_a_deeper_network_is_refused():
    """FasterViT-6 is FasterViT-5 with more blocks, so its file would fill all of 5."""
    shallow, deep = (torch.nn.ModuleDict(dict(backbone=FasterViT(dict(
        TINY, depths=(1, 1, blocks, 1))))) for blocks in (1, 2))
    hook = CompleteCheckpointHook()
    hook.after_load_checkpoint(_Runner(shallow), shallow.state_dict())
    with pytest.raises(CheckpointError, match='0 of .* tensors are missing'):
        hook.after_load_checkpoint(_Runner(shallow), deep.state_dict())


def test_curves_put_metrics_at_their_iteration(tmp_path):
    log = tmp_path / 'vis_data'
    log.mkdir()
    (log / 'scalars.json').write_text(
        '{"lr": 0.1, "loss": 2.0, "iter": 50, "step": 50, "epoch": 1}\n'
        '{"coco/bbox_mAP": 0.3, "time": 0.1, "step": 1}\n'
        '{"lr": 0.1, "loss": 1.0, "iter": 100, "step": 100, "epoch": 2}\n'
        '{"coco/bbox_mAP": 0.6, "time": 0.1, "step": 2}\n')
    run = curves.read_run(tmp_path)
    assert run['loss'] == [(50, 2.0), (100, 1.0)]
    assert run['coco/bbox_mAP'] == [(50, 0.3), (100, 0.6)]
    assert curves.plot_run(tmp_path, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')
    assert not curves.plot_run(tmp_path / 'nothing', tmp_path / 'none.png')


def test_config_files_are_read_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(launch.load_config(COCO_CONFIG), Config)


def test_labels_of_segments_stand_where_mmseg_puts_them():
    from mmseg.visualization import SegLocalVisualizer

    from fastervit_mm.engine.seg_visualizer import place_of_name
    random = np.random.RandomState(0)
    for _ in range(20):
        mask = (random.rand(17, 23) < 0.3).astype(np.uint8)
        assert (place_of_name(mask) == SegLocalVisualizer._get_center_loc(None, mask)).all()
