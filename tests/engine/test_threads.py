"""A run on a CPU uses fewer threads if other programs keep the cores busy."""
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from fastervit_mm.engine import launch, precision
from fastervit_mm.engine.threads import thread_counts

IDLE, BUSY = {1: 0.23, 2: 0.16}, {1: 0.27, 2: 2.5}  # measured on two processors


def count(cost, steps, most=2):
    """The threads of each step, and what was said, where a step takes ``cost(step, threads)``."""
    said, used = [], []
    counts = thread_counts(most, said.append)
    threads = next(counts)
    for step in range(steps):
        used.append(threads)
        threads = counts.send(cost(step, threads))
    return used, said


def seconds(cost, used):
    return sum(cost(step, threads) for step, threads in enumerate(used))


def test_an_idle_machine_loses_little():
    for steps in (100, 1000):
        used, said = count(lambda step, threads: IDLE[threads], steps)
        assert seconds(lambda step, threads: IDLE[threads], used) < 1.03 * 0.16 * steps
        assert not said


def test_one_thread_beside_another_program_and_two_afterwards():
    def cost(step, threads):
        return (BUSY if 300 <= step < 700 else IDLE)[threads]
    used, said = count(cost, 1500)
    assert used[295] == 2 and used[310] == used[690] == 1 and used[-1] == 2
    assert seconds(cost, used[300:700]) < 2 * 0.16 * 400
    assert len(said) == 2 and said[0].endswith('training goes on with 1')
    assert said[1].endswith('training goes on with 2')


def test_a_program_that_started_earlier():
    used, said = count(lambda step, threads: BUSY[threads], 1000)
    assert used[8:50] == [1] * 42 and used[-1] == 1 and len(said) == 1
    assert seconds(lambda step, threads: BUSY[threads], used) < 2 * 0.16 * 1000


def test_varying_image_sizes_do_not_change_the_number():
    """Steps of up to twice the time, at random and for long; some of ten times."""
    sizes = 1 + torch.rand(2000)
    sizes[1000:] = 1 + torch.arange(1000) // 100 % 2
    sizes[::97] = 10
    used, said = count(lambda step, threads: IDLE[threads] * float(sizes[step]), 2000)
    assert not said and used.count(1) < 60


def test_of_many_cores_the_free_ones_are_used():
    used, _ = count(lambda step, threads: (1 if threads <= 7 else 10) / threads, 1000, most=8)
    assert used[-1] == 7
    used, _ = count(lambda step, threads: (1 if threads <= 4 else 10) / threads, 1000, most=8)
    assert used[-1] == 4


class Look(Hook):
    """Records the number of threads of each step."""

    def __init__(self):
        self.used = []

    def before_train_iter(self, *args, **kwargs):
        self.used.append(torch.get_num_threads())


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode):
        return dict(loss=(self.weight * inputs).sum())


def test_a_run_tries_and_restores_the_number_of_threads(tmp_path):
    threads, look = torch.get_num_threads(), Look()
    torch.set_num_threads(2)
    try:
        Runner(Line(), str(tmp_path), train_dataloader=dict(
            batch_size=1, dataset=[torch.ones(1)] * 10, sampler=dict(type='DefaultSampler')),
            train_cfg=dict(by_epoch=True, max_epochs=1), custom_hooks=[
                dict(type='ThreadsHook'), look],
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), default_scope='mmengine',
            experiment_name='threads').train()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert 1 in look.used and len(look.used) == 10


@pytest.mark.parametrize('gpu, deterministic, there', [
    (False, False, True), (False, True, False), (True, False, False)])
def test_the_tools_add_the_hook_on_cpus_unless_deterministic(
        built, monkeypatch, gpu, deterministic, there):
    for module in (launch, precision):
        monkeypatch.setattr(module, 'has_amp_device', lambda: gpu)
    cfg = built(launch.train, launch.load_config('mmdet/cascade_fvit_shapes', cfg_options={
        'randomness.deterministic': deterministic}))
    assert (dict(type='ThreadsHook') in cfg.custom_hooks) == there
