"""The ImageNet recipes are the authors', and train."""
import json
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from torch.nn import functional as F

from fastervit_mm.backbone import VARIANTS
from tests.conftest import REPO, TINY
from tests.running import run_tool

FOLDER = REPO / 'configs/mmpretrain'
RECIPES = sorted(FOLDER.glob('*_train.py'))
FINE_TUNING = [f'fastervit-4-21k_{size}_in1k_train' for size in (224, 384, 512, 768)]
# The authors' recipe files: optimizer, weight decay, epochs of warm-up, drop path, weight of MESA.
PUBLISHED = {
    '0': ('AdamW', 0.05, 20, 0.2, 0), '1': ('AdamW', 0.05, 20, 0.2, 0.5),
    '2': ('AdamW', 0.05, 20, 0.2, 1.0), '3': ('AdamW', 0.075, 35, 0.3, 1.0),
    '4': ('Lamb', 0.12, 20, 0.3, 4.0), '5': ('Lamb', 0.12, 20, 0.3, 5.0),
    '6': ('Lamb', 0.15, 20, 0.5, 5.0)}


def recipe(name):
    return Config.fromfile(str(FOLDER / f'{name}.py'))


def hooks(cfg, kind):
    return [hook for hook in cfg.custom_hooks if hook.type == kind]


@pytest.mark.parametrize('arch', PUBLISHED)
def test_each_variant_has_the_settings_of_its_recipe_file(arch):
    kind, decay, warmup, drop_path, mesa = PUBLISHED[arch]
    cfg = recipe(f'fastervit-{arch}_in1k_train')
    assert cfg.model.backbone.arch == arch and 'init_cfg' not in cfg.model.backbone
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.weight_decay, optimizer.lr) == (kind, decay, 5e-3)
    assert tuple(optimizer.betas) == (0.9, 0.999)
    assert optimizer.get('eps') == (1e-8 if kind == 'AdamW' else None)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert VARIANTS[arch].drop_path_rate == drop_path  # the config leaves it as it is
    assert 'drop_path_rate' not in cfg.model.backbone
    assert [hook.weight for hook in hooks(cfg, 'MESAHook')] == [mesa] * bool(mesa)
    average, = hooks(cfg, 'EMAHook')
    assert average.momentum == pytest.approx(1 - 0.9998) and average.update_buffers
    assert cfg.train_dataloader.batch_size * 32 == cfg.auto_scale_lr.base_batch_size == 4096
    assert cfg.train_cfg.max_epochs == 310 and cfg.randomness.seed == 31
    assert cfg.sync_bn is None  # each process has its own statistics; SyncBuffersHook averages
    assert _timms_curve(cfg, lr=5e-3, warmup=warmup) < 0.034


def curve(cfg):
    """The learning rate of every epoch, from mmengine's schedulers."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    with PARAM_SCHEDULERS.switch_scope_and_registry(None) as registry:
        schedulers = [registry.build(dict(settings, optimizer=optimizer))
                      for settings in cfg.param_scheduler]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return np.array(rates)


def _timms_curve(cfg, lr, warmup):
    """Largest relative difference from timm's scheduler in the warm-up; none after it."""
    from timm.scheduler import CosineLRScheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = CosineLRScheduler(optimizer, t_initial=300, lr_min=5e-6, warmup_t=warmup,
                                  warmup_lr_init=1e-6)
    theirs = []
    for epoch in range(310):
        scheduler.step(epoch)
        theirs.append(optimizer.param_groups[0]['lr'])
    ours, theirs = curve(cfg), np.array(theirs)
    np.testing.assert_allclose(ours[warmup:], theirs[warmup:], rtol=5e-5)
    np.testing.assert_allclose(ours[300:], 5e-6, rtol=5e-5)  # cool-down
    assert ours[0] == pytest.approx(1e-6) and ours.argmax() == warmup
    return (abs(ours - theirs) / theirs)[2:].max()


def test_pretraining_on_21k_and_fine_tuning_have_the_papers_rates_and_epochs():
    cfg = recipe('fastervit-4_in21k_train')
    assert (cfg.model.backbone.arch, cfg.model.head.num_classes) == ('4-21k-224', 21841)
    assert cfg.model.head.loss.num_classes == cfg.data_preprocessor.num_classes == 21841
    rates = curve(cfg)
    assert len(rates) == 90 and rates.max() == pytest.approx(4e-3, rel=0.01)
    assert rates[-1] < 1e-5
    for name in FINE_TUNING:
        cfg = recipe(name)
        rates = curve(cfg)
        assert len(rates) == 60 and rates[0] == rates.max() == 7e-5 and rates[-1] < 3e-7
        assert not hooks(cfg, 'MESAHook') and len(hooks(cfg, 'EMAHook')) == 1
        size = int(name.split('_')[1])
        crops = [one[0] for one in cfg.train_dataloader.dataset.pipeline[1].transforms]
        assert [(crop.scale, crop.interpolation) for crop in crops] == [
            (size, 'bilinear'), (size, 'bicubic')]
        # Weights trained with the windows of 224 are wanted.
        assert cfg.model.backbone.get('other_windows', False) == (size != 224)


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_builds_validates_as_its_evaluation_and_decays_what_it_should(path):
    import mmpretrain.models  # noqa: F401  (not on the meta device)
    cfg = Config.fromfile(str(path))
    init_default_scope(cfg.default_scope)
    cfg.optim_wrapper.type = 'OptimWrapper'  # AMP needs a GPU; the groups are the same
    cfg.optim_wrapper.pop('dtype', None)
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        assert model.head.fc.in_features == model.backbone.out_channels[-1]
    decay = cfg.optim_wrapper.optimizer.weight_decay
    first, second = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decayed, spared = (first, second) if first['weight_decay'] else (second, first)
    assert (decayed['weight_decay'], spared['weight_decay']) == (decay, 0)
    assert {'head.fc.weight', 'backbone.stem.conv1.weight'} <= set(decayed['param_names'])
    assert {'head.fc.bias', 'backbone.out_norms.3.weight'} <= set(spared['param_names'])
    assert len(decayed['params'] + spared['params']) == len(list(model.parameters()))
    if 'in21k' in path.stem:
        assert cfg.val_dataloader is cfg.val_evaluator is cfg.val_cfg is None
        return
    evaluation = Config.fromfile(str(path.with_name(path.name.replace('_train', ''))))
    for part in ('val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        assert cfg[part] == evaluation[part], part
    for part in ('neck', 'backbone'):
        ours = {k: v for k, v in cfg.model[part].items() if k not in ('init_cfg', 'other_windows')}
        assert ours == {k: v for k, v in evaluation.model[part].items() if k != 'init_cfg'}
    assert cfg.data_preprocessor == evaluation.data_preprocessor


def test_mixed_labels_are_smoothed_as_timms():
    from mmpretrain.registry import MODELS
    from timm.data.mixup import mixup_target
    from timm.loss import SoftTargetCrossEntropy
    cfg = recipe('fastervit-2_in1k_train')
    labels, scores = torch.randint(0, 1000, (6,)), torch.randn(6, 1000)
    mixed = 0.3 * F.one_hot(labels, 1000) + 0.7 * F.one_hot(labels.flip(0), 1000)
    ours = MODELS.build(cfg.model.head.loss)(scores, mixed)
    theirs = SoftTargetCrossEntropy()(scores, mixup_target(labels, 1000, 0.3, 0.1))
    torch.testing.assert_close(ours, theirs)


def test_batches_are_mixed_as_often_as_timms():
    from mmpretrain.registry import MODELS
    cfg = recipe('fastervit-2_in1k_train')
    preprocessor = MODELS.build(dict(cfg.data_preprocessor, type='ClsDataPreprocessor',
                                     batch_augments=cfg.model.train_cfg))
    mixing = preprocessor.batch_augments
    assert [(type(a).__name__, a.alpha) for a in mixing.augments] == [
        ('Mixup', 0.8), ('CutMix', 1.0)]
    assert mixing.probs is None  # always one of the two, with equal chances


REDUCED = """
_base_ = '{recipe}'
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{tiny!r}, layer_scale=1e-5)),
    head=dict(in_channels=128, num_classes=3, loss=dict(num_classes=3), topk=(1, 2)))
data_preprocessor = dict(num_classes=3)
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='data', data_prefix='train',
        pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='data', data_prefix='val',
        pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, 2))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=4)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.mark.parametrize('arch, mesa', [('0', None), ('4', 4)])
def test_a_recipe_trains_reduced_and_its_average_is_what_is_kept(tmp_path, arch, mesa):
    """Through tools/train.py and tools/test.py, with the recipe's own data pipeline."""
    random = np.random.RandomState(0)
    for split, count in (('train', 4), ('val', 2)):
        for name in 'abc':
            (tmp_path / 'data' / split / name).mkdir(parents=True)
            for i in range(count):
                assert cv2.imwrite(str(tmp_path / 'data' / split / name / f'{i}.jpg'),
                                   random.randint(0, 256, (60, 80, 3), np.uint8))
    config = tmp_path / 'reduced.py'
    config.write_text(REDUCED.format(
        recipe=FOLDER / f'fastervit-{arch}_in1k_train.py', tiny=TINY))
    done = run_tool('train.py', config, '--work-dir', 'run', cwd=tmp_path)
    assert done.returncode == 0, done.output[-4000:]
    scalars = [json.loads(line) for line in next(
        (tmp_path / 'run').rglob('scalars.json')).read_text().splitlines()]
    steps = [line for line in scalars if 'loss' in line]
    assert len(steps) == 12
    assert [line['lr'] for line in steps[::3]] == pytest.approx(
        curve(Config.fromfile(str(config))))
    # A quarter of the training has no MESA.
    assert ['loss_mesa' in line for line in steps] == [False] * 3 + [mesa is not None] * 9
    kept = torch.load(tmp_path / 'run/epoch_4.pth', weights_only=False)
    average, last = ({k.removeprefix('module.'): v for k, v in kept[part].items()}
                     for part in ('state_dict', 'ema_state_dict'))
    moved = [k for k, v in average.items() if v.is_floating_point()
             and not torch.equal(v, last[k])]
    assert {'head.fc.weight', 'backbone.stem.norm1.running_mean'} <= set(moved)
    assert len(kept['optimizer']['param_groups']) == 2
    done = run_tool('test.py', config, 'run/epoch_4.pth', '--work-dir', 'tested', cwd=tmp_path)
    assert done.returncode == 0, done.output[-4000:]
    top1, = re.findall(r'accuracy/top1: (\S+)', done.output)[-1:]
    assert float(top1) == pytest.approx(scalars[-1]['accuracy/top1'], abs=1e-3)


def test_a_network_of_21k_starts_the_fine_tuning_at_every_size(tmp_path):
    """The pretraining config's checkpoint fills the backbones of the others."""
    init_default_scope('mmpretrain')
    narrow = dict(embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4),
                  layer_scale=1e-5, hierarchical=False)
    cfg = recipe('fastervit-4_in21k_train')
    cfg.model.backbone.arch = dict(narrow, window_size=VARIANTS['4-21k-224'].window_size)
    cfg.model.head.update(in_channels=128)
    pretrained = MODELS.build(cfg.model)
    torch.save(dict(state_dict=pretrained.state_dict()), tmp_path / 'epoch_90.pth')
    for name in FINE_TUNING:
        cfg = recipe(name)
        assert cfg.model.backbone.init_cfg.checkpoint == (
            'work_dirs/fastervit-4_in21k_train/epoch_90.pth')
        windows = VARIANTS[cfg.model.backbone.arch].window_size
        cfg.model.backbone.arch = dict(narrow, window_size=windows)
        cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'epoch_90.pth')
        cfg.model.head.update(in_channels=128)
        model = MODELS.build(cfg.model)
        model.init_weights()
        for key, tensor in pretrained.backbone.state_dict().items():
            assert torch.equal(model.backbone.state_dict()[key], tensor), key
