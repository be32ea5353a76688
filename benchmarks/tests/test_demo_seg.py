"""`make demo-seg`: from nothing to a segmentor that works, on held-out pictures.

A ninth of its training, on some of the scenes, unless FASTERVIT_MM_FULL_DEMOS is set (`make
test-all`).
"""
import json
import os
import re

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from benchmarks.shapes import make_shapes
from fastervit_mm.engine.curves import read_run
from tests import samples
from tests.conftest import REPO
from tests.running import run_tool

CONFIG = REPO / 'configs/mmseg/upernet_fvit_shapes.py'
FULL = bool(os.environ.get('FASTERVIT_MM_FULL_DEMOS'))
SHORT = f"""
_base_ = '{CONFIG}'
max_iters = 200
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=max_iters)]
default_hooks = dict(checkpoint=dict(interval=max_iters))
"""
PICTURES = 120 if FULL else 60


@pytest.fixture(scope='module')
def demo(tmp_path_factory, session_folder):
    folder = tmp_path_factory.mktemp('demo_seg')
    config = CONFIG
    if FULL:
        make_shapes(folder / 'data/shapes')
    else:
        samples.link_shapes(folder, session_folder)
        config = folder / CONFIG.name
        config.write_text(SHORT)
    done = run_tool('benchmarks.demo', config, '--work-dir', 'work_dirs/demo-seg', cwd=folder)
    assert done.returncode == 0, done.output[-4000:]
    return folder / 'work_dirs/demo-seg', done.stdout


@pytest.mark.slow
def test_it_learns_for_real(demo):
    folder, _ = demo
    metrics = json.loads((folder / 'demo.json').read_text())['metrics']
    assert metrics['mIoU'] >= (80 if FULL else 20)  # ground everywhere has 17
    # The same figure from the label maps themselves, by another way than mmseg's.
    maps = sorted((folder / 'label_maps').iterdir())
    assert len(maps) == PICTURES
    truth = folder.parents[1] / 'data/shapes/labels/val'
    pairs = np.zeros((5, 5))
    for path in maps:
        predicted, labelled = (np.asarray(Image.open(p)) for p in (path, truth / path.name))
        np.add.at(pairs, (labelled.ravel(), predicted.ravel()), 1)
    iou = pairs.diagonal() / (pairs.sum(0) + pairs.sum(1) - pairs.diagonal())
    assert metrics['mIoU'] == pytest.approx(100 * iou.mean(), abs=0.01)
    table = (folder / 'table.txt').read_text()
    for name, value in zip(('ground', 'circle', 'square', 'triangle', 'star'), iou):
        assert re.search(rf'{name} +│ +{100 * value:.2f} ', table), (name, value, table)


@pytest.mark.slow
def test_the_saved_checkpoint_scores_as_the_trained_model_did(demo):
    folder, _ = demo
    last = read_run(next(folder.glob('*/vis_data')).parent)
    metrics = json.loads((folder / 'demo.json').read_text())['metrics']
    for name in ('mIoU', 'mAcc', 'aAcc'):
        assert last[name][-1][1] == pytest.approx(metrics[name])


@pytest.mark.slow
def test_it_leaves_pictures_and_says_where(demo):
    folder, output = demo
    for name in ('predictions.png', 'curves.png'):
        assert matplotlib.image.imread(folder / name).std() > 0.05  # something is on it
    for name in ('predictions.png', 'curves.png', 'table.txt'):
        assert f'work_dirs/demo-seg/{name}' in output
    drawn = sorted((folder / 'predictions').iterdir())
    assert len(drawn) == PICTURES
    assert np.asarray(Image.open(drawn[0])).shape == (480, 960, 3)  # beside ground truth, enlarged
    assert 'What to try next' in output and 'upernet_fvit.py' in output
