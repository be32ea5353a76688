"""`make demo`: from nothing to a detector that works, on held-out pictures."""
import json
import subprocess
import sys

import matplotlib.image
import pytest

from fastervit_mm.engine.curves import read_run
from tests.conftest import REPO

CONFIG = REPO / 'configs/mmdet/cascade_fvit_shapes.py'


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(REPO / 'tools/demo.py'), str(CONFIG), '--work-dir',
         'work_dirs/demo'], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return folder, done.stdout


@pytest.mark.slow
def test_it_learns_for_real(demo):
    facts = json.loads((demo[0] / 'work_dirs/demo/demo.json').read_text())
    assert facts['metrics']['coco/bbox_mAP'] >= 0.80
    assert facts['metrics']['coco/segm_mAP'] >= 0.80


@pytest.mark.slow
def test_the_saved_checkpoint_scores_as_the_trained_model_did(demo):
    """Nothing is lost on the way through the file: tools/test.py repeats the last validation."""
    folder = demo[0] / 'work_dirs/demo'
    last = read_run(next(folder.glob('*/vis_data')).parent)
    metrics = json.loads((folder / 'demo.json').read_text())['metrics']
    for kind in ('bbox', 'segm'):
        assert last[f'coco/{kind}_mAP'][-1][1] == pytest.approx(metrics[f'coco/{kind}_mAP'])


@pytest.mark.slow
def test_it_leaves_pictures_and_says_where(demo):
    folder, output = demo
    for name in ('predictions.png', 'curves.png'):
        picture = matplotlib.image.imread(folder / 'work_dirs/demo' / name)
        assert picture.std() > 0.05  # something is on it
        assert f'work_dirs/demo/{name}' in output
    assert len(list((folder / 'work_dirs/demo/predictions').iterdir())) == 120
    assert 'What to try next' in output and 'mAP_50' in output
    assert 'paramwise_options' not in output  # pages of settings stay in the log file
