"""The runtime of whole files beside what it stands in for: mmcv, mmdet, mmseg, pycocotools."""
import ast
import importlib.util
import os
import sys

import cv2
import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from PIL import Image
from pycocotools import mask as coco

from fastervit_mm.export import runtime
from fastervit_mm.export.runtime import Network
from tests.bad_input.workshop import turned
from tests.conftest import REPO
from tests.export.files import scene, write

SMOOTH = cv2.GaussianBlur(
    np.random.RandomState(0).randint(0, 256, (91, 60, 3), np.uint8), (7, 7), 3)


def rows(boxes):
    return np.array(boxes, np.float32).reshape(-1, 4)


def test_it_imports_three_packages_alone():
    tree = ast.parse((REPO / 'fastervit_mm/export/runtime.py').read_text())
    names = {name.partition('.')[0] for node in ast.walk(tree)
             for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                          else [node.module] if isinstance(node, ast.ImportFrom) else ())}
    assert names - sys.stdlib_module_names == {'onnxruntime', 'numpy', 'PIL'}


@pytest.mark.parametrize('name, save', {
    'turned.jpg': lambda image, path: image.save(path, exif=turned(6)),
    'mirrored.png': lambda image, path: image.save(path, exif=turned(5)),
    'turned.webp': lambda image, path: image.save(path, exif=turned(8), lossless=True),
    'grey.jpg': lambda image, path: image.convert('L').save(path),
    'alpha.png': lambda image, path: image.putalpha(90) or image.save(path),
    'grey_alpha.png': lambda image, path: image.convert('LA').save(path),
    'palette.png': lambda image, path: image.quantize(9).save(path, transparency=3),
    'bits.png': lambda image, path: image.convert('1').save(path),
    'grey16.png': lambda image, path: cv2.imwrite(
        str(path), np.asarray(image.convert('L')).astype(np.uint16) * 257 - 100),
    'grey16.tif': lambda image, path: cv2.imwrite(
        str(path), np.asarray(image.convert('L')).astype(np.uint16) * 257 - 100),
    'grey16.pgm': lambda image, path: Image.fromarray(
        np.asarray(image.convert('L')).astype(np.uint16) * 257).save(path),
    'colour16.png': lambda image, path: cv2.imwrite(
        str(path), np.asarray(image).astype(np.uint16) * 257 - 100),
    'inks.tif': lambda image, path: image.convert('CMYK').save(path),
}.items())
def test_pixels_differ_from_mmcvs(name, save, tmp_path):
    save(Image.fromarray(SMOOTH.clip(1)), tmp_path / name)
    expected = mmcv.imread(str(tmp_path / name))[..., ::-1]
    assert np.array_equal(runtime.read_image(str(tmp_path / name)), expected)


@pytest.mark.parametrize('steps', [
    [dict(type='Resize', scale=(133, 80), keep_ratio=True)],
    [dict(type='Resize', scale=(33, 80), keep_ratio=True)],
    [dict(type='Resize', scale=(50, 31))],
    [dict(type='Resize', scale=77)],
    [dict(type='ResizeEdge', scale=48, edge='short'), dict(type='CenterCrop', crop_size=41)],
    [dict(type='ResizeEdge', scale=48, edge='long', backend='pillow', interpolation='bicubic'),
     dict(type='CenterCrop', crop_size=(31, 20))],
    [dict(type='ResizeEdge', scale=48, edge='height', backend='pillow')],
])
@pytest.mark.parametrize('image', [SMOOTH, SMOOTH.transpose(1, 0, 2), SMOOTH[:, :4]],
                         ids=['high', 'wide', 'thin'])
def test_resized_pixels_differ_from_the_pipelines(steps, image):
    rule = {key: value for step in steps for key, value in step.items() if key != 'type'}
    expected = Compose([dict(step, type=f'mmpretrain.{step["type"]}') if 'Edge' in step['type']
                        else dict(step, type=f'mmcv.{step["type"]}') for step in steps])(
        dict(img=np.ascontiguousarray(image)))['img']
    assert np.array_equal(runtime.prepare(image, rule), expected)


def test_logits_get_other_labels_than_mmsegs():
    logits = torch.randn(5, 9, 14)
    expected = F.interpolate(logits[None], (40, 31), mode='bilinear')[0].argmax(0)
    assert (runtime.labels_at(logits.numpy(), 40, 31) == expected.numpy()).mean() > 0.999


def test_masks_are_pasted_otherwise_than_by_mmdet_or_encoded_otherwise_than_by_coco():
    random = np.random.RandomState(0)
    shape = (50, 70)
    boxes = rows([[3.2, 4.7, 44.1, 33.3], [-0.0, 10, 70, 50], [60.5, 40.2, 70, 50],
                     [20, 20, 20.6, 21.2], [0, 0, 70, 50]])
    masks = cv2.GaussianBlur(random.rand(28, 28, len(boxes)).astype(np.float32), (5, 5), 2)
    masks = masks.transpose(2, 0, 1) - masks.mean() + 0.5
    masks[-1] = 1  # reaches the last pixel
    for mask, box in zip(masks, boxes):
        expected, region = _do_paste_mask(torch.tensor(mask)[None, None], torch.tensor(box)[None],
                                          *shape)
        whole = np.zeros(shape, np.uint8)
        whole[region] = expected[0] >= 0.5
        pasted = runtime.paste(mask, box, shape, 0.5)
        assert runtime.rle(*pasted, shape) == {
            'size': [50, 70], 'counts': coco.encode(np.asfortranarray(whole))['counts'].decode()}


@pytest.mark.parametrize('kind', ['uint8', 'float32'])
def test_boxes_are_not_those_of_the_image(kind, tmp_path):
    network = Network(write(tmp_path / 'finder.onnx', 'detection', input=kind,
                            resize=dict(scale=[400, 300], keep_ratio=True)))
    image = scene(120, 160, red=(10, 20, 60, 90), blue=(100, 60, 160, 120))
    found = network(image)
    assert found['boxes'] == pytest.approx(rows([[10, 20, 60, 90], [100, 60, 160, 120]]), abs=0.5)
    assert found['labels'].tolist() == [0, 2]  # the third is not a detection
    assert found['scores'] == pytest.approx([250 / 255, 210 / 255])
    assert [len(values) for values in network(image, score_thr=0.9).values()] == [1] * 4
    assert len(network(image, score_thr=0.99)['boxes']) == 0


def test_normalised_and_padded_images_are_not_the_preprocessors(tmp_path):
    """Softmax over the means of the channels, padding included."""
    settings = dict(mean=[120.5, 110, 100], std=[50., 60, 70])
    image = SMOOTH[:45, :50]
    for order in ('RGB', 'BGR'):
        path = write(tmp_path / f'{order}.onnx', 'classification', input='normalized',
                     channel_order=order, pad_divisor=32, **settings)
        given = dict(inputs=[torch.tensor(image[..., ::-1].copy()).permute(2, 0, 1)],
                     data_samples=[DetDataSample(metainfo=dict(img_shape=(45, 50)))])
        expected = DetDataPreprocessor(**settings, bgr_to_rgb=order == 'RGB', pad_size_divisor=32)(
            given)['inputs'].mean((0, 2, 3)).softmax(0)
        assert Network(path)(image)['scores'] == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize('task', ['segmentation', 'labels'])
def test_areas_are_not_those_of_the_image(task, tmp_path):
    network = Network(write(tmp_path / 'areas.onnx', task, resize=dict(scale=[64, 48])))
    image = scene(96, 128, green=(0, 0, 64, 96), blue=(64, 0, 128, 96))
    labels = network(image)['labels']
    assert labels.shape == (96, 128)
    assert (labels[:, :63] == 1).all() and (labels[:, 65:] == 2).all()


@pytest.mark.parametrize('shape, side', [((500, 700), 256), ((256, 4000), 256), ((300, 200), 256),
                                         ((1000, 1000), 999), ((257, 256), 256), ((4001, 37), 64)])
def test_tiles_leave_a_gap_or_overlap_less_than_a_quarter(shape, side):
    whole, *rest = runtime.tiles((*shape, 3), side)
    assert whole == (0, 0, shape[1], shape[0])
    for low, high, length in ((0, 2, shape[1]), (1, 3, shape[0])):
        spans = sorted({(tile[low], tile[high]) for tile in rest})
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert {end - start for start, end in spans} == {min(side, length)}
        assert all(a[1] - b[0] >= side // 4 for a, b in zip(spans, spans[1:]))
        assert len(spans) <= -(-max(length - side // 4, 1) // (side - side // 4))


def test_an_image_of_one_tile_is_looked_at_twice():
    assert runtime.tiles((200, 256, 3), 256) == [(0, 0, 256, 200)]


WINDOWS = [(0, 0, 400, 200), (0, 0, 200, 200), (150, 0, 350, 200)]


@pytest.mark.parametrize('boxes, scores, labels, kept', [
    # Whole in one tile, cut by the edge of the other: the whole one, though its score is lower.
    ([[], [[140, 50, 199, 90]], [[140, 50, 240, 90]]], [.9, .6], [0, 0], [1]),
    ([[], [[140, 50, 199, 90]], [[140, 50, 240, 90]]], [.9, .6], [0, 1], [0, 1]),
    # The same object twice.
    ([[[20, 20, 60, 60]], [[21, 20, 60, 62]], []], [.5, .7], [3, 3], [1]),
    ([[], [[155, 20, 195, 60]], [[157, 20, 195, 62]]], [.7, .5], [3, 3], [0]),
    ([[], [[155, 20, 195, 60]], [[175, 20, 215, 60]]], [.5, .7], [3, 3], [1, 0]),
    # Small and in the whole image alone.
    ([[[20, 20, 60, 60], [20, 20, 119, 60], [20, 20, 121, 60]], [], []], [.9] * 3, [0] * 3, [2]),
    # A small object before a large one: not cut, so both.
    ([[[10, 10, 390, 190]], [[50, 50, 80, 80]], []], [.9, .6], [0, 0], [0, 1]),
    # Larger than a tile: the whole image's, not its two parts.
    ([[[10, 50, 390, 90]], [[10, 50, 200, 90]], [[150, 50, 350, 90]]], [.5, .8, .9], [0] * 3, [0]),
    # At the edge of the image itself it is not cut.
    ([[[0, 0, 120, 60]], [[0, 0, 30, 60]], []], [.5, .8], [0, 0], [1, 0]),
    # What a network says of one tile stays.
    ([[], [[20, 20, 60, 60], [21, 20, 60, 62]], []], [.5, .7], [3, 3], [1, 0]),
    ([[], [], []], [], [], []),
])
def test_tiles_are_merged_wrongly(boxes, scores, labels, kept):
    found = runtime.merge(list(map(rows, boxes)), np.array(scores), np.array(labels), WINDOWS)
    assert found.tolist() == kept


def test_runs_of_onnxruntime_are_reported():
    assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'


def test_tiles_miss_small_objects_or_what_one_pass_finds(tmp_path):
    """None of the small ones is left in the whole image at the network's size."""
    network = Network(write(tmp_path / 'finder.onnx', 'detection', score_threshold=0.5,
                            resize=dict(scale=[200, 200], keep_ratio=True)))
    large, small = [100, 60, 660, 440], [[30, 20, 32, 22], [620, 471, 622, 473]]
    image = scene(500, 700, blue=large, red=small)
    whole = network(image)
    assert whole['labels'].tolist() == [2]
    found = network(image, tile=200)
    assert found['labels'].tolist() == [0, 0, 2]
    assert sorted(found['boxes'][:2].tolist()) == small
    assert np.array_equal(found['boxes'][2:], whole['boxes'])


def test_tiles_find_no_more_than_the_whole_image(tmp_path):
    """The network finds one object of a colour at a time."""
    network = Network(write(tmp_path / 'finder.onnx', 'detection'))
    objects = [[30, 20, 80, 90], [620, 410, 690, 480], [330, 230, 400, 300]]
    image = scene(500, 700, red=objects)
    assert network(image)['boxes'].tolist() == [[30, 20, 690, 480]]
    found = network(image, tile=200)
    assert sorted(found['boxes'].tolist()) == sorted([*objects, [30, 20, 690, 480]])
    assert found['masks'].shape == (4, 28, 28)


def test_a_copy_of_the_file_does_not_run(tmp_path):
    (tmp_path / 'alone.py').write_bytes((REPO / 'fastervit_mm/export/runtime.py').read_bytes())
    spec = importlib.util.spec_from_file_location('alone', tmp_path / 'alone.py')
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    network = alone.Network(write(tmp_path / 'finder.onnx', 'detection'))
    image = scene(100, 120, green=(10, 20, 60, 90))
    found = network(image)
    picture = np.asarray(alone.draw(image, found, network))
    assert picture.shape == (300, 360, 3)
    inside, outside = picture[200, 100], picture[280, 300]
    assert (inside != 3 * [0]).any() and inside[0] > 0 and (outside == 0).all()
