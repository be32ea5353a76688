"""MESA: the formula's loss, from the recipe's epoch on, without a gradient through the teacher."""
import copy
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from fastervit_mm.config_files import ConfigError
from fastervit_mm.engine import MESAHook, launch
from fastervit_mm.engine.mesa import mesa_loss
from tests.conftest import REPO, TINY

CONFIG = f"""
_base_ = '{REPO}/configs/_base_/imagenet.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{TINY!r})),
    head=dict(in_channels=128, num_classes=2, topk=(1,)))
data_preprocessor = dict(num_classes=2)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='DATA', pipeline=pipeline))
val_dataloader = test_dataloader = val_evaluator = test_evaluator = val_cfg = test_cfg = None
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=4)
custom_hooks = [dict(type='EMAHook', momentum=0.3, update_buffers=True),
                dict(type='MESAHook', weight=0.7, begin=0.5)]
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""


def test_the_loss_is_that_of_the_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 7).double().mul(4).unbind()
    student.requires_grad_()
    teacher.requires_grad_()
    loss = mesa_loss(student, teacher, weight=0.5)
    p, q = ((x / 3).exp() / (x / 3).exp().sum(1, keepdim=True) for x in (teacher, student))
    expected = 0.5 * 50 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    loss.backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, 0.5 * 50 / 3 / 5 * (q - p).detach(), rtol=1e-4,
                               atol=1e-6)
    assert mesa_loss(student, student, weight=5.) == 0


@pytest.mark.parametrize('settings, message', [
    (dict(weight=0), 'weight=0: give a number above 0'),
    (dict(weight=1, begin=1), 'begin=1: give the part')])
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        MESAHook(**settings)


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """Two classes of 4 images, of 64 x 64."""
    folder = tmp_path_factory.mktemp('classes')
    random = np.random.RandomState(0)
    for name in 'ab':
        (folder / name).mkdir()
        for i in range(4):
            assert cv2.imwrite(str(folder / name / f'{i}.png'),
                               random.randint(0, 256, (64, 64, 3), np.uint8))
    return folder


def config(folder, images, **options):
    path = folder / 'config.py'
    path.write_text(CONFIG.replace('DATA', str(images)))
    return launch.load_config(str(path), work_dir=str(folder / 'run'), cfg_options=options)


class Witness(Hook):
    """Recomputes the expected MESA loss of each iteration on copies."""
    priority = 'VERY_LOW'

    def __init__(self):
        self.expected, self.given = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        hook, = (h for h in runner.hooks if isinstance(h, MESAHook))
        teacher, student = (copy.deepcopy(m) for m in (hook._teacher, runner.model))
        teacher.eval()
        for module in student.modules():  # copies without the hooks
            module._forward_hooks.clear()
            module._forward_hooks_with_kwargs.clear()
        data = student.data_preprocessor(copy.deepcopy(data_batch), True)
        with torch.no_grad():
            self.expected.append(mesa_loss(student(**data, mode='tensor'),
                                           teacher(data['inputs'], mode='tensor'), 0.7).item())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.given.append(outputs.get('loss_mesa'))


def test_in_a_run_it_begins_where_the_recipe_says_and_the_teacher_is_the_average(tmp_path, images):
    cfg = config(tmp_path, images)
    runner = launch.build_runner(cfg)
    witness = Witness()
    runner.register_hook(witness)
    runner.train()
    assert len(witness.given) == 8
    assert witness.given[:4] == [None] * 4  # begin=0.5
    np.testing.assert_allclose([v.item() for v in witness.given[4:]], witness.expected[4:],
                               rtol=1e-4)
    assert min(witness.expected[4:]) > 1e-4
    assert not any(module._forward_hooks for module in runner.model.modules())
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert len(re.findall('loss_mesa: ', log)) == 4


def test_the_teacher_sees_the_mixed_batch_and_learns_nothing_itself(tmp_path, images):
    cfg = config(tmp_path, images)
    cfg.model.train_cfg = dict(augments=[dict(type='Mixup', alpha=0.8)])
    cfg.custom_hooks[-1].begin = 0
    runner = launch.build_runner(cfg)
    seen = dict(student=[], teacher=[])

    class Spy(Hook):
        def before_train(self, runner):
            hook, = (h for h in runner.hooks if isinstance(h, MESAHook))
            for name, model in (('student', runner.model), ('teacher', hook._teacher)):
                model.backbone.register_forward_pre_hook(
                    lambda module, args, name=name: seen[name].append(
                        (args[0].clone(), module.training, torch.is_grad_enabled())))
            assert not any(p.requires_grad for p in hook._teacher.parameters())

    runner.register_hook(Spy(), priority='LOWEST')
    runner.train()
    assert len(seen['student']) == len(seen['teacher']) == 8
    for (images_of_one, *state), (images_of_other, *other) in zip(*seen.values()):
        assert torch.equal(images_of_one, images_of_other)
        assert (state, other) == ([True, True], [False, False])


def test_a_resumed_training_has_the_same_teacher(tmp_path, images):
    whole = launch.train(config(tmp_path / 'a', images)) if (tmp_path / 'a').mkdir() is None else 0
    (tmp_path / 'b').mkdir()
    half = config(tmp_path / 'b', images)
    half.train_cfg.max_epochs = 3  # in the middle of MESA
    half.custom_hooks[-1].begin = 2 / 3
    launch.train(half)
    resumed = launch.train(config(tmp_path / 'b', images), resume='auto')
    assert resumed.iter == whole.iter == 8
    ours, theirs = (torch.load(tmp_path / name / 'run/epoch_4.pth', weights_only=False)
                    for name in 'ab')
    for part in ('state_dict', 'ema_state_dict'):
        for name, tensor in ours[part].items():
            torch.testing.assert_close(theirs[part][name], tensor, rtol=1e-4, atol=1e-6, msg=name)
    # The network's weights in the file are the averages.
    average = {k.removeprefix('module.'): v for k, v in ours['ema_state_dict'].items()}
    name = 'head.fc.weight'
    assert not torch.allclose(average[name], ours['state_dict'][name])
    assert torch.equal(average[name], whole.model.head.fc.weight)


@pytest.mark.parametrize('options, message', [
    ({'custom_hooks': [dict(type='MESAHook', weight=1)]}, 'needs one EMAHook.*the config has 0')])
def test_without_ema_the_error_names_the_missing_hook(tmp_path, images, options, message):
    cfg = config(tmp_path, images)
    cfg.merge_from_dict(options)
    with pytest.raises(ConfigError, match=message):
        launch.build_runner(cfg).train()
