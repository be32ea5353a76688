"""The page in a browser; what it shows of a trained checkpoint: benchmarks/tests/test_demo.py."""
import re
from urllib.parse import urlsplit

import mmcv
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.shapes.scenes import CLASSES, PALETTE, draw_scene
from fastervit_mm.engine import launch
from fastervit_mm.models import build_model
from tests.app import browsing
from tests.app.browsing import listed, pixels, upload, words
from tests.conftest import REPO
from tests.export.files import scene as objects
from tests.export.files import write

CONFIG = REPO / 'configs/mmseg/upernet_fvit_shapes.py'


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    """The tool, serving what a run of the segmentor leaves, untrained."""
    folder = tmp_path_factory.mktemp('app')
    run = folder / 'work_dirs/shapes'
    run.mkdir(parents=True)
    cfg = launch.load_config(str(CONFIG))
    cfg.dump(run / CONFIG.name)
    torch.manual_seed(0)
    meta = dict(classes=('ground', *CLASSES), palette=[(40, 40, 40), *PALETTE])
    torch.save(dict(state_dict=build_model(cfg).state_dict(), meta=dict(dataset_meta=meta)),
               run / 'iter_20.pth')
    with browsing.serving(folder) as address:
        yield address


@pytest.fixture(scope='module')
def browser():
    with browsing.chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, address):
    with browsing.visiting(browser, address) as page:
        yield page


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp('scene') / 'two scenes.png'
    mmcv.imwrite(np.hstack([draw_scene(1).image, draw_scene(2).image]), str(path))
    return path


def test_upload_see_the_prediction_click_see_attention(page, scene, address):
    assert page.locator('#model input').input_value() == 'shapes (iter_20.pth)'
    upload(page, scene)
    said = words(page, '320 x 160')
    assert re.search(r'two scenes.png, 320 x 160: [1-5] areas', said)
    prediction, _ = pixels(page, 'picture')
    assert prediction.shape == (320, 640, 3)  # enlarged, as the config's visualizer draws
    plain = mmcv.imrescale(mmcv.imread(str(scene))[..., ::-1], 2)
    assert (np.abs(prediction.astype(int) - plain) > 8).mean() > 0.05  # areas lie over it
    shares = dict(listed(page))
    assert shares.keys() <= {'ground', *CLASSES}
    assert sum(float(share.removesuffix(' %')) for share in shares.values()) == pytest.approx(
        100, abs=0.3)

    middle, shown = pixels(page, 'attention')
    box = page.locator('#picture img').bounding_box()
    page.locator('#picture img').click(position=dict(x=box['width'] / 4, y=box['height'] / 4))
    said = words(page, 'seen from')
    x, y = map(int, re.search(r'x = (\d+), y = (\d+)', said).groups())
    assert abs(x - 80) <= 3 and abs(y - 40) <= 3  # a quarter of 320 x 160
    clicked, _ = pixels(page, 'attention', other_than=shown)
    assert clicked.shape == middle.shape and (clicked != middle).mean() > 0.02

    hosts = {urlsplit(url).hostname for url in page.asked if not url.startswith(('data:', 'blob:'))}
    assert hosts == {urlsplit(address).hostname}  # nothing is asked of anybody else


@pytest.mark.parametrize('name, content, message', [
    ('notes.txt', b'no picture', 'notes.txt is not an image that can be read'),
    ('fake.png', b'no picture either', 'fake.png is not an image that can be read'),
    ('small.png', None, 'H and W at least 32'),
])
def test_a_file_that_is_not_an_image_is_reported(name, content, message, page, scene, tmp_path):
    path = tmp_path / name
    if content is None:
        mmcv.imwrite(np.zeros((20, 40, 3), np.uint8), str(path))
    else:
        path.write_bytes(content)
    upload(page, path)
    assert 'Sorry' in words(page, message)
    assert page.locator('#picture img').count() == 0
    # And it goes on.
    browsing.remove(page)
    upload(page, scene)
    assert 'Sorry' not in words(page, '320 x 160')


def test_an_exported_file_is_not_shown_or_a_click_breaks_it(browser, tmp_path):
    write(tmp_path / 'finder.onnx', 'detection')
    Image.fromarray(objects(200, 320, red=(10, 20, 70, 80))).save(tmp_path / 'image.png')
    with browsing.serving(tmp_path, 'finder.onnx') as own:
        with browsing.visiting(browser, own) as page:
            upload(page, tmp_path / 'image.png')
            assert 'image.png, 320 x 200: 1 objects' in words(page, '320 x 200')
            assert listed(page) == [('red', '0.98')]
            drawn, _ = pixels(page, 'picture')
            assert drawn.shape == (400, 640, 3) and drawn[100, 80, 0] > 200
            page.locator('#picture img').click()
            words(page, '^What a network looks at is shown of a checkpoint')
            assert page.locator('#attention img').count() == 0


@pytest.mark.parametrize('ci, outcome', [
    ('', pytest.skip.Exception), ('true', pytest.fail.Exception)])
def test_without_a_browser_tests_are_skipped_with_the_remedy_and_fail_in_ci(
        ci, outcome, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('PLAYWRIGHT_BROWSERS_PATH', str(tmp_path))
    monkeypatch.setenv('CI', ci)
    with pytest.raises(outcome, match='sudo apt-get install chromium'):
        with browsing.chromium():
            pass
