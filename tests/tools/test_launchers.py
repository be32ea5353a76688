"""The shell launchers: torchrun's start real processes, on CPUs; Slurm's pass everything on."""
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.engine.conftest import SEGMENTOR
from tests.engine.test_distributed import CONFIG, scalars
from tests.running import run_tool


def launch(script, *arguments, cwd, **environment):
    path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
    return subprocess.run([str(REPO / 'tools' / script), *arguments], cwd=cwd, text=True,
                          capture_output=True, env={**os.environ, 'PATH': path, **environment})


def start(script, *arguments, cwd, log, **environment):
    """A running launcher; its output and its processes' goes to a file."""
    path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
    with open(log, 'w') as out:
        return subprocess.Popen([str(REPO / 'tools' / script), *arguments], cwd=cwd, stdout=out,
                                stderr=subprocess.STDOUT,
                                env={**os.environ, 'PATH': path, **environment})


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope='module')
def killed(tmp_path_factory, tiny_ade20k):
    """Training on two nodes of one process each, until that of the second is killed.

    Returns:
        Each node's folder, log and exit status, and the seconds until the job ended.
    """
    folder = tmp_path_factory.mktemp('launched')
    (folder / 'tiny.py').write_text(SEGMENTOR.replace('ROOT', str(tiny_ade20k)))
    (folder / 'two.py').write_text(f"""{CONFIG}
train_cfg = dict(max_iters=9999, val_interval=9999)
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=-1))
""")
    port, logs = free_port(), [folder / f'node{rank}.log' for rank in range(2)]
    nodes = [start('dist_train.sh', 'two.py', '1', cwd=folder, log=log, NNODES='2',
                   NODE_RANK=str(rank), PORT=port, OMP_NUM_THREADS='1')
             for rank, log in enumerate(logs)]
    while not (folder / 'work_dirs/two/iter_2.pth').exists():
        assert [node.poll() for node in nodes] == [None, None], logs[0].read_text()[-3000:]
        time.sleep(0.2)
    pid = nodes[1].pid
    worker, = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    began = time.monotonic()
    status = [node.wait(120) for node in nodes]
    return folder, [log.read_text() for log in logs], status, time.monotonic() - began, worker


def test_two_nodes_train_until_a_process_is_killed(killed):
    """The job ends within a minute, with a message, though the other process waits for it."""
    folder, logs, status, seconds, worker = killed
    print(f'{seconds:.1f} s from SIGKILL to the end')
    assert 'The batch is 4 (2 x 2 processes)' in logs[0] and 'Iter(train) [   2/9999]' in logs[0]
    assert status == [1, 1] and seconds < 60
    assert f'Signal 9 (SIGKILL) received by PID {worker}' in logs[1]
    assert 'train.py FAILED' in logs[0]


def test_two_processes_test_as_one(killed):
    """An odd number of images: the same metrics, to the last digit."""
    folder, checkpoint = killed[0], 'work_dirs/two/iter_2.pth'
    test = start('dist_test.sh', 'two.py', checkpoint, '2', '--work-dir', 'double', cwd=folder,
                 log=folder / 'test.log', PORT=free_port(), OMP_NUM_THREADS='1')
    done = run_tool('test.py', 'two.py', checkpoint, '--work-dir', 'single', cwd=folder,
                    environment=dict(OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.output[-3000:]
    assert test.wait(300) == 0, (folder / 'test.log').read_text()[-3000:]
    assert scalars(folder / 'double') == scalars(folder / 'single')
    assert scalars(folder / 'double')['mIoU'] > 0


@pytest.mark.parametrize('script, arguments, expected', [
    ('slurm_train.sh', ['part', 'job', 'my config.py', 'work', '--resume'],
     ['my config.py', '--work-dir', 'work', '--launcher', 'slurm', '--resume']),
    ('slurm_test.sh', ['part', 'job', 'my config.py', 'x.pth', '--tta'],
     ['my config.py', 'x.pth', '--launcher', 'slurm', '--tta'])])
def test_srun_gets_the_jobs_arguments(script, arguments, expected, tmp_path):
    """With an srun that prints its arguments, for lack of a cluster."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = launch(script, *arguments, cwd=tmp_path, GPUS='16',
                  PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert done.returncode == 0, done.stderr
    got = done.stdout.splitlines()
    assert got[-len(expected):] == expected
    assert {'--ntasks=16', '--ntasks-per-node=8', '--gres=gpu:8', '--job-name=job'} <= set(got)


@pytest.mark.parametrize('batch_job', [False, True])
def test_slurm_resumes_after_its_time_limit(batch_job, tmp_path):
    """With an srun whose first job ends as after a notice."""
    for name, text in (('srun', 'echo "$@" >> jobs; exit $(($(wc -l < jobs) == 1 ? 75 : 3))'),
                       ('scontrol', 'echo "$@" >> jobs')):
        (tmp_path / name).write_text(f'#!/bin/sh\n{text}\n')
        (tmp_path / name).chmod(0o755)
    job = dict(SLURM_JOB_ID='7', SLURM_RESTART_COUNT='1') if batch_job else {}
    done = launch('slurm_train.sh', 'part', 'job', 'config.py', 'work', '--amp', 'bf16',
                  cwd=tmp_path, PATH=f'{tmp_path}:{os.environ["PATH"]}', **job)
    first, second = (tmp_path / 'jobs').read_text().splitlines()
    assert '--signal=USR1@120' in first
    if batch_job:
        assert first.endswith('--amp bf16 --resume') and second == 'requeue 7'
        assert done.returncode == 0, done.stderr
    else:
        assert first.endswith('--amp bf16') and second == f'{first} --resume'
        assert done.returncode == 3  # a job that failed is not started again


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh',
                                    'slurm_test.sh'])
def test_without_arguments_they_print_their_usage(script, tmp_path):
    done = launch(script, cwd=tmp_path)
    assert done.returncode != 0 and 'usage:' in done.stderr
