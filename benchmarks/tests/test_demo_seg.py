"""`make demo-seg`: trains a segmentor from scratch that works on held-out images."""
import json

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from benchmarks.shapes import make_shapes
from fastervit_mm.engine.curves import read_run
from tests.conftest import REPO
from tests.running import run_tool

CONFIG = REPO / 'configs/mmseg/upernet_fvit_shapes.py'
PICTURES = 120


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo_seg')
    make_shapes(folder / 'data/shapes')
    done = run_tool('benchmarks.demo', CONFIG, '--work-dir', 'work_dirs/demo-seg', cwd=folder)
    assert done.returncode == 0, done.output[-4000:]
    return folder / 'work_dirs/demo-seg', done.stdout


def test_it_learns_for_real(demo):
    folder, _ = demo
    metrics = json.loads((folder / 'demo.json').read_text())['metrics']
    assert metrics['mIoU'] >= 80  # ground everywhere has 17
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
    assert f'{metrics["mIoU"]:.3f}' in (folder / 'table.txt').read_text()


def test_the_saved_checkpoint_scores_as_the_trained_model_did(demo):
    folder, _ = demo
    last = read_run(next(folder.glob('*/vis_data')).parent)
    metrics = json.loads((folder / 'demo.json').read_text())['metrics']
    for name in ('mIoU', 'mAcc', 'aAcc'):
        assert last[name][-1][1] == pytest.approx(metrics[name])


def test_it_leaves_figures_and_names_their_folder(demo):
    folder, output = demo
    for name in ('predictions.png', 'curves.png'):
        assert matplotlib.image.imread(folder / name).std() > 0.05  # something is on it
    for name in ('predictions.png', 'curves.png', 'table.txt'):
        assert f'work_dirs/demo-seg/{name}' in output
    drawn = sorted((folder / 'predictions').iterdir())
    assert len(drawn) == PICTURES
    assert np.asarray(Image.open(drawn[0])).shape == (480, 960, 3)  # beside ground truth, enlarged
    assert 'What to try next' in output and 'upernet_fvit.py' in output
