"""`make demo-hat`: two networks trained alike, and a figure of how far each sees."""
import json
import re

import matplotlib.image
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.running import run_tool

CONFIGS = dict(carriers='fcn_fvit_long_range', windows='fcn_fvit_long_range_windows')
NAMES = ('with carriers', 'without carriers')


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo_hat')
    done = run_tool('benchmarks.long_range.demo', '--work-dir', 'work_dirs/demo-hat',
                    cwd=folder)
    assert done.returncode == 0, done.output[-4000:]
    return folder, done.stdout


def test_only_carriers_see_the_distant_mark(demo):
    facts = json.loads((demo[0] / 'work_dirs/demo-hat/demo.json').read_text())
    carriers, windows = (facts['metrics'][name] for name in NAMES)
    assert carriers.keys() == windows.keys() and len(carriers) == 6
    assert carriers['accuracy/96-116'] >= 85 and windows['accuracy/96-116'] <= 40


def test_figures_match_the_label_maps(demo):
    """Recounted, and as in the printed table."""
    folder, output = demo
    metrics = json.loads((folder / 'work_dirs/demo-hat/demo.json').read_text())['metrics']
    for name, config in zip(NAMES, CONFIGS.values()):
        maps = sorted((folder / 'work_dirs/demo-hat' / config / 'label_maps').iterdir())
        assert len(maps) == 200
        right = []
        for path in maps:
            said, true = (np.asarray(Image.open(p)) for p in (
                path, folder / 'data/long_range/labels/val' / path.name))
            components, number = ndimage.label(true != 255)
            assert number == 6
            for component in range(1, 7):
                pixels = components == component
                counts = [(said[pixels] == label).sum() for label in range(4)]
                right.append(np.argmax(counts) == true[pixels][0])
        assert metrics[name]['accuracy'] == pytest.approx(100 * np.mean(right))
    row = re.search(r'all +│ +([\d.]+) │ +([\d.]+) ', output)
    assert [float(cell) for cell in row.groups()] == [
        pytest.approx(metrics[name]['accuracy'], abs=0.06) for name in NAMES]


def test_it_leaves_the_figure_and_names_its_folder(demo):
    folder, output = demo
    assert 'work_dirs/demo-hat/long_range.png' in output
    figure = matplotlib.image.imread(folder / 'work_dirs/demo-hat/long_range.png')
    assert figure.shape[1] > 1000 and figure.std() > 0.05
    assert 'work_dirs/demo-hat/attention.jpg' in output
    attention = np.asarray(Image.open(folder / 'work_dirs/demo-hat/attention.jpg'))
    assert attention.shape[1] > 1000 and attention.std() > 13
