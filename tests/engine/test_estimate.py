"""A run logs early how long it will take."""
import re
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

import fastervit_mm.engine  # noqa: F401  (registers the hook)

LINE = re.compile(r'About (.+) of training on this machine \(([\d.]+) s an iteration, (\d+) '
                  r'iterations\), validation not included')

LEFT = re.compile(LINE.pattern.replace('on this machine', 'left'))


class Slow(BaseModel):
    """The first two iterations, or the given ones, take much longer than the others."""

    def __init__(self, slow=(1, 2)):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.done, self.slow = 0, slow

    def forward(self, inputs, mode):
        self.done += 1
        time.sleep(0.5 if self.done in self.slow else 0.05)
        return dict(loss=(self.weight * inputs).sum())


class Stop(Hook):
    """Ends a run after some iterations, however many were planned."""

    def __init__(self, after):
        self.after = after

    def after_train_iter(self, runner, *args, **kwargs):
        runner.train_loop.stop_training = runner.iter + 1 >= self.after


def said(folder: Path, max_iters: int, stop: int, resume: bool = False, slow=(1, 2), line=LINE):
    """Estimates in a run's log: (match, last iteration logged before it)."""
    Runner(
        Slow(slow), str(folder), resume=resume,
        train_dataloader=dict(batch_size=1, dataset=[torch.ones(1)] * 4,
                              sampler=dict(type='InfiniteSampler')),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1),
                           checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4)),
        custom_hooks=[dict(type='EstimateHook', skipped=2, measured=4), Stop(stop)],
        log_processor=dict(by_epoch=False), experiment_name=f'{folder.name}_{resume}',
        default_scope='mmengine').train()
    log = max(folder.glob('*/*.log')).read_text()
    return [(found, re.findall(r'Iter\(train\) \[ *(\d+)/', log[:found.start()])[-1:])
            for found in line.finditer(log)]


def test_it_is_logged_once_without_the_first_iterations(tmp_path):
    (found, before), = said(tmp_path, max_iters=2400, stop=10)
    assert before == ['6']  # iterations 3 to 6 counted
    each, iterations = float(found[2]), int(found[3])
    assert 0.05 <= each < 0.2 and iterations == 2400  # the first two take 0.5 s
    minutes = int(found[1].removesuffix(' minutes'))
    assert minutes == pytest.approx(2400 * each / 60, rel=0.1, abs=0.6)


def test_a_short_run_is_estimated_in_seconds_and_a_resumed_one_for_the_rest(tmp_path):
    (found, _), = said(tmp_path, max_iters=20, stop=8)
    assert found[1].endswith(' seconds') and found[3] == '20'
    (found, _), = said(tmp_path, max_iters=20, stop=20, resume=True)
    assert found[3] == '12'


def test_a_run_that_ends_before_has_no_estimate(tmp_path):
    assert said(tmp_path, max_iters=5, stop=5) == []


def test_it_is_corrected_for_slower_iterations_but_not_for_one(tmp_path):
    """For the remaining time. A single slow one is like that after a validation."""
    (found, before), = said(tmp_path, max_iters=2400, stop=14, slow=(5, *range(11, 15)), line=LEFT)
    assert before == ['14']  # iterations 11 to 14 counted, and not 5, nor 7 to 10 again
    assert float(found[2]) >= 0.5 and found[3] == str(2400 - 14)
    assert int(found[1].removesuffix(' minutes')) >= 19
