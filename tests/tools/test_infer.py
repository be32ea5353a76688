"""tools/infer.py as a user runs it."""
import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from tests.apis import models
from tests.conftest import REPO
from tests.running import run_tool

TOOL = str(REPO / 'tools/infer.py')


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory, tiny_ade20k):
    return models.segmentor(tmp_path_factory.mktemp('segmentor'), tiny_ade20k)


@pytest.fixture(scope='module')
def detector(tmp_path_factory, tiny_coco):
    return models.detector(tmp_path_factory.mktemp('detector'), tiny_coco)


def infer(*arguments, cwd):
    return run_tool('infer.py', *arguments, cwd=cwd, environment={'COLUMNS': '100'})


def test_a_folder_and_an_unreadable_file(segmentor, tiny_ade20k, tmp_path):
    (tmp_path / 'bad.jpg').write_text('no image')
    images = sorted((tiny_ade20k / 'images/validation').iterdir())[:3]
    (tmp_path / 'in').mkdir()
    for path in images:
        (tmp_path / 'in' / path.name).symlink_to(path)
    done = infer(*segmentor, 'bad.jpg', 'in', '--out', 'out', '--device', 'cpu', '--batch-size', 2,
                 '--deploy', cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-2:] == [
        'infer: 1 inputs gave no prediction:',
        "  bad.jpg: UnidentifiedImageError: cannot identify image file 'bad.jpg'"]
    assert '3 images' in done.stdout and 'Traceback' not in done.stderr
    for folder in ('pred', 'vis'):
        assert sorted(p.stem for p in (tmp_path / 'out' / folder).iterdir()) == [
            p.stem for p in images]
    for path in images:
        labels = np.asarray(Image.open(tmp_path / 'out/pred' / f'{path.stem}.png'))
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


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """What the tool ends with; a text, so Python prints it and its exit status is 1."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(TOOL, run_name='__main__')
        return caught.value.code

    return run


@pytest.mark.parametrize('change, message', [
    (dict(config='mmseg/upernet_fvitt'), "infer: config='mmseg/upernet_fvitt': no such file"),
    (dict(checkpoint='absent.pth'), "infer: checkpoint='absent.pth': no such file"),
    (dict(device='cuda:99'), "infer: device='cuda:99': not available")])
def test_wrong_arguments_end_without_a_traceback(change, message, segmentor, refused):
    given = {**dict(config=segmentor[0], checkpoint=segmentor[1], device='cpu'), **change}
    said = refused(given['config'], given['checkpoint'], 'x.jpg', '--out', 'out', '--device',
                   given['device'])
    assert said.startswith(message)
    if 'config' in change:
        assert 'mmseg/upernet_fvit,' in said  # near names


def test_a_checkpoint_of_another_network(detector, segmentor, refused):
    said = refused(segmentor[0], detector[1], 'x.jpg', '--out', 'out', '--device', 'cpu')
    assert said.startswith('infer: ') and 'does not fit the model of this config' in said


def test_nothing_readable_at_all(segmentor, refused):
    said = refused(*segmentor, 'gone.jpg', '--out', 'out', '--device', 'cpu')
    assert said.startswith('infer: 1 inputs gave no prediction:\n  gone.jpg: no such file')
