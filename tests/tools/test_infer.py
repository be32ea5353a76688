"""tools/infer.py as a user runs it."""
import json

import numpy as np
import pytest
from PIL import Image

from tests.apis import models
from tests.running import run_tool


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory, tiny_ade20k):
    return models.segmentor(tmp_path_factory.mktemp('segmentor'), tiny_ade20k)


@pytest.fixture(scope='module')
def detector(tmp_path_factory, tiny_coco):
    return models.detector(tmp_path_factory.mktemp('detector'), tiny_coco)


def infer(*arguments, cwd):
    return run_tool('infer.py', *arguments, cwd=cwd, environment={'COLUMNS': '100'})


def test_a_folder_with_an_unreadable_file(segmentor, tiny_ade20k, tmp_path):
    (tmp_path / 'bad.jpg').write_text('no image')
    images = sorted((tiny_ade20k / 'images/validation').iterdir())[:3]
    (tmp_path / 'in').mkdir()
    for path in images:
        (tmp_path / 'in' / path.name).symlink_to(path)
    done = infer(*segmentor, 'bad.jpg', 'in', '--out', 'out', '--device', 'cpu', '--batch-size', 2,
                 '--deploy', cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == (
        'infer: bad.jpg gave no prediction: UnidentifiedImageError: cannot identify image file '
        "'bad.jpg'")
    assert '3 images' in done.stdout and 'Traceback' not in done.stderr
    for folder in ('pred', 'vis'):
        assert sorted(p.stem for p in (tmp_path / 'out' / folder / 'in').iterdir()) == [
            p.stem for p in images]
    for path in images:
        labels = np.asarray(Image.open(tmp_path / 'out/pred/in' / f'{path.stem}.png'))
        assert labels.shape == np.asarray(Image.open(path)).shape[:2]


def test_a_detector_a_pattern_and_the_progress(detector, tiny_coco, tmp_path):
    images = sorted((tiny_coco / 'val2017').iterdir())[:2]
    for path in images:
        (tmp_path / path.name).symlink_to(path)
    done = infer(*detector, '*.jpg', '--out', 'out', '--score-thr', 0, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert found and f'2 images, {len(found)} instances' in done.stdout
    assert 'Inference' in done.stdout and '2/2' in done.stdout
    assert {f'out/{name}' for name in ('predictions.json', 'images.json', 'vis')} <= {
        line.strip() for line in done.stdout.splitlines()}
