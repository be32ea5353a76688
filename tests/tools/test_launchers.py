"""The shell launchers hand everything on. The training behind them needs GPUs and is not run here.
"""
import os
import subprocess
import sys

import pytest

from tests.conftest import REPO


def launch(script, *arguments, cwd, **environment):
    path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
    return subprocess.run([str(REPO / 'tools' / script), *arguments], cwd=cwd, text=True,
                          capture_output=True, env={**os.environ, 'PATH': path, **environment})


@pytest.mark.parametrize('script, arguments', [
    ('dist_train.sh', ['config.py', '2']), ('dist_test.sh', ['config.py', 'x.pth', '2'])])
def test_torchrun_starts_every_process(script, arguments, tmp_path):
    """Two real processes of the tool, each of which prints its help."""
    done = launch(script, *arguments, '--help', cwd=tmp_path, PORT='29617', OMP_NUM_THREADS='1')
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('--cfg-options') >= 2
    assert done.stdout.count('--split') >= (2 if script == 'dist_test.sh' else 0)


@pytest.mark.parametrize('script, arguments, expected', [
    ('slurm_train.sh', ['part', 'job', 'my config.py', 'work', '--resume'],
     ['my config.py', '--work-dir', 'work', '--launcher', 'slurm', '--resume']),
    ('slurm_test.sh', ['part', 'job', 'my config.py', 'x.pth', '--tta'],
     ['my config.py', 'x.pth', '--launcher', 'slurm', '--tta'])])
def test_srun_gets_the_job(script, arguments, expected, tmp_path):
    """Against an srun that prints its arguments: no cluster is here."""
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
def test_slurm_goes_on_where_the_time_was_over(batch_job, tmp_path):
    """Against an srun whose first job ends as one on notice does."""
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
def test_without_arguments_they_say_how_they_are_used(script, tmp_path):
    done = launch(script, cwd=tmp_path)
    assert done.returncode != 0 and 'usage:' in done.stderr
