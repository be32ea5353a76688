"""Checkpoints for the page, and its predictions beside the libraries'."""
import os
import re
import runpy
import socket
import sys

import mmcv
import numpy as np
import pytest
import torch

from benchmarks.shapes.scenes import CLASSES, PALETTE, draw_scene
from fastervit_mm.app import Predictor, Trained, find_trained, pairs
from fastervit_mm.engine import launch
from fastervit_mm.models import build_model
from fastervit_mm.weights import CheckpointError
from tests.conftest import CLASSIFIER, REPO
from tests.export.files import scene, write

CONFIGS = dict(
    mmdet=str(REPO / 'configs/mmdet/cascade_fvit_shapes.py'),
    mmseg=str(REPO / 'configs/mmseg/upernet_fvit_shapes.py'))


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Each library's model with weights from a seed, saved as a runner saves them."""
    folder = tmp_path_factory.mktemp('saved')
    (folder / 'classifier.py').write_text(CLASSIFIER)
    trained = {}
    for scope, config in {**CONFIGS, 'mmpretrain': str(folder / 'classifier.py')}.items():
        torch.manual_seed(0)
        model = build_model(launch.load_config(config))
        names = {'mmdet': CLASSES, 'mmseg': ('ground', *CLASSES), 'mmpretrain': list('abcdefg')}
        meta = dict(classes=names[scope], palette=[(40, 40, 40), *PALETTE][-len(names[scope]):])
        torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)),
                   folder / f'{scope}.pth')
        trained[scope], = pairs([config, folder / f'{scope}.pth'])
    return trained


@pytest.fixture(scope='module')
def image():
    return np.hstack([draw_scene(1).image, draw_scene(2).image[:, :90]])  # 160 x 250


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_says_what_mmdet_says(saved, image, elsewhere):
    from mmdet.apis import DetInferencer
    predictor = Predictor(saved['mmdet'])
    assert not list(elsewhere.iterdir())  # no data set is made or looked for
    config, checkpoint = map(str, saved['mmdet'][1:])
    expected = DetInferencer(config, checkpoint, device='cpu', palette='random',
                             show_progress=False)(image)['predictions'][0]
    best = sorted(zip(expected['scores'], expected['labels']), reverse=True)[:6]
    assert len(best) == 6 and best[4][0] > best[5][0]
    found = predictor.predict(image, (best[4][0] + best[5][0]) / 2)
    assert sorted(found.rows) == sorted((CLASSES[n], f'{score:.2f}') for score, n in best[:5])
    scores = [float(score) for _, score in found.rows]
    assert scores == sorted(scores, reverse=True)
    plain = mmcv.imrescale(np.ascontiguousarray(image[..., ::-1]), 2, interpolation='bicubic')
    assert found.picture.shape == plain.shape and (found.picture != plain).any()
    none = predictor.predict(image, best[0][0] + 0.01)
    assert none.rows == [] and np.array_equal(none.picture, plain)


def test_the_page_says_what_mmseg_says(saved, image, elsewhere):
    from mmseg.apis import MMSegInferencer
    found = Predictor(saved['mmseg']).predict(image)
    expected = MMSegInferencer(str(saved['mmseg'].config), str(saved['mmseg'].checkpoint),
                               device='cpu')(image)['predictions']
    names = ('ground', *CLASSES)
    assert dict(found.rows) == {names[i]: f'{100 * (expected == i).mean():.1f} %'
                                for i in np.unique(expected)}
    assert found.picture.shape == (320, 500, 3) and found.picture.std() > 5


def test_the_page_says_what_mmpretrain_says(saved, image):
    from mmpretrain import ImageClassificationInferencer
    predictor = Predictor(saved['mmpretrain'])
    Predictor(saved['mmseg']).predict(image)  # picked in between; its library looks elsewhere
    found = predictor.predict(image)
    expected = ImageClassificationInferencer(
        str(saved['mmpretrain'].config), str(saved['mmpretrain'].checkpoint))(image)[0]
    assert found.rows[0] == ('abcdefg'[expected['pred_label']], f'{expected["pred_score"]:.2f}')
    assert len(found.rows) == 5
    assert np.array_equal(found.picture, image[..., ::-1])


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_attention_follows_the_place(scope, saved, image):
    predictor = Predictor(saved[scope])
    predictor.predict(image)  # the libraries' functions change their config as they go
    one, other, again = (predictor.attention(image, place) for place in (
        (100, 30), (140, 130), (100, 30)))
    assert one.ndim == 3 and one.dtype == np.uint8 and np.array_equal(one, again)
    assert one.shape == other.shape and (one != other).mean() > 0.02


def test_a_checkpoint_of_another_network_is_refused(saved):
    wrong = Trained('wrong', saved['mmdet'].config, saved['mmseg'].checkpoint)
    with pytest.raises(CheckpointError, match='does not fit the model of this config'):
        Predictor(wrong)


def test_runs_are_found_with_their_best_last_or_newest_checkpoint(tmp_path):
    for number, file in enumerate([
            'a/a.py', 'a/best_mIoU_iter_2.pth', 'a/iter_4.pth', 'b/run/b.py', 'b/run/iter_9.pth',
            'b/run/iter_10.pth', 'c/c.py', 'c/old.pth', 'c/new.pth', 'd/d.py', 'e/iter_1.pth']):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        os.utime(tmp_path / file, (number, number))
    (tmp_path / 'b/run/last_checkpoint').write_text('/another/machine/iter_9.pth')
    assert [(t.name, t.config.name, t.checkpoint.name) for t in find_trained(tmp_path)] == [
        ('a (best_mIoU_iter_2.pth)', 'a.py', 'best_mIoU_iter_2.pth'),
        ('b/run (iter_9.pth)', 'b.py', 'iter_9.pth'),
        ('c (new.pth)', 'c.py', 'new.pth')]
    assert [t.name for t in find_trained(tmp_path / 'a')] == ['a (best_mIoU_iter_2.pth)']


@pytest.mark.parametrize('arguments, message', [
    ((), r"folder='work_dirs': no such folder .*make demo"),
    (('--work-dirs', '.'), "folder='.': no run below it"),
    ((CONFIGS['mmseg'], ), 'give a checkpoint for every config'),
    ((CONFIGS['mmseg'], 'nothing.pth'), "'nothing.pth': no such file"),
])
def test_a_missing_checkpoint_is_reported(arguments, message, elsewhere, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['demo_app.py', *arguments])
    with pytest.raises(SystemExit, match=message) as caught:
        runpy.run_path(str(REPO / 'tools/demo_app.py'), run_name='__main__')
    assert caught.value.code.startswith('demo_app: ')


def test_without_gradio_the_tool_names_the_install_command(saved, elsewhere, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.delitem(sys.modules, 'fastervit_mm.app.page', raising=False)
    monkeypatch.setattr(sys, 'argv', ['demo_app.py', *map(str, saved['mmseg'][1:])])
    with pytest.raises(SystemExit, match=r"gradio is not installed; pip install .*\[app\]"):
        runpy.run_path(str(REPO / 'tools/demo_app.py'), run_name='__main__')


def test_an_image_too_thin_for_the_pipeline_is_an_error_of_one_line(saved, tmp_path):
    from fastervit_mm.app.page import Page
    page = Page([saved['mmdet']])
    for size in ((20, 8000, 3), (8000, 20, 3)):
        mmcv.imwrite(np.zeros(size, np.uint8), str(tmp_path / 'thin.png'))
        words, picture, *_ = page.predict(*page.models, str(tmp_path / 'thin.png'), 0.3, 0)
        assert 'Sorry' in words and 'of this size' in words and picture is None


def test_a_port_in_use_is_reported_with_the_option_to_change_it(saved, elsewhere, monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as used:
        port = used.getsockname()[1]
        monkeypatch.setattr(sys, 'argv', ['demo_app.py', *map(str, saved['mmseg'][1:]), '--port',
                                          str(port)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(REPO / 'tools/demo_app.py'), run_name='__main__')
    said, other = re.fullmatch(r'(demo_app: --port \d+: .*) such as --port (\d+)',
                               caught.value.code).groups()
    assert f'--port {port}:' in said and 0 < int(other) < 65536 and int(other) != port


@pytest.mark.parametrize('task, rows', [
    ('detection', [('red', '0.98'), ('blue', '0.82')]),
    ('segmentation', [('red', '90.6 %'), ('blue', '9.4 %')]),
    ('classification', [('blue', '1.00'), ('red', '0.00'), ('green', '0.00')]),
])
def test_a_file_is_shown_otherwise_than_it_answers(task, rows, tmp_path):
    from fastervit_mm.app.page import Page
    page = Page(pairs([write(tmp_path / f'{task}.onnx', task)]))
    image = scene(200, 320, red=(10, 20, 70, 80), blue=(100, 50, 200, 110))
    mmcv.imwrite(np.ascontiguousarray(image[..., ::-1]), str(tmp_path / 'image.png'))
    words, picture, found, attention, *_ = page.predict(
        f'{task}.onnx', str(tmp_path / 'image.png'), 0.3, 3)
    assert 'image.png, 320 x 200' in words and 'not of a file' in words
    assert [tuple(row) for row in found] == rows
    assert picture.shape == (400, 640, 3) and attention is None
    assert page.look(f'{task}.onnx', str(tmp_path / 'image.png'), 0, (5, 5))[1] is None
    mmcv.imwrite(image[:20], str(tmp_path / 'low.png'))
    words, picture, *_ = page.predict(f'{task}.onnx', str(tmp_path / 'low.png'), 0.3, 0)
    assert 'Sorry' in words and '320 x 20 pixels' in words and picture is None
