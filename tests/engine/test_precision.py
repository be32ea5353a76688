"""Types of mixed precision; detectors and segmentors in bfloat16."""
import copy

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import OPTIM_WRAPPERS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from benchmarks.recipes import RECIPES
from fastervit_mm.engine import launch, precision
from fastervit_mm.engine.precision import choose_for_testing, choose_for_training
from fastervit_mm.models import find_backbones
from tests.conftest import REPO
from tests.running import run_tool

CONFIGS = [path for path in sorted(REPO.glob('configs/mm*/*.py'))
           if not any(word in path.stem for word in ('small', 'shapes', 'imagenette'))
           and not path.stem.endswith('_in1k')  # an evaluation
           and f'{path.parent.name}/{path.stem}' not in RECIPES]


def config(arch='2', **wrapper):
    return ConfigDict(model=dict(backbone=dict(type='FasterViT', arch=arch)),
                      optim_wrapper=dict(dict(type='AmpOptimWrapper'), **wrapper))


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(precision, 'has_amp_device', lambda: True)


# Training

@pytest.mark.parametrize('cfg, amp, dtype', [
    (config(), False, 'float16'), (config(), True, 'float16'), (config('4'), True, 'float16'),
    (config(type='OptimWrapper'), True, 'float16'), (config(), 'bf16', 'bfloat16'),
    (config('5'), False, 'bfloat16'), (config('5', type='OptimWrapper'), True, 'bfloat16'),
    (config('4-21k-384'), True, 'bfloat16'), (config('6', dtype='float16'), True, 'float16'),
    (config('6', dtype='bfloat16'), 'fp16', 'float16'), (config(dict()), True, 'float16')])
def test_large_networks_train_in_bfloat16_unless_told(gpu, cfg, amp, dtype):
    cfg = copy.deepcopy(cfg)
    choose_for_training(cfg, amp)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', dtype)
    # Its range is float32's.
    assert cfg.optim_wrapper.loss_scale == (
        'dynamic' if dtype == 'float16' else dict(enabled=False))


def test_the_configs_loss_scale_is_kept(gpu):
    cfg = config('6', loss_scale=512.)
    choose_for_training(cfg)
    assert cfg.optim_wrapper.loss_scale == 512.


def test_float32_stays_float32(gpu):
    cfg = config('6', type='OptimWrapper')
    choose_for_training(cfg)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')


def test_without_a_gpu_mixed_precision_is_removed_completely():
    cfg = config(dtype='bfloat16', loss_scale='dynamic', use_fsdp=True)
    choose_for_training(cfg)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')


@pytest.mark.parametrize('capability, hip, expected', [
    ((7, 5), None, False), ((8, 0), None, True), ((9, 0), None, True), ((0, 0), '6.2', True)])
def test_which_gpus_have_bfloat16(monkeypatch, capability, hip, expected):
    """By the device's capability, because torch's own query differs between versions."""
    monkeypatch.setattr(precision, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
    monkeypatch.setattr(torch.version, 'hip', hip)
    assert precision._has_bfloat16() == expected


def test_configs_of_large_networks_set_bfloat16():
    for path in CONFIGS:
        cfg = Config.fromfile(str(path))
        large = cfg.model.backbone.arch in ('5', '6') or '21k' in cfg.model.backbone.arch
        mixed = cfg.optim_wrapper.type == 'AmpOptimWrapper'  # the authors' DINO is in float32
        assert mixed or path.stem.startswith(
            ('dino', 'cascade_fvit_s', 'upernet_fvit_s')), path
        assert cfg.optim_wrapper.get('dtype') == ('bfloat16' if large and mixed else None), path


def logged(monkeypatch, function, *args):
    said = []
    monkeypatch.setattr(precision, 'print_log', lambda text, **kwargs: said.append(text))
    function(*args)
    return said


@pytest.mark.parametrize('amp, kind', [(False, 'OptimWrapper'), (True, 'CPUAmpOptimWrapper'),
                                       ('bf16', 'CPUAmpOptimWrapper')])
def test_a_cpu_trains_in_bfloat16_only_if_told(amp, kind, monkeypatch):
    monkeypatch.setattr(precision, 'has_amp_device', lambda: False)
    cfg = config('5', optimizer=dict(type='SGD', lr=1.))
    choose_for_training(cfg, amp)
    assert cfg.optim_wrapper.pop('type') == kind and list(cfg.optim_wrapper) == ['optimizer']
    model = nn.Linear(2, 2)
    wrapper = OPTIM_WRAPPERS.get(kind)(torch.optim.SGD(model.parameters(), 1.))
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 2))
    assert output.dtype == (torch.bfloat16 if amp else torch.float32)
    before = model.bias.clone()
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32 and torch.equal(model.bias, before - 1)


def test_the_log_says_the_type(gpu, monkeypatch):
    assert logged(monkeypatch, choose_for_training, config()) == [
        'Training in mixed precision, float16']
    assert logged(monkeypatch, choose_for_training, config('5')) == [
        "Training in mixed precision, bfloat16: float16 may overflow with arch='5'; to try it, "
        '--amp fp16']
    assert logged(monkeypatch, choose_for_testing, config(), True) == [
        'Testing in mixed precision, bfloat16']
    assert logged(monkeypatch, choose_for_testing, config()) == [
        'Testing in float32; the config trains in mixed precision, in which --amp tests']
    assert logged(monkeypatch, choose_for_testing, config(type='OptimWrapper')) == []


def test_an_older_gpu_tests_in_float16_and_is_warned_of_bfloat16(gpu, monkeypatch):
    monkeypatch.setattr(precision, '_has_bfloat16', lambda: False)
    assert choose_for_testing(config(), True) is torch.float16
    assert choose_for_testing(config(), 'bf16') is torch.bfloat16
    *_, warning = logged(monkeypatch, choose_for_training, config('5'))
    assert warning.endswith('For float16: --amp fp16')


def test_an_unavailable_type_is_an_error_of_one_line(tmp_path):
    for tool, amp, why in (
            ('train.py', ['--amp', 'fp16'], "train: amp='fp16': a CPU has mixed precision in"),
            ('train.py', ['--amp', 'half'], "train: amp='half': give one of bf16, fp16"),
            ('test.py', ['--amp', 'half'], "test: amp='half': give one of bf16, fp16"),
            ('test.py', ['--amp', 'fp16'], "test: amp='fp16': a CPU has mixed precision in")):
        checkpoint = ['none.pth'] if tool == 'test.py' else []
        done = run_tool(tool, REPO / 'configs/mmdet/cascade_fvit_shapes.py', *checkpoint, *amp,
                        cwd=tmp_path, environment={'CUDA_VISIBLE_DEVICES': ''})
        line, = [line for line in done.stderr.splitlines() if line.startswith(tool[:-3])]
        assert done.returncode == 1 and line.startswith(why), done.output


# What is in float32 all the same

def test_boxes_do_not_round_in_bfloat16():
    """At 1000 pixels bfloat16 has steps of 4."""
    init_default_scope('mmdet')
    from mmdet.models.dense_heads import RPNHead
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
    from mmdet.structures import DetDataSample
    extractor = SingleRoIExtractor(dict(type='RoIAlign', output_size=7, sampling_ratio=2), 4, [4])
    rpn = RPNHead(
        in_channels=4, feat_channels=4, anchor_generator=dict(
            type='AnchorGenerator', scales=[8], ratios=[1.], strides=[4]),
        test_cfg=ConfigDict(nms_pre=99, max_per_img=99, min_bbox_size=0,
                            nms=dict(type='nms', iou_threshold=0.7)))
    model = nn.ModuleList([extractor, rpn])
    for _ in range(2):  # twice is as once
        precision.keep_boxes_exact(model)
    assert [len(extractor._forward_pre_hooks), len(rpn._forward_hooks)] == [1, 1]
    maps = torch.rand(1, 4, 8, 300).bfloat16().requires_grad_()
    rois = torch.tensor([[0, 1001.3, 3., 1059.7, 30.]])
    out = extractor((maps,), rois)
    assert torch.equal(out, extractor((maps.float(),), rois))
    out.sum().backward()
    assert maps.grad.dtype == torch.bfloat16 and maps.grad.abs().sum() > 0
    with torch.autocast('cpu', torch.bfloat16):
        scores, deltas = rpn((maps,))
        found = rpn.predict((maps,), [DetDataSample(metainfo=dict(
            img_shape=(32, 1200), scale_factor=(1., 1.), ori_shape=(32, 1200)))])
    assert scores[0].dtype == deltas[0].dtype == torch.float32
    boxes = found[0].bboxes
    assert boxes.dtype == torch.float32 and not torch.equal(boxes, boxes.bfloat16().float())


def test_segmentors_and_float16_are_left_as_they_are():
    from mmseg.models import FCNHead
    head = FCNHead(in_channels=4, channels=4, num_classes=3, num_convs=0, concat_input=False)
    precision.keep_boxes_exact(head)
    with torch.autocast('cpu', torch.bfloat16):
        assert head([torch.rand(1, 4, 8, 8)]).dtype == torch.bfloat16
    half = torch.ones(1).half()
    assert precision._float32([half, (half, dict(one=half))]) == [half, (half, dict(one=half))]


def test_predictions_come_in_float32():
    class Model(nn.Module):
        def test_step(self, data):
            assert (data @ data).dtype == torch.bfloat16  # autocast
            return [InstanceData(scores=data.bfloat16(), labels=torch.ones(2).long(),
                                 inner=InstanceData(masks=data.half()))]

    model = Model()
    precision.test_in(model, torch.bfloat16)
    sample, = model.test_step(torch.ones(2, 2))
    assert sample.scores.dtype == sample.inner.masks.dtype == torch.float32
    assert sample.labels.dtype == torch.long


# Real models

def score(config, checkpoint, folder, monkeypatch, amp, **kwargs):
    """Metrics, predictions, the types of the backbone's convolutions, and an RPN's scores."""
    types, samples, rpn = set(), [], []
    build = launch.build_runner

    def build_runner(cfg):
        runner = build(cfg)
        for backbone in find_backbones(runner.model):
            for module in backbone.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(lambda *call: types.add(call[-1].dtype))
        if hasattr(runner.model, 'rpn_head'):
            runner.model.rpn_head.register_forward_hook(
                lambda *call: rpn.extend(scores.float() for scores in call[-1][0]))
        process = runner.test_evaluator.process
        runner.test_evaluator.process = lambda data_samples, **rest: (
            samples.extend(data_samples), process(data_samples=data_samples, **rest))
        return runner

    monkeypatch.setattr(launch, 'build_runner', build_runner)
    cfg = launch.load_config(str(config), work_dir=str(folder / f'{amp}_{len(kwargs)}'))
    metrics = launch.test(cfg, str(checkpoint), amp=amp, **kwargs)
    monkeypatch.undo()
    return metrics, samples, types, rpn


def test_a_segmentor_tests_in_bfloat16(resumed, tmp_path, monkeypatch):
    path = resumed.work_dir.parents[1] / 'tiny_segmentor.py'
    checkpoint = resumed.work_dir / 'iter_12.pth'
    single, maps, types, _ = score(path, checkpoint, tmp_path, monkeypatch, False)
    assert types == {torch.float32}
    for kwargs in (dict(), dict(deploy=True)):
        half, other, types, _ = score(path, checkpoint, tmp_path, monkeypatch, 'bf16', **kwargs)
        assert types == {torch.bfloat16}
        assert half['aAcc'] == pytest.approx(single['aAcc'], abs=2)
        assert half['mIoU'] == pytest.approx(single['mIoU'], abs=1)
        for one, two in zip(maps, other):
            assert two.seg_logits.data.dtype == torch.float32
            same = one.pred_sem_seg.data == two.pred_sem_seg.data
            assert 0.9 < same.float().mean()
            assert not torch.equal(one.seg_logits.data, two.seg_logits.data)


def test_a_detector_tests_in_bfloat16(by_epoch, tmp_path, monkeypatch):
    path = by_epoch.work_dir.parents[1] / 'tiny_detector.py'
    checkpoint = by_epoch.work_dir / 'epoch_3.pth'
    single, _, types, proposed = score(path, checkpoint, tmp_path, monkeypatch, False)
    assert types == {torch.float32}
    half, found, types, again = score(path, checkpoint, tmp_path, monkeypatch, True,
                                      out=str(tmp_path / 'predictions.pkl'))
    assert types == {torch.bfloat16}
    assert half.keys() == single.keys()
    for name in single:
        assert half[name] == pytest.approx(single[name], abs=0.02)
    for sample in found:
        boxes = sample.pred_instances
        assert boxes.bboxes.dtype == boxes.scores.dtype == torch.float32
    # Behind these NMS chooses, and so jumps: after so little training all scores are alike.
    assert len(proposed) == len(again) > 0
    for one, two in zip(proposed, again):
        torch.testing.assert_close(two.sigmoid(), one.sigmoid(), rtol=0.1, atol=0.01)
        assert not torch.equal(one, two)


def test_a_detector_learns_in_bfloat16(by_epoch, tmp_path):
    """Its losses and gradients, RoIAlign's too, as mixed precision on a GPU has them."""
    cfg = launch.load_config(str(by_epoch.work_dir.parents[1] / 'tiny_detector.py'),
                             work_dir=str(tmp_path))
    cfg.optim_wrapper.type, cfg.load_from = 'OptimWrapper', None
    MMLogger._instance_dict.clear()
    runner = launch.build_runner(cfg)
    precision.keep_boxes_exact(runner.model)
    model = runner.model.train()
    batch = model.data_preprocessor(next(iter(runner.build_dataloader(cfg.train_dataloader))), True)
    losses = []
    for low in (False, True):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16, enabled=low):
            losses.append(model.parse_losses(model(**copy.deepcopy(batch), mode='loss'))[0])
    losses[1].backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)
    norms = [p.grad.norm() for p in model.backbone.parameters() if p.grad is not None]
    assert len(norms) > 100 and torch.isfinite(torch.stack(norms)).all()
