"""Gradual unfreezing, early stopping, and trackers."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel

from fastervit_mm import FasterViT
from fastervit_mm.config_files import ConfigError
from fastervit_mm.engine import UnfreezeHook, launch
from fastervit_mm.engine.curves import read_run
from fastervit_mm.engine.runner import QuietRunner
from tests.conftest import TINY
from tests.engine.conftest import SEGMENTOR
from tests.running import run_tool


class Network(BaseModel):
    """A backbone and a head."""

    def __init__(self, **settings):
        super().__init__()
        self.backbone, self.head = FasterViT(TINY, **settings), torch.nn.Linear(128, 1)

    def forward(self, *inputs, mode):
        score = self.head(self.backbone(torch.stack(inputs))[-1].mean((2, 3)))
        return dict(loss=(score - 1).square().mean()) if mode == 'loss' else [{}] * len(inputs)


class Scripted(BaseMetric):
    """Scores that are known before."""

    def __init__(self, scores):
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(mIoU=next(self.scores))


class Trained(Hook):
    """Parts of the network that changed since the last look, every two iterations."""
    priority = 'LOWEST'

    def __init__(self):
        self.parts = []

    def before_train(self, runner):
        self.last = self.state(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter % 2:
            now = self.state(runner)
            self.parts.append(sorted({'.'.join(name.split('.')[1:3 if 'stage' in name else 2])
                                      or name for name, value in now.items()
                                      if not torch.equal(value, self.last[name])}))
            self.last = now

    def state(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        return {name: value.clone() for name, value in model.state_dict().items()
                if name.startswith(('head.w', 'backbone.st'))}


def loader(batch):
    data = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return dict(batch_size=batch, dataset=list(data), sampler=dict(type='DefaultSampler'))


def runner(folder, name, hooks, model=None, **settings):
    settings.setdefault('train_cfg', dict(type='ResumableEpochLoop', max_epochs=3))
    return QuietRunner(
        model or Network(), str(folder), train_dataloader=loader(2), custom_hooks=hooks,
        optim_wrapper=dict(constructor='MergedOptimWrapperConstructor', paramwise_cfg=dict(
            norm_decay_mult=0.), optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1)),
        default_scope='mmengine', randomness=dict(seed=0),
        experiment_name=f'{folder.name}_{name}', **settings)


STAGES = ['stages.0', 'stages.1', 'stages.2', 'stages.3']


@pytest.mark.parametrize('milestones, loop, settings, expected', [
    ((1, 1, 2), dict(type='ResumableEpochLoop', max_epochs=3), {},
     [[], STAGES[2:], STAGES[1:]]),
    ((2, 2, 4), dict(type='ResumableIterLoop', max_iters=6), {},
     [[], STAGES[2:], STAGES[1:]]),
    ((0, 0, 1, 2), dict(type='ResumableEpochLoop', max_epochs=3), {},
     [STAGES[2:], STAGES[1:], [*STAGES, 'stem']]),
    ((0, 1, 2, 2), dict(type='ResumableEpochLoop', max_epochs=3), dict(frozen_stages=1),
     [STAGES[3:], STAGES[2:], STAGES[1:]])])
def test_stages_train_from_their_milestones_on(milestones, loop, settings, expected, tmp_path):
    """Weights and statistics; by epochs of two iterations, or by iterations."""
    trained = Trained()
    run = runner(tmp_path, 'run', [UnfreezeHook(milestones), trained], Network(**settings),
                 train_cfg=loop)
    run.train()
    assert trained.parts == [sorted([*parts, 'weight']) for parts in expected]
    # Frozen at first, and yet with the settings of its kind.
    decay = {name: group['weight_decay'] for group in run.optim_wrapper.param_groups
             for name in group.get('param_names', ())}
    assert (decay['backbone.stages.3.blocks.0.attn.qkv.weight'],
            decay['backbone.stages.3.blocks.0.norm1.weight']) == (0.1, 0)


def test_a_resumed_run_unfreezes_as_an_undisturbed_one(tmp_path):
    for folder, epochs, again in (('whole', 4, False), ('halves', 2, False), ('halves', 4, True)):
        torch.manual_seed(0)
        run = runner(tmp_path / folder, epochs, [UnfreezeHook((1, 3))], resume=again,
                     train_cfg=dict(type='ResumableEpochLoop', max_epochs=epochs))
        run.train()
    first, second = (torch.load(tmp_path / folder / 'epoch_4.pth')['state_dict']
                     for folder in ('whole', 'halves'))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_several_processes_must_expect_parameters_without_a_gradient(tmp_path, monkeypatch):
    for name, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1',
                            MASTER_PORT=0).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    trained = Trained()
    try:
        for name, hooks, wrapper in (('refused', [UnfreezeHook((1, 1))], {}),
                                     ('runs', [UnfreezeHook((1, 1)), trained],
                                      dict(find_unused_parameters=True))):
            run = runner(tmp_path, name, hooks, launcher='pytorch', cfg=Config(wrapper))
            if name == 'refused':
                with pytest.raises(ConfigError, match='Set find_unused_parameters=True'):
                    run.train()
        run.train()
    finally:
        torch.distributed.destroy_process_group()
    assert trained.parts == [['weight'], [*STAGES[2:], 'weight'], [*STAGES[2:], 'weight']]


def until(folder, name, epochs, scores, **settings):
    """Epoch at which a run ends that waits for three validations."""
    run = runner(
        folder, name, [dict(type='ResumableEarlyStoppingHook', monitor='mIoU', patience=3),
                       dict(type='MissedValidationHook')],
        train_cfg=dict(type='ResumableEpochLoop', max_epochs=epochs), val_cfg=dict(),
        val_dataloader=loader(4), val_evaluator=[Scripted(scores)],
        default_hooks=dict(checkpoint=dict(type='WholeCheckpointHook', interval=1,
                                            save_best='mIoU')),
        log_processor=dict(type='MemoryLogProcessor'), visualizer=dict(
            type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]), **settings)
    run.train()
    return run.epoch


def test_training_stops_when_the_score_no_longer_rises(tmp_path):
    assert until(tmp_path, 'run', 20, [10, 30, 30.05, 20, 30, 40]) == 5
    assert [path.name for path in tmp_path.glob('best_*')] == ['best_mIoU_epoch_3.pth']


def test_a_resumed_run_counts_the_validations_before_it(tmp_path):
    assert until(tmp_path, 'first', 4, [10, 30, 20, 20]) == 4
    assert until(tmp_path, 'second', 20, [20, 20], resume=True) == 5
    assert until(tmp_path, 'third', 20, [], resume=True) == 5  # it had stopped already


def test_a_validation_that_is_rerun_counts_once(tmp_path):
    assert until(tmp_path, 'first', 4, [10, 30, 20, 20]) == 4
    (tmp_path / 'last_validation').write_text('6')  # that of the third epoch
    assert until(tmp_path, 'second', 20, [20, 20, 20], resume=True) == 5


def test_mmengines_hooks_become_those_that_resume():
    hook = dict(type='EarlyStoppingHook', monitor='mIoU', min_delta=1)
    cfg = Config(dict(train_cfg=dict(by_epoch=True), custom_hooks=[dict(hook)],
                      default_hooks=dict(stop=dict(hook), checkpoint=dict(type='CheckpointHook'))))
    launch.add_for_training(cfg)
    resumable = dict(hook, type='ResumableEarlyStoppingHook')
    assert cfg.custom_hooks[0] == cfg.default_hooks.stop == resumable
    assert cfg.default_hooks.checkpoint.type == 'WholeCheckpointHook'


@pytest.mark.long
def test_a_tracker_gets_losses_and_metrics(tiny_ade20k, tmp_path):
    """ClearML, which writes files where CLEARML_OFFLINE_MODE is set."""
    (tmp_path / 'segmentor.py').write_text(SEGMENTOR.replace('ROOT', str(tiny_ade20k)))
    done = run_tool(
        'train.py', 'segmentor.py', '--cfg-options',
        'visualizer.vis_backends.1.type=ClearMLVisBackend',
        'visualizer.vis_backends.1.init_kwargs.project_name=streets', cwd=tmp_path,
        environment=dict(CLEARML_OFFLINE_MODE='1', HOME=str(tmp_path)))
    assert done.returncode == 0, done.output[-3000:]
    file, = tmp_path.rglob('metrics.jsonl')
    found = {}
    for event in (event for line in file.read_text().splitlines() for event in json.loads(line)):
        if 'value' in event:
            found.setdefault(event['metric'], {})[event['iter']] = event['value']
    for name, steps in (('loss', [2, 4, 6, 8]), ('mIoU', [4, 8])):
        assert found[name] == dict(read_run(tmp_path / 'work_dirs/segmentor')[name])
        assert list(found[name]) == steps
