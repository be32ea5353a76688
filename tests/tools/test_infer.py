"""tools/infer.py as a user runs it."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import PIL
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.apis import models
from tests.conftest import REPO
from tests.export.files import scene, write
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


@pytest.fixture(scope='module')
def packages(tmp_path_factory):
    """A folder of three packages."""
    folder = tmp_path_factory.mktemp('packages')
    for package in (onnxruntime, np, PIL):
        (folder / package.__name__).symlink_to(Path(package.__file__).parent)
    return folder


def infer_alone(packages, *arguments, cwd):
    """The tool in a Python that has the standard library and those packages."""
    return subprocess.run(
        [sys.executable, '-S', REPO / 'tools/infer.py', *map(str, arguments)], cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(packages)}, capture_output=True, text=True)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Two images, one of them in a folder of its own, and where their objects are."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'in/deep').mkdir(parents=True)
    Image.fromarray(scene(150, 200, red=(20, 30, 90, 120))).save(folder / 'in/a.png')
    Image.fromarray(scene(200, 150, green=(20, 30, 90, 120))).save(folder / 'in/deep/b.png')
    return folder


def check_detections(folder):
    found = COCO(str(folder / 'out/images.json')).loadRes(str(folder / 'out/predictions.json'))
    assert {i: category['name'] for i, category in found.cats.items()} == {
        7: 'red', 8: 'green', 9: 'blue'}
    assert {image['file_name']: [(one['category_id'], one['bbox']) for one in found.imgToAnns[i]]
            for i, image in found.imgs.items()} == {
        'in/a.png': [(7, [20, 30, 70, 90])], 'in/deep/b.png': [(8, [20, 30, 70, 90])]}
    for one in found.anns.values():
        mask = found.annToMask(one)
        assert mask[31:119, 21:89].all() and mask.sum() == 70 * 90 - 4  # without its corners
    for name, size in (('a', (600, 450)), ('deep/b', (450, 600))):
        assert Image.open(folder / f'out/vis/{name}.jpg').size == size


def test_a_file_needs_more_than_three_packages(packages, photos, tmp_path):
    (tmp_path / 'in').symlink_to(photos / 'in')
    write(tmp_path / 'finder.onnx', 'detection', category_ids=[7, 8, 9])
    done = infer_alone(packages, 'finder.onnx', 'in', '--out', 'out', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '2 images, 2 instances' in done.stdout
    check_detections(tmp_path)
    again = infer_alone(packages, 'finder.onnx', '.', 'gone.jpg', '--out', 'out', '--tile', 100,
                        '--score-thr', 0.99, cwd=tmp_path)
    assert again.returncode == 1 and '2 images, 0 instances' in again.stdout  # not those in out/
    assert again.stderr.strip() == ("infer: gone.jpg gave no prediction: [Errno 2] No such file or "
                                    "directory: 'gone.jpg'")
    checkpoint = infer_alone(packages, 'config.py', 'a.pth', 'in', '--out', 'out', cwd=tmp_path)
    assert "No module named 'rich'" in checkpoint.stderr  # else there is more than those packages


def test_a_segmentor_and_a_classifier_in_files(packages, photos, tmp_path):
    write(tmp_path / 'areas.onnx', 'segmentation', label_offset=1)
    write(tmp_path / 'kinds.onnx', 'classification')
    for name in ('areas', 'kinds'):
        done = infer_alone(packages, f'{name}.onnx', photos / 'in/deep', '--out', name,
                           cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / name / 'vis/b.jpg').is_file()
    labels = np.asarray(Image.open(tmp_path / 'areas/pred/b.png'))
    assert (labels[30:120, 20:90] == 2).all() and (labels == 1).sum() == labels.size - 90 * 70
    found, = json.loads((tmp_path / 'kinds/predictions.json').read_text())
    assert [one['name'] for one in found['top']] == ['green', 'red', 'blue']
    assert sum(one['score'] for one in found['top']) == pytest.approx(1)
    assert f'{found["file_name"]}: green 1.00' in done.stdout
