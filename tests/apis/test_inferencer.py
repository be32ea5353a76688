"""Inferencer beside mmdet's and mmseg's own inferencers."""
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from fastervit_mm import FasterViT
from fastervit_mm.apis import Inferencer
from fastervit_mm.config_files import config_path
from fastervit_mm.engine.enlarging import enlargement
from fastervit_mm.export.runtime import tiles
from fastervit_mm.weights import CheckpointError
from tests.conftest import REPO

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')


@pytest.fixture(scope='module')
def detect(detector):
    return Inferencer(*detector, device='cpu')


@pytest.fixture(scope='module')
def segment(segmentor):
    return Inferencer(*segmentor, device='cpu')


@pytest.fixture(scope='module')
def photos(tiny_coco):
    return sorted(str(path) for path in (tiny_coco / 'val2017').iterdir())[:4]


@pytest.fixture(scope='module')
def scenes(tiny_ade20k):
    return sorted(str(path) for path in (tiny_ade20k / 'images/validation').iterdir())[:5]


def test_detections_are_det_inferencers_as_coco_results(detect, detector, photos, tmp_path,
                                                        tiny_coco):
    from mmdet.apis import DetInferencer
    results = detect(photos, out_dir=tmp_path, score_thr=0.)
    expected = DetInferencer(*detector, device='cpu', show_progress=False)(photos)['predictions']
    truth = COCO(str(tiny_coco / 'annotations/instances_val2017.json'))
    found = COCO(str(tmp_path / 'images.json')).loadRes(str(tmp_path / 'predictions.json'))
    names = {category['id']: category['name'] for category in truth.cats.values()}
    assert {i: category['name'] for i, category in found.cats.items()} == names
    count = 0
    for path, theirs, prediction in zip(photos, expected, results.predictions, strict=True):
        number, = (i for i, image in truth.imgs.items() if path.endswith(image['file_name']))
        ours = found.imgToAnns[number]
        assert prediction.instances == [
            {key: own[key] for key in ('category_id', 'bbox', 'score', 'segmentation')}
            for own in ours]
        for own, label, score, (x1, y1, x2, y2), mask in zip(
                ours, theirs['labels'], theirs['scores'], theirs['bboxes'], theirs['masks'],
                strict=True):
            assert names[own['category_id']] == detect.classes[label]
            assert own['score'] == score
            assert own['bbox'] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-4)
            assert own['segmentation'] == mask
            assert found.annToMask(own).shape == np.asarray(Image.open(path)).shape[:2]
            count += 1
    assert count > 10
    for prediction in results.predictions:
        drawn = np.asarray(Image.open(prediction.files['overlay'])).astype(int)
        # EnlargedDetVisualizer's, and not the picture alone.
        times = enlargement(prediction.size)
        height, width = (times * n for n in prediction.size)
        assert drawn.shape == (height, width, 3)
        plain = np.asarray(Image.open(prediction.source).convert('RGB').resize(
            (width, height), Image.BICUBIC)).astype(int)
        assert (abs(drawn - plain).max(-1) > 60).mean() > 0.001


def test_det_inferencer_takes_the_coco_config_as_it_is(photos, tmp_path):
    """FasterViT-2 at full size, without a dataset; weights are random."""
    from mmdet.apis import DetInferencer
    inferencer = DetInferencer(str(config_path('mmdet/cascade_fvit')), device='cpu',
                               show_progress=False)
    backbone, = (m for m in inferencer.model.modules() if isinstance(m, FasterViT))
    assert backbone.out_channels == (96, 192, 384, 768)
    strip = cv2.imread(photos[0])[:48]  # 1333 pixels long for the network, but low
    assert cv2.imwrite(str(tmp_path / 'strip.png'), strip)
    found, = inferencer(str(tmp_path / 'strip.png'), out_dir=str(tmp_path))['predictions']
    assert found.keys() == {'labels', 'scores', 'bboxes', 'masks'}
    height, width = strip.shape[:2]
    assert Image.open(tmp_path / 'vis/strip.png').size == (width, height)
    assert all(mask['size'] == [height, width] for mask in found['masks'])


def test_mmseg_inferencer_takes_the_ade20k_config_as_it_is(scenes, tmp_path):
    from mmseg.apis import MMSegInferencer
    inferencer = MMSegInferencer(str(config_path('mmseg/upernet_fvit')), device='cpu')
    backbone, = (m for m in inferencer.model.modules() if isinstance(m, FasterViT))
    assert backbone.out_channels == (96, 192, 384, 768)
    image = cv2.imread(scenes[0])[:96, :128]
    labels = inferencer(image, out_dir=str(tmp_path))['predictions']
    assert labels.shape == (96, 128) and 0 <= labels.min() and labels.max() < 150
    assert [path.suffix for path in (tmp_path / 'pred').iterdir()] == ['.png']
    assert len(list((tmp_path / 'vis').iterdir())) == 1


def test_low_scores_are_left_out(detect, photos):
    everything = [i for p in detect(photos, score_thr=0.).predictions for i in p.instances]
    threshold = float(np.median([instance['score'] for instance in everything]))
    kept = [i for p in detect(photos, score_thr=threshold).predictions for i in p.instances]
    assert 0 < len(kept) < len(everything)
    assert kept == [i for i in everything if i['score'] >= threshold]


def test_ids_without_annotations(detector, photos, tmp_path):
    """COCO's ids by its classes' names; images are numbered."""
    cfg = Config.fromfile(detector[0])
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'absent')
    inferencer = Inferencer(cfg, detector[1], device='cpu')
    results = inferencer(photos[:2], out_dir=tmp_path, score_thr=0.)
    listed = json.loads((tmp_path / 'images.json').read_text())
    assert [(image['id'], image['file_name']) for image in listed['images']] == [
        (1, photos[0]), (2, photos[1])]
    assert listed['categories'][0] == dict(id=1, name='person')
    assert listed['categories'][-1] == dict(id=90, name='toothbrush')
    assert not results.failures


@pytest.mark.parametrize('task, images', [('detector', 'photos'), ('segmentor', 'scenes')])
def test_joined_datasets_change_nothing(task, images, request):
    """Preprocessing and class names are the first dataset's."""
    config, checkpoint = request.getfixturevalue(task)
    image = request.getfixturevalue(images)[0]
    cfg = Config.fromfile(config)
    dataset = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[
        dict(type='RepeatDataset', times=2, dataset=dataset), dict(dataset, data_root='nowhere')])
    (alone, ), (joined, ) = (Inferencer(given, checkpoint, device='cpu')(
        image, score_thr=0.).predictions for given in (config, cfg))
    assert joined.instances == alone.instances
    assert np.array_equal(joined.label_map, alone.label_map)
    assert cfg.test_dataloader.dataset.type == 'ConcatDataset'  # the caller's is left as it was


def test_label_maps_equal_mmsegs_and_those_of_tools_test(segment, segmentor, scenes, tmp_path):
    from mmseg.apis import MMSegInferencer

    from fastervit_mm.engine import launch
    results = segment(scenes, out_dir=tmp_path, batch_size=3)
    expected = MMSegInferencer(*segmentor, device='cpu')(scenes)['predictions']
    launch.test(launch.load_config(segmentor[0], work_dir=str(tmp_path / 'work'), cfg_options={
        'test_dataloader.dataset.indices': len(scenes), 'experiment_name': 'infer'}),
        segmentor[1], out=str(tmp_path / 'of_test'))
    sizes = set()
    for path, theirs, prediction in zip(scenes, expected, results.predictions, strict=True):
        assert prediction.source == path and prediction.instances is None
        # Batches of other sizes round differently.
        assert (prediction.label_map == theirs).mean() > 0.999
        written = np.asarray(Image.open(prediction.files['label_map']))
        assert (written == theirs + 1).mean() > 0.999
        name = os.path.basename(prediction.files['label_map'])
        assert (np.asarray(Image.open(tmp_path / 'of_test' / name)) == written).mean() > 0.999
        drawn = Image.open(prediction.files['overlay'])
        assert drawn.size == Image.open(path).size
        assert len(np.unique(theirs)) > 3
        sizes.add(prediction.size)
    assert len(sizes) > 1


@pytest.fixture(scope='module')
def clip(scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp('clip') / 'walk.mp4'
    image = cv2.imread(scenes[0])[:200, :300]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 12., (160, 120))
    for shift in range(0, 35, 5):
        writer.write(np.ascontiguousarray(image[shift:shift + 120, shift:shift + 160]))
    writer.release()
    return str(path)


def frames_of(path):
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    return frames, video.get(cv2.CAP_PROP_FPS)


def test_videos_frame_by_frame(segment, clip, tmp_path):
    results = segment(clip, out_dir=tmp_path, batch_size=4)
    frames, _ = frames_of(clip)
    assert [p.frame for p in results.predictions] == list(range(7)) and not results.failures
    alone = segment(frames)
    for prediction, single in zip(results.predictions, alone.predictions, strict=True):
        assert (prediction.label_map == single.label_map).mean() > 0.999
    assert sorted(path.name for path in (tmp_path / 'pred/walk').iterdir()) == [
        f'{i:06}.png' for i in range(7)]
    drawn, fps = frames_of(tmp_path / 'vis/walk.mp4')
    assert len(drawn) == 7 and drawn[0].shape == (360, 480, 3) and fps == 12
    assert all(abs(cv2.resize(a, (160, 120)).astype(int) - b).mean() > 10
               for a, b in zip(drawn, frames))
    assert results.files == [str(tmp_path / 'vis/walk.mp4')]


def test_videos_of_detections(detect, clip, tmp_path):
    results = detect(clip, out_dir=tmp_path, score_thr=0.)
    listed = json.loads((tmp_path / 'images.json').read_text())['images']
    assert [(i['frame'], i['height'], i['width']) for i in listed] == [
        (number, 120, 160) for number in range(7)]
    assert len({image['id'] for image in listed}) == 7
    drawn, _ = frames_of(tmp_path / 'vis/walk.mp4')
    assert len(drawn) == 7 and drawn[0].shape == (360, 480, 3)
    assert len(results.predictions) == 7


def test_unreadable_images_do_not_stop_it(segment, scenes, clip, tmp_path):
    inputs = tmp_path / 'in'
    inputs.mkdir()
    for path in scenes[:2]:
        shutil.copy(path, inputs)
    content = open(scenes[2], 'rb').read()
    (inputs / 'cut.jpg').write_bytes(content[:len(content) // 2])
    (inputs / 'text.png').write_text('no image')
    (inputs / 'notes.txt').write_text('left alone')
    Image.open(scenes[2]).resize((20, 20)).save(inputs / 'tiny.png')  # below the network's 32
    (inputs / 'broken.mp4').write_bytes(open(clip, 'rb').read()[:300])
    (tmp_path / 'empty').mkdir()
    results = segment([inputs, scenes[3], tmp_path / 'gone.jpg', tmp_path / 'empty',
                       str(tmp_path / '**/*.webp')], batch_size=4)
    reasons = {os.path.basename(source): reason for source, reason in results.failures}
    assert reasons.keys() == {'cut.jpg', 'text.png', 'tiny.png', 'broken.mp4', 'gone.jpg', 'empty',
                              '*.webp'}
    assert 'truncated' in reasons['cut.jpg'] and 'cannot identify' in reasons['text.png']
    assert 'at least 32' in reasons['tiny.png'] and 'no such file' in reasons['gone.jpg']
    assert 'OpenCV' in reasons['broken.mp4'] and 'without images' in reasons['empty']
    done = [os.path.basename(prediction.source) for prediction in results.predictions]
    assert done == [os.path.basename(path) for path in (*scenes[:2], scenes[3])]


def test_a_too_small_image_does_not_fail_its_batch(segment):
    generator = np.random.RandomState(0)
    small, other = (generator.randint(0, 256, (20, 20, 3), np.uint8) for _ in range(2))
    large = generator.randint(0, 256, (64, 64, 3), np.uint8)
    results = segment([large, small, other, large], batch_size=2)
    assert [p.size for p in results.predictions] == [(64, 64)] * 2 and len(results.failures) == 2


def test_names_of_results_do_not_collide(segment, scenes, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        shutil.copy(scenes[0], tmp_path / folder / 'same.jpg')
    # Each file once, however often it is named.
    results = segment([tmp_path / 'a', tmp_path / 'a/same.jpg', str(tmp_path / '*/*.jpg')],
                      out_dir=tmp_path / 'out')
    assert len(results.predictions) == 2
    out = tmp_path / 'out'
    assert sorted(str(p.relative_to(out)) for p in out.rglob('*.*')) == [
        'pred/a/same.png', 'pred/b/same.png', 'vis/a/same.jpg', 'vis/b/same.jpg']
    assert len({p.files['overlay'] for p in results.predictions}) == 2


def test_deployed_it_predicts_the_same(segment, segmentor, scenes):
    deployed = Inferencer(*segmentor, device='cpu', deploy=True)
    backbone, = (m for m in deployed.model.modules() if isinstance(m, FasterViT))
    assert backbone.deployed and not segment.model.backbone.deployed
    for one, other in zip(segment(scenes[:2]).predictions, deployed(scenes[:2]).predictions):
        assert (one.label_map == other.label_map).mean() > 0.999


def test_classes_of_the_config_where_the_checkpoint_has_none(segmentor, tmp_path):
    file = torch.load(segmentor[1], weights_only=True)
    torch.save(file['state_dict'], tmp_path / 'bare.pth')
    inferencer = Inferencer(segmentor[0], tmp_path / 'bare.pth', device='cpu')
    assert len(inferencer.classes) == 150 and inferencer.classes[:2] == ('wall', 'building')
    assert inferencer.visualizer.dataset_meta['palette'][0] == (120, 120, 120)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_checkpoints_run_no_code(task, request, tmp_path):
    config, checkpoint = request.getfixturevalue(task)
    file = torch.load(checkpoint, weights_only=True)
    torch.save({**file, 'extra': Evil(str(tmp_path / 'ran'))}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='no code in it was run'):
        Inferencer(config, str(tmp_path / 'evil.pth'), device='cpu')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_a_checkpoint_that_leaves_tensors_random_is_an_error(task, request, tmp_path):
    config, checkpoint = request.getfixturevalue(task)
    file = torch.load(checkpoint, weights_only=True)
    del file['state_dict']['backbone.stages.2.blocks.0.attn.qkv.weight']
    torch.save(file, tmp_path / 'partial.pth')
    with pytest.raises(CheckpointError, match='1 of .* tensors are missing'):
        Inferencer(config, tmp_path / 'partial.pth', device='cpu')


def test_another_task_is_named(tmp_path):
    config = tmp_path / 'tracker.py'
    config.write_text("default_scope = 'mmtrack'\n")
    with pytest.raises(ValueError, match="default_scope='mmtrack'"):
        Inferencer(config, 'absent.pth')


def test_imports_without_mmdet_and_mmseg(tmp_path):
    code = ('import sys\n'
            'sys.modules.update(mmdet=None, mmseg=None, mmpretrain=None)\n'
            'import fastervit_mm.apis\n'
            'print(fastervit_mm.apis.Inferencer.__name__)')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(REPO)})
    assert done.returncode == 0 and done.stdout.strip() == 'Inferencer', done.stderr


def test_tiles_are_not_predicted_as_images_of_their_own(detect, photos):
    """The image of four photos: what each tile gives is what its pixels give as an image."""
    pixels = np.vstack([np.hstack([cv2.imread(path)[:200, :200] for path in photos[i:i + 2]])
                        for i in (0, 2)])
    prediction, = detect(pixels, score_thr=0., tile=200, batch_size=3).predictions
    views = [pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in tiles(pixels.shape, 200)]
    assert len(views) == 10
    alone = [p.instances for p in detect(views, score_thr=0., batch_size=3).predictions]
    offsets = [window[:2] for window in tiles(pixels.shape, 200)]
    expected = {(one['category_id'], one['score']): (one, offset)
                for found, offset in zip(alone, offsets) for one in found}
    assert len(alone[0]) < len(prediction.instances) < len(expected)
    for one in prediction.instances:
        own, (x, y) = expected[one['category_id'], one['score']]
        assert one['bbox'] == pytest.approx(np.add(own['bbox'], (x, y, 0, 0)), abs=1e-3)
        mask, cropped = (coco.decode(found['segmentation']) for found in (one, own))
        assert mask.shape == pixels.shape[:2] and mask.sum() == cropped.sum()
        assert np.array_equal(mask[y:y + len(cropped), x:x + cropped.shape[1]], cropped)
    scores = [one['score'] for one in prediction.instances]
    assert scores == sorted(scores, reverse=True)


def test_tiles_change_an_image_of_one_tile(detect, photos):
    plain, tiled = (detect(photos[0], score_thr=0., tile=side).predictions[0].instances
                    for side in (None, 5000))
    assert plain == tiled and plain
