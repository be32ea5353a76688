"""Stopped runs resume as if they had never been stopped."""
import copy
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import islice

import numpy
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner

from fastervit_mm.engine.checkpoints import INTERRUPTED, newest_checkpoint, save_whole
from fastervit_mm.engine.notices import REQUEUE, SIGNALS
from fastervit_mm.engine.resuming import _Forward, reproducible
from fastervit_mm.weights import CheckpointError, read_checkpoint
from tests.conftest import REPO, load_program
from tests.running import Started, run_tool


@pytest.fixture(scope='module')
def campaign():
    return load_program('benchmarks/soak.py')


def start(config, work_dir, log):
    return Started(log, 'train.py', config, '--work-dir', work_dir, '--resume', cwd=config.parent)


@pytest.mark.long
def test_a_run_killed_anywhere_ends_like_an_undisturbed_one(campaign, tmp_path, session_folder):
    """A shorter `make soak`: kills in a step, in a validation and while a file is written."""
    facts = campaign.soak(tmp_path, kills=3, epochs=4, images=8, longest=1.5, notices=1,
                          begin=start)
    log = (tmp_path / 'killed.log').read_text()[-3000:]
    assert facts['places'] == dict(step=1, validation=1, saving=1, notice=1), log
    assert facts['failed_resumes'] == facts['notices_with_another_status'] == 0, log
    assert facts['most_iterations_lost'] <= 4 and facts['most_lost_on_notice'] == 0
    assert facts['half_written'] == 0 and facts['tensors'] > 1000
    assert facts['different'] == []
    # A comparison that cannot fail would say so of this too.
    other = tmp_path / 'other'
    shutil.copytree(tmp_path / 'plain', other)
    path = newest_checkpoint(other)
    content = read_checkpoint(str(path))
    next(iter(content['state_dict'].values())).mul_(1.000001)
    torch.save(content, other / path.name)
    (other / 'last_checkpoint').write_text(str(other / path.name))
    assert len(campaign.differences(tmp_path / 'plain', other)) == 1


def test_a_run_stopped_and_then_killed_ends_like_an_undisturbed_one(
        campaign, tiny_ade20k, tmp_path):
    """A segmentor of iterations, its random augmentation in other processes; SwinHAT."""
    from tests.engine.conftest import SEGMENTOR, SWIN_HAT
    config = tmp_path / 'segmentor.py'
    config.write_text(SEGMENTOR.replace('ROOT', str(tiny_ade20k)).replace(
        'resize, pack]))', "resize, dict(type='RandomFlip', prob=0.5), "
        "dict(type='PhotoMetricDistortion'), pack]))", 1).replace(
        'num_workers=0, persistent_workers=False', 'num_workers=1, persistent_workers=True'
    ).replace('interval=2', 'interval=1').replace('max_iters=8', 'max_iters=12') +
        f"\nmodel['backbone'] = dict(**{SWIN_HAT})\n"
        "custom_hooks = [dict(type='EMAHook')]\nrandomness['deterministic'] = True\n"
        "val_dataloader.update(\n"
        "    num_workers=0, persistent_workers=False)\n")
    plain, stopped = tmp_path / 'plain', tmp_path / 'stopped'
    undisturbed = start(config, plain, tmp_path / 'plain.log')

    def stop(number, place):
        """Exit status and output of a run that, with its workers, gets a signal at an iteration."""
        log = tmp_path / f'{number}.log'
        run = start(config, stopped, log)
        while f'Iter(train) [{place}/12]' not in log.read_text() and run.poll() is None:
            time.sleep(0.01)
        os.killpg(run.pid, number)
        return run.wait(), log.read_text()

    status, said = stop(signal.SIGTERM, ' 6')
    assert status == REQUEUE, said[-3000:]
    assert (stopped / INTERRUPTED).is_file() or (stopped / 'iter_8.pth').is_file()
    assert 'Stopped on SIGTERM at iteration' in said
    status, said = stop(signal.SIGKILL, ' 9')
    assert status == -signal.SIGKILL and not (stopped / 'iter_12.pth').exists(), said[-3000:]
    done = run_tool('train.py', config, '--work-dir', stopped, '--resume', cwd=tmp_path)
    assert done.returncode == 0, done.output[-3000:]
    assert not (stopped / INTERRUPTED).exists()  # the next checkpoint has taken its place
    assert undisturbed.wait() == 0
    assert any('relative_position_bias_table' in name for name in read_checkpoint(
        str(newest_checkpoint(plain)))['state_dict'])
    assert campaign.differences(plain, stopped) == []


class Pressed(BaseModel):
    """Ctrl-C comes so many times in a step."""

    def __init__(self, times):
        super().__init__()
        self.weight, self.times = torch.nn.Parameter(torch.ones(1)), times

    def forward(self, inputs, mode):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)
        return dict(loss=(self.weight * inputs).sum()) if mode == 'loss' else [{}]


@pytest.mark.parametrize('times, ignored, says', [
    (1, False, r'stopped at iteration 1; saved in .*run/interrupted\.pth'), (2, False, '^$'),
    (2, True, None)])
def test_ctrl_c_saves_but_not_a_second_one_or_one_in_the_background(
        tmp_path, times, ignored, says):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match=says) if says else nullcontext():
            Runner(Pressed(times), str(tmp_path / 'run'), train_dataloader=dict(
                batch_size=1, dataset=[torch.ones(1)] * 2, sampler=dict(type='DefaultSampler')),
                train_cfg=dict(by_epoch=True, max_epochs=1), default_scope='mmengine',
                custom_hooks=[dict(type='NoticeHook')], experiment_name=tmp_path.name,
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))).train()
        assert signal.getsignal(signal.SIGINT) == (
            signal.SIG_IGN if ignored else signal.default_int_handler)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert (tmp_path / 'run' / INTERRUPTED).exists() == (times == 1)
    assert (tmp_path / 'run/epoch_1.pth').exists() == ignored


class Counted(BaseMetric):
    """How often it was asked."""
    times = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.times += 1
        return dict(images=len(results))


def test_an_interrupted_validation_is_rerun(tmp_path):
    loader = dict(batch_size=1, dataset=[torch.ones(1)] * 2, sampler=dict(type='DefaultSampler'))

    def validations(name, **settings):
        metric = Counted()
        Runner(Pressed(0), str(tmp_path), train_dataloader=loader, val_dataloader=loader,
               train_cfg=dict(type='ResumableEpochLoop', max_epochs=2), val_cfg=dict(),
               val_evaluator=[metric], optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
               custom_hooks=[dict(type='MissedValidationHook')], default_scope='mmengine',
               experiment_name=f'{tmp_path.name}_{name}', **settings).train()
        return metric.times

    assert validations('whole') == 2
    last = dict(resume=True, load_from=str(tmp_path / 'epoch_2.pth'))
    assert validations('again', **last) == 0
    (tmp_path / 'last_validation').write_text('2')  # that of the first epoch
    assert validations('missed', **last) == 1 and validations('made_up', **last) == 0


class Seeing(Pressed):
    """Records the samples it is trained on."""

    def __init__(self):
        super().__init__(0)
        self.seen = []

    def forward(self, *inputs, mode):
        self.seen.append([int(one) for one in inputs])
        return super().forward(sum(inputs), mode)


def test_an_epoch_resumes_from_its_middle_in_its_own_order(tmp_path):
    def seen(name, **settings):
        model = Seeing()
        Runner(model, str(tmp_path), train_dataloader=dict(
            batch_size=2, dataset=[torch.tensor(float(i)) for i in range(8)],
            sampler=dict(type='DefaultSampler', shuffle=True)),
            train_cfg=dict(type='ResumableEpochLoop', max_epochs=2), default_scope='mmengine',
            default_hooks=dict(checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=6)), randomness=dict(seed=0),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            experiment_name=f'{tmp_path.name}_{name}', **settings).train()
        return model.seen

    whole = seen('whole')
    assert sorted(sum(whole[4:], [])) == list(range(8)) and whole[4:] != whole[:4]
    assert seen('rest', resume=True, load_from=str(tmp_path / 'iter_6.pth')) == whole[6:]


class Noise(list):
    """A dataset of random numbers, as augmentation draws them."""
    METAINFO = dict(classes=('noise',))

    def __getitem__(self, index):
        return (index, random.random(), numpy.random.rand(), torch.rand(()).item())


@pytest.mark.parametrize('sampler', [
    dict(type='DefaultSampler', shuffle=True), dict(type='InfiniteSampler', shuffle=True)])
def test_random_numbers_depend_only_on_seed_process_epoch_and_index(sampler):
    """Not on workers, other users of random numbers, or the loader's start."""
    def loader(workers):
        return reproducible(Runner.build_dataloader(dict(
            dataset=Noise(range(11)), sampler=dict(sampler), batch_size=3, num_workers=workers,
            collate_fn=list), seed=5), 5)

    def batches(loader, epoch, skip=0):
        loader.batch_sampler.leave_out(skip, epoch)
        state = random.getstate(), numpy.random.get_state()[1]
        found = list(islice(loader, 4 - skip))
        if not loader.num_workers:  # outside, random numbers go on as if there were no dataset
            assert random.getstate() == state[0]
            assert (numpy.random.get_state()[1] == state[1]).all()
        return found

    one = loader(0)
    whole = batches(one, 0)
    assert len({number for batch in whole for sample in batch for number in sample[1:]}) >= 30
    torch.rand(1)
    random.random()
    assert batches(loader(0), 0) == batches(loader(2), 0) == whole
    assert batches(loader(0), 0, skip=2) == batches(loader(1), 0, skip=2) == whole[2:]
    if sampler['type'] == 'DefaultSampler':
        later = batches(one, 1)
        (first, second) = ({s for batch in found for s in batch} for found in (whole, later))
        assert {s[0] for s in first} == {s[0] for s in second} and not first & second
    # Still the dataset, for whoever asks or changes it.
    assert isinstance(one.dataset, Noise) and one.dataset.METAINFO == Noise.METAINFO
    one.dataset.pipeline = 'another'
    assert one.dataset.dataset.pipeline == 'another' and one.dataset[3][0] == 3
    assert isinstance(copy.copy(pickle.loads(pickle.dumps(one.dataset))), Noise)


@pytest.fixture
def run(by_epoch, tmp_path):
    """A copy of a work directory with the checkpoints of three epochs."""
    shutil.copytree(by_epoch.work_dir, tmp_path / 'run')
    (tmp_path / 'run/last_checkpoint').write_text(str(by_epoch.work_dir / 'epoch_3.pth'))
    return tmp_path / 'run'


# A file system of the given size over the run, for the command alone; what it leaves is copied.
FULL_DISK = """
mount -t tmpfs -o size="$1" none "$2" && cp -a "$3/." "$2" && cd "$2/.." || exit 9
left=$4; run=$2; shift 4
"$@"; status=$?
cp -a "$run/." "$left"
exit $status
"""


@pytest.mark.long
def test_a_full_disk_loses_nothing(by_epoch, run, tmp_path):
    """A checkpoint does not fit; resumed despite a truncated one of an earlier crash."""
    (run / 'last_checkpoint').write_text(str(run / 'epoch_3.pth'))
    cut(run / 'epoch_3.pth', 0.5)
    before = {path.name: path.read_bytes() for path in run.glob('*.pth')}
    copy, left = tmp_path / 'copy', tmp_path / 'left'
    shutil.copytree(run, copy)
    left.mkdir()
    used = sum(path.stat().st_size for path in run.rglob('*'))
    room = used + len(before['epoch_2.pth']) // 2
    command = [sys.executable, '-W', 'ignore', str(REPO / 'tools/train.py'),
               str(by_epoch.work_dir.parents[1] / 'tiny_detector.py'), '--work-dir', str(run),
               '--resume', '--cfg-options', 'train_cfg.max_epochs=3', 'val_evaluator=None',
               'val_dataloader=None', 'val_cfg=None']
    if subprocess.run(['unshare', '-rm', 'true'], capture_output=True).returncode:
        # Not allowed to mount anything: a file may not grow beyond half of a checkpoint.
        limit, why, left = ['bash', '-c', f'ulimit -f {(room - used) // 1024}; exec "$@"', '-'], (
            'File too large'), run
    else:
        limit, why = ['unshare', '-rm', 'sh', '-c', FULL_DISK, '-', str(room), str(run), str(copy),
                      str(left)], 'No space left on device'
    done = subprocess.run([*limit, *command], capture_output=True, text=True, cwd=tmp_path)
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1, done.stderr[-3000:]
    assert said.startswith('train: ') and f'epoch_3.pth could not be saved: {why}' in said
    assert f'the last checkpoint is {run}/epoch_2.pth' in said and '--resume' in said
    assert f'{run}/epoch_3.pth is not used' in done.stdout + done.stderr
    assert 'resumed epoch: 2' in done.stdout + done.stderr
    assert {path.name: path.read_bytes() for path in left.glob('*.pth*')} == before


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'old')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(name):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            (tmp_path / name).write_bytes(bytes(100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        with pytest.raises(OSError, match=f'{name} could not be saved.*no earlier checkpoint'):
            save_whole(save, tmp_path, name, tmp_path / 'none')
        assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']
        assert (tmp_path / 'epoch_1.pth').read_bytes() == b'old'


def cut(path, to=0.9):
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * to)])


def test_the_newest_whole_checkpoint_is_found(run, caplog):
    assert newest_checkpoint(run).name == 'epoch_3.pth'
    assert newest_checkpoint(run).parent != run  # where last_checkpoint says
    (run / 'last_checkpoint').write_text('/nowhere/epoch_3.pth')
    assert newest_checkpoint(run) == run / 'epoch_3.pth'  # the folder has moved
    cut(run / 'epoch_3.pth')
    assert newest_checkpoint(run) == run / 'epoch_2.pth'
    content = bytearray((run / 'epoch_2.pth').read_bytes())
    content[len(content) // 2] ^= 255  # one byte, as a bad disk does
    (run / 'epoch_2.pth').write_bytes(content)
    for pointer in ('', str(run / 'epoch_2.pth'), 'epoch_3.pth'):  # the first is cut short itself
        (run / 'last_checkpoint').write_text(pointer)
        assert newest_checkpoint(run) == run / 'epoch_1.pth'
    (run / 'last_checkpoint').unlink()
    assert newest_checkpoint(run) == run / 'epoch_1.pth'
    cut(run / 'epoch_1.pth', 0)
    with pytest.raises(CheckpointError, match='No checkpoint in .* can be resumed from: .*_1.pth'):
        newest_checkpoint(run)
    for path in run.glob('epoch_*.pth'):
        path.unlink()
    assert newest_checkpoint(run) is None


def test_checkpoints_with_nan_are_skipped_on_request(run):
    content = read_checkpoint(str(run / 'epoch_3.pth'))
    next(iter(content['state_dict'].values())).fill_(float('nan'))
    torch.save(content, run / 'epoch_3.pth')
    (run / 'last_checkpoint').write_text(str(run / 'epoch_3.pth'))
    assert newest_checkpoint(run) == run / 'epoch_3.pth'
    assert newest_checkpoint(run, finite=True) == run / 'epoch_2.pth'


def test_resuming_without_a_checkpoint_starts_at_the_beginning(by_epoch, tmp_path):
    """With the config's initial weights, which mmengine would skip."""
    config = by_epoch.work_dir.parents[1] / 'tiny_detector.py'
    begin = by_epoch.work_dir / 'epoch_2.pth'
    done = run_tool('train.py', config, '--work-dir', tmp_path / 'new', '--resume',
                    '--cfg-options', f'load_from={begin}', 'train_cfg.max_epochs=1',
                    'train_dataloader.dataset.indices=2', 'val_evaluator=None',
                    'val_dataloader=None', 'val_cfg=None', cwd=tmp_path)
    assert done.returncode == 0, done.output[-3000:]
    assert 'to resume from: training starts at the beginning' in done.output
    assert f'Load checkpoint from {begin}' in done.output


def test_a_non_finite_loss_stops_the_run(by_epoch, run):
    config = by_epoch.work_dir.parents[1] / 'tiny_detector.py'
    (run / 'last_checkpoint').unlink()
    (run / 'epoch_3.pth').unlink()
    done = run_tool('train.py', config, '--work-dir', run, '--resume', '--cfg-options',
                    'model.rpn_head.loss_cls.loss_weight=1e39',
                    'train_cfg.max_epochs=4', cwd=run.parent)
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and said.startswith('train: '), done.output[-3000:]
    assert 'loss=nan' in said or 'loss=inf' in said
    assert 'of 16 (epoch 3)' in said and said.count('train2017/') == 2
    assert f'The last good checkpoint is {run}/epoch_2.pth' in said
    assert sorted(path.name for path in run.glob('epoch_*')) == ['epoch_1.pth', 'epoch_2.pth']


@pytest.mark.parametrize('at_once', [False, True])
def test_batches_are_skipped_one_by_one_or_at_once(at_once):
    """OpenMMLab's mmengine asks for each, OneDL's says how many."""
    data = torch.utils.data.TensorDataset(torch.arange(10))
    loader = reproducible(torch.utils.data.DataLoader(data, batch_size=2), seed=0)
    batches = _Forward(loader, skip=7)  # in the second epoch
    if at_once:
        batches.skip_iter(7)
    else:
        assert [next(batches) for _ in range(7)] == [None] * 7
    assert [next(batches)[0].tolist() for _ in range(4)] == [[4, 5], [6, 7], [8, 9], [0, 1]]
