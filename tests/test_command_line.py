"""Errors that users can fix are one line; others keep their traceback."""
import os
import runpy
import subprocess
import sys

import pytest

from fastervit_mm.command_line import errors_in_one_line
from fastervit_mm.weights import CheckpointError
from tests.conftest import REPO

# Each program that takes a config, with what it needs besides.
TOOLS = dict(
    train=[], test=['x.pth'], infer=['x.pth', 'x.png', '--out', 'out'],
    export=['x.pth', 'x.onnx'], visualize=['x.png', '--point', '5', '5', '--out', 'out'],
    browse_dataset=['--out', 'out'], complexity=[],
    swap_backbone=['--arch', '2', 'out.py'])
MISTAKES = {
    "_base_ = 'configs/mmdet/cascade_fvit.py'\n": "'fastervit_mm::mmdet/cascade_fvit.py'",
    'model = dict(\n': 'mine.py, line 1: ',
    '\nx = nothing\n': "mine.py, line 2: NameError: name 'nothing' is not defined",
}


@pytest.mark.parametrize('text', MISTAKES)
@pytest.mark.parametrize('tool', TOOLS)
def test_every_tool_reports_a_mistake_in_a_config(tool, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')  # what a tool sets is taken back
    (tmp_path / 'mine.py').write_text(text)
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', 'mine.py', *TOOLS[tool]])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(REPO / f'tools/{tool}.py'), run_name='__main__')
    message = caught.value.code
    assert message.startswith(f'{tool}: ') and MISTAKES[text] in message
    assert '\n' not in message
    assert os.listdir() == ['mine.py']


def test_a_process_ends_with_status_1_and_a_line(tmp_path):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(REPO / 'tools/train.py'), 'mmdet/cascade_fvit_shapes',
         '--resume', 'gone.pth'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("train: resume='gone.pth': no such")
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('error, says', [
    (KeyboardInterrupt(), 'tool: stopped; go on\n'),
    (KeyboardInterrupt('stopped at iteration 4'), 'tool: stopped at iteration 4; go on\n')])
def test_ctrl_c_ends_in_a_line_and_status_130(error, says, capsys):
    with pytest.raises(SystemExit) as caught, errors_in_one_line('tool', go_on='go on'):
        raise error
    assert caught.value.code == 130 and capsys.readouterr().err == says


@pytest.mark.parametrize('error, says', [
    (CheckpointError('does not fit'), 'tool: does not fit'),
    (FileNotFoundError(2, 'No such file or directory', 'a.jpg'),
     "tool: [Errno 2] No such file or directory: 'a.jpg'"),
    (ValueError('arch'), 'tool: arch ('),  # of other code, here this file: with its place
])
def test_errors_of_users_are_one_line(error, says):
    with pytest.raises(SystemExit) as caught, errors_in_one_line('tool'):
        raise error
    assert caught.value.code.startswith(says)
    assert ('test_command_line.py, line' in caught.value.code) == isinstance(error, ValueError)


@pytest.mark.parametrize('error', [RuntimeError, KeyError, TypeError])
def test_errors_of_programs_keep_their_traceback(error):
    with pytest.raises(error), errors_in_one_line('tool'):
        raise error('a bug')


def test_a_run_keeps_the_traceback_of_a_users_own_code(tmp_path):
    """Once training has begun, a ValueError too."""
    from mmengine.runner import Runner
    from torch import nn
    from torch.optim import SGD

    class Model(nn.Linear):
        def train_step(self, data, optim_wrapper):
            raise ValueError('a bug of mine')

    runner = Runner(
        Model(1, 1), str(tmp_path), train_dataloader=dict(
            dataset=[1], sampler=dict(type='DefaultSampler', shuffle=False), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type=SGD, lr=1.)))
    with pytest.raises(ValueError, match='a bug of mine'), errors_in_one_line('train'):
        runner.train()
