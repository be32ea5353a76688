"""A stopped `make demo` continues, and keeps the earlier finished one until it is done."""
import json
import os
import re
import signal
import time

from fastervit_mm.engine.curves import read_run
from tests import samples
from tests.conftest import REPO
from tests.running import Started, run_tool

CONFIG = f"""
_base_ = '{REPO}/configs/mmseg/upernet_fvit_shapes.py'
max_iters = 40
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = None
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=max_iters))
train_dataloader = dict(batch_size=2)
val_dataloader = dict(dataset=dict(indices=8))
test_dataloader = val_dataloader
"""


def test_a_stopped_and_killed_demo_continues(tmp_path, session_folder):
    samples.link_shapes(tmp_path, session_folder)
    config = tmp_path / 'small.py'
    config.write_text(CONFIG)
    folder, before = tmp_path / 'demo', tmp_path / 'demo.previous'
    folder.mkdir()
    (folder / 'demo.json').write_text('{"metrics": {}}')
    (folder / 'predictions.png').write_text('of the finished one')

    def stop(number):
        """Exit status and output of a demo that gets a signal in training."""
        log = tmp_path / f'{number}.log'
        run = Started(log, 'benchmarks.demo', config, '--work-dir', 'demo', cwd=tmp_path)
        while 'Iter(train) [' not in log.read_text() and run.poll() is None:
            time.sleep(0.01)
        os.killpg(run.pid, number)  # as a terminal does, its data loaders too
        status = run.wait()
        assert (before / 'predictions.png').read_text() == 'of the finished one'
        return status, log.read_text()

    status, said = stop(signal.SIGINT)
    assert status == 130, said[-3000:]
    assert 'The earlier demo is kept in demo.previous until this one is whole' in said
    assert 'Traceback' not in said
    at, = re.findall(r'\ndemo: stopped at iteration (\d+); saved in \S+/demo/interrupted.pth; '
                     r'the same command goes on\n$', said)
    status, said = stop(signal.SIGKILL)
    assert status == -signal.SIGKILL and 'Going on with the demo that was stopped in demo' in said
    done = run_tool('benchmarks.demo', config, '--work-dir', 'demo', cwd=tmp_path)
    assert done.returncode == 0, done.output[-3000:]
    assert f'iter: {at}\n' in done.output and 'Trained 40 iterations' in done.output
    assert len(json.loads((folder / 'demo.json').read_text())['metrics']) >= 3
    assert (folder / 'predictions.png').stat().st_size > 1000
    assert not before.exists() and not (folder / 'interrupted.pth').exists()
    assert {step for step, _ in read_run(folder)['loss']} == set(range(1, 41))
