"""`make demo`: trains a detector from scratch that works on held-out images."""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

from benchmarks.shapes import make_shapes
from fastervit_mm.engine.curves import read_run
from tests.app import browsing
from tests.conftest import REPO
from tests.docs.pages import fences, tool_call
from tests.running import run_tool

CONFIG = REPO / 'configs/mmdet/cascade_fvit_shapes.py'
PICTURES = 120


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    make_shapes(folder / 'data/shapes')
    done = run_tool('benchmarks.demo', CONFIG, '--work-dir', 'work_dirs/demo', cwd=folder)
    assert done.returncode == 0, done.output[-4000:]
    return folder, done.stdout


def test_it_learns_for_real(demo):
    facts = json.loads((demo[0] / 'work_dirs/demo/demo.json').read_text())
    assert facts['metrics']['coco/bbox_mAP'] >= 0.80
    assert facts['metrics']['coco/segm_mAP'] >= 0.78


def test_it_says_early_how_long_training_takes(demo):
    output = demo[1]
    said, = re.finditer(r'About (\d+) minutes? of training on this machine', output)
    assert output[:said.start()].count('loss: ') <= 3
    assert int(said[1]) >= 1


def test_the_saved_checkpoint_scores_as_the_trained_model_did(demo):
    """tools/test.py gives the metrics of the last validation."""
    folder = demo[0] / 'work_dirs/demo'
    last = read_run(next(folder.glob('*/vis_data')).parent)
    metrics = json.loads((folder / 'demo.json').read_text())['metrics']
    for kind in ('bbox', 'segm'):
        assert last[f'coco/{kind}_mAP'][-1][1] == pytest.approx(metrics[f'coco/{kind}_mAP'])


def test_it_leaves_figures_and_names_their_folder(demo):
    folder, output = demo
    for name in ('predictions.png', 'curves.png'):
        picture = matplotlib.image.imread(folder / 'work_dirs/demo' / name)
        assert picture.std() > 0.05  # something is on it
        assert f'work_dirs/demo/{name}' in output
    assert len(list((folder / 'work_dirs/demo/predictions').iterdir())) == PICTURES
    assert 'What to try next' in output and 'mAP_50' in output
    assert 'paramwise_options' not in output  # pages of settings stay in the log file


def test_the_page_shows_what_it_learned(demo, tmp_path):
    """tools/demo_app.py in a browser: names, boxes and attention are right."""
    browsing.check_that_the_page_shows_what_the_detector_learned(
        demo[0], tmp_path, 0.75)


def test_commands_of_the_pages_run_on_its_results(demo):
    """Commands copied from README and docs, in a folder like the clone."""
    folder = demo[0]
    for name in ('configs', 'docs', 'tools'):
        (folder / name).symlink_to(REPO / name)
    tools = ('tools/infer.py', 'tools/visualize.py', 'tools/browse_dataset.py')
    calls = [call for fence in fences('bash') for command in fence.commands
             if '$FVIT' not in command  # those of test_own_data.py
             and 'needs: weights' not in (fence.mark or '')
             and (call := tool_call(command)) and call[0] in tools]
    assert {call[0] for call in calls} == set(tools)
    readme, = [fence for fence in fences('python') if fence.mark == 'after: make demo']
    for command in [*calls, ['-c', readme.text]]:
        for out in ('seen', 'inside', 'fed'):
            shutil.rmtree(folder / 'work_dirs' / out, ignore_errors=True)
        if command[0] == '-c':
            done = subprocess.run([sys.executable, '-W', 'ignore', *command], cwd=folder,
                                  capture_output=True, text=True)
        else:
            done = run_tool(Path(command[0]).name, *command[1:], cwd=folder)
        assert done.returncode == 0, f'{command}\n{(done.stdout + done.stderr)[-3000:]}'
        left = sum(len(list((folder / 'work_dirs' / out).rglob('*.*')))
                   for out in ('seen', 'inside', 'fed'))
        assert left >= 3, command
    assert len(list((folder / 'work_dirs/seen/vis').iterdir())) == PICTURES
