"""Drawn and saved predictions: every image, by its path, with the right names."""
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from fastervit_mm.apis import Inferencer
from fastervit_mm.apis.browse import browse
from fastervit_mm.apis.inputs import collect
from fastervit_mm.app import Predictor, pairs
from fastervit_mm.config_files import read_config
from fastervit_mm.engine import launch
from fastervit_mm.engine.enlarging import drawn_text
from fastervit_mm.engine.results import (
    build_visualizer,
    draw,
    read_segments,
    result_names,
    segments_of,
    write_segments,
)
from fastervit_mm.export.heads.segmentor import labels_of
from fastervit_mm.insight import subject_of
from fastervit_mm.models import build_model, load_model
from fastervit_mm.pipelines import read_by
from tests.cases import making

SIZE = (64, 48)
SEG = """_base_ = 'fastervit_mm::mmseg/upernet_fvit_small.py'
classes = ('ground', 'thing')
loss = dict(type='CrossEntropyLoss', use_sigmoid={binary})
head = dict(num_classes=2, out_channels={outputs}, threshold=0.5 if {binary} else None,
            loss_decode=loss)
model = dict(
    data_preprocessor=dict(size=(64, 64), mean=[118.] * {channels}, std=[58.] * {channels},
                           bgr_to_rgb=False),
    backbone=dict(in_channels={channels}, arch=dict(
        _delete_=True, embed_dim=16, stem_channels=16, depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 4))),
    decode_head=dict(head, in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(head, in_channels=64, channels=16),
    test_cfg=dict(_delete_=True, mode='whole'))
steps = [dict(type='LoadImageFromFile', color_type='{reading}'), dict(type='LoadAnnotations'),
         dict(type='PackSegInputs')]
data = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root='{root}', metainfo=dict(classes=classes), img_suffix='.png', pipeline=steps,
    data_prefix=dict(img_path='images', seg_map_path='masks')))
train_dataloader = data
val_dataloader = data
test_dataloader = data
test_evaluator = [dict(type='IoUMetric', iou_metrics=['mIoU']),
                  dict(type='IoUMetric', iou_metrics=['mFscore'], prefix='f')]
"""
NETWORKS = dict(  # channels, outputs, how files are read, whether they have 16 bits
    grey=(1, 1, 'grayscale'), four=(4, 2, 'unchanged'), deep=(1, 2, 'unchanged', True))


def segmentor(folder, channels, outputs, reading, deep=False):
    """Config and checkpoint of an untrained segmentor, and images of equal names in a/ and b/."""
    for sequence in 'ab':
        for number in range(2):
            name = f'{sequence}/{number:04}.png'
            path = folder / 'images' / name
            making.picture(path, making.some_boxes(number), SIZE, ord(sequence),
                           'L' if channels == 1 else 'RGBA')
            if deep:
                Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 16).save(path)
            labels = np.where(np.eye(*SIZE[::-1]), 1, 255).astype(np.uint8)
            making.label_map(folder / 'masks' / name, labels)
    config = making.text(folder / 'seg.py', SEG.format(
        channels=channels, outputs=outputs, binary=outputs == 1, reading=reading, root=folder))
    torch.manual_seed(3)
    model = build_model(read_config(config))
    torch.save(dict(state_dict=model.state_dict()), folder / 'seg.pth')
    return config, folder / 'seg.pth'


@pytest.fixture(scope='module')
def segmentors(tmp_path_factory):
    return {name: segmentor(tmp_path_factory.mktemp(name), *settings)
            for name, settings in NETWORKS.items()}


def names_below(folder, pattern='*/*'):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).glob(pattern))


@pytest.mark.parametrize('paths, roots, names', [
    (['d/a/0.jpg', 'd/b/0.jpg'], ['d'], ['a/0', 'b/0']),
    (['d/a/0.jpg'], ['d'], ['a/0']),
    (['d/a/0.jpg'], [], ['0']),
    (['d/a/0.jpg', 'e/a/0.jpg'], ['d', 'e'], ['d/a/0', 'e/a/0']),
    (['d/x.jpg', 'd/x.png', 'd/y.png'], [], ['x.jpg', 'x.png', 'y']),
    (['d/x.jpg', 'd/x.png', 'd/x.jpg.png'], [], ['x.jpg', 'x.png', 'x.jpg.png']),
    (['d/x.a.jpg', 'd/x.b.jpg', 'd/x'], [], ['x.a', 'x.b', 'x']),
])
def test_results_are_named_by_their_path_below_the_input(paths, roots, names):
    assert result_names(paths, roots) == names


@pytest.mark.parametrize('given, names', [
    (['seen'], ['a/0', 'b/0', 'b/0_']), (['seen/a', 'seen/b'], ['a/0', 'b/0', 'b/0_']),
    (['seen/**/*.png'], ['a/0', 'b/0', 'b/0_']), (['seen/b/*'], ['0', '0_']),
    (['seen/a'], ['0']), (['seen/b/0.png', 'other.png'], ['other', 'seen/b/0'])])
def test_inputs_of_several_folders(given, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('seen/a/0.png', 'seen/b/0.png', 'seen/b/0_.png', 'other.png', 'seen/vis/a/0.png'):
        making.picture(Path(path), size=(8, 8))
    sources, failures = collect(given, [Path('seen/vis'), Path('seen/pred')])
    assert sorted(source.name for source in sources) == names and not failures


def test_a_result_never_replaces_its_image(segmentors, tmp_path):
    inferencer = Inferencer(*segmentors['grey'], device='cpu')
    making.picture(tmp_path / 'pred/0.png', size=SIZE, mode='L')
    before = (tmp_path / 'pred/0.png').read_bytes()
    with pytest.raises(ValueError, match='would be replaced'):
        inferencer(tmp_path / 'pred', tmp_path)
    assert (tmp_path / 'pred/0.png').read_bytes() == before


@pytest.mark.parametrize('network', NETWORKS)
def test_every_tool_takes_every_network(network, segmentors, tmp_path):
    """A test run with a list of evaluators, infer, arrays, the page, attention and browse agree."""
    config, checkpoint = segmentors[network]
    names = ['a/0000', 'a/0001', 'b/0000', 'b/0001']
    cfg = launch.load_config(str(config), work_dir=str(tmp_path), cfg_options=dict(
        experiment_name=f'shown_{network}'))
    metrics = launch.test(cfg, str(checkpoint), str(tmp_path / 'maps'),
                          show_dir=str(tmp_path / 'shown'))
    assert 'mIoU' in metrics and 'f/mFscore' in metrics
    assert names_below(tmp_path / 'maps') == [f'{name}.png' for name in names]
    assert names_below(tmp_path / 'shown') == [f'{name}.png' for name in names]

    inferencer = Inferencer(config, checkpoint, device='cpu')
    images = config.parent / 'images'
    found = inferencer(images, tmp_path / 'out')
    assert names_below(tmp_path / 'out/pred') == [f'{name}.png' for name in names]
    assert names_below(tmp_path / 'out/vis') == [f'{name}.jpg' for name in names]
    cfg = inferencer.cfg
    for name, prediction in zip(names, found.predictions, strict=True):
        pixels = read_by(cfg, images / f'{name}.png')
        one, = inferencer(pixels).predictions
        written = np.asarray(Image.open(tmp_path / 'maps' / f'{name}.png'))
        assert np.array_equal(written, prediction.label_map)
        assert np.array_equal(one.label_map, prediction.label_map)
        overlay = cv2.imread(prediction.files['overlay'])
        assert overlay.shape == (3 * SIZE[1], 3 * SIZE[0], 3) and overlay.std() > 3
        assert bool(prediction.shown) == (network != 'grey')

    predictor = Predictor(pairs([config, checkpoint])[0])
    image = predictor.read(str(images / 'b/0001.png'))
    labels = found.predictions[-1].label_map
    assert dict(predictor.predict(image).rows) == {
        inferencer.classes[n]: f'{100 * (labels == n).mean():.1f} %' for n in np.unique(labels)}
    prepared = subject_of(inferencer.model, cfg).prepare(images / 'a/0000.png')
    assert prepared.inputs.shape[1] == NETWORKS[network][0]
    assert prepared.picture.shape == (*prepared.inputs.shape[2:], 3) and prepared.picture.std() > 5

    files = browse(cfg, tmp_path / 'fed')
    assert names_below(tmp_path / 'fed') == [
        f'{name[:2]}{number:05d}_{name[2:]}.png' for number, name in enumerate(names)]
    fed, read = cv2.imread(str(files[0])), read_by(cfg, images / 'a/0000.png')
    low, high = np.percentile(read, (1, 99))
    changed = {'grey': lambda: np.dstack([read] * 3), 'four': lambda: read[..., :3], 'deep': (
        lambda: np.dstack([(read.clip(low, high) - low) / (high - low) * 255] * 3))}[network]()
    # Where the label map has no class, it is the image itself, but for the class's name.
    assert (np.abs(fed.astype(float) - changed).max(-1) <= 1).mean() > 0.6


def test_images_that_a_network_cannot_take_are_named_in_one_line(segmentors):
    grey, four, deep = (Inferencer(*segmentors[name], device='cpu')
                        for name in ('grey', 'four', 'deep'))
    image = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)
    for inferencer, given in ((grey, image), (four, image), (grey, image[..., 0].astype(np.uint16)),
                              (deep, image[..., 0].astype(np.int64)), (grey, image[:0, :, 0]),
                              (grey, np.zeros((2, 3, 4, 5), np.uint8))):
        results = inferencer([given, image[..., :1]] if inferencer is grey else given)
        assert len(results.failures) == 1 and '\n' not in results.failures[0].reason
        assert len(results.predictions) == (inferencer is grey)
    one, other = grey([image[..., 0], image[..., :1]]).predictions
    assert np.array_equal(one.label_map, other.label_map) and one.size == (40, 50)


def test_configs_with_classes_as_types(segmentors):
    config, checkpoint = segmentors['grey']
    from mmseg.datasets.transforms import PackSegInputs
    from mmseg.visualization import SegLocalVisualizer
    cfg = read_config(config)
    steps = cfg.test_dataloader.dataset.pipeline
    steps[0].type, steps[-1].type, cfg.visualizer.type = (
        LoadImageFromFile, PackSegInputs, SegLocalVisualizer)
    image = np.random.RandomState(0).randint(0, 256, (40, 50)).astype(np.uint8)
    named, lazy = (Inferencer(given, checkpoint, device='cpu')(image).predictions[0]
                   for given in (config, cfg))
    assert np.array_equal(named.label_map, lazy.label_map)


def test_labels_of_a_head_with_one_output():
    head = torch.nn.Module()
    head.out_channels, head.threshold = 1, 0.3
    logits = torch.tensor([-3., -0.5, 2.]).reshape(1, 1, 1, 3)
    assert labels_of(logits, head).tolist() == [[[0, 1, 1]]]


NAMES = ('Größe', '猫', '$5 cost$', '_a^b$', '12', '', 'two\nlines', '\ud800', "it's \"q\"",
         '\\frac')


def samples():
    from mmdet.structures import DetDataSample
    from mmseg.structures import SegDataSample
    numbers = np.arange(len(NAMES))
    labels = np.repeat(numbers, 10)[None].repeat(40, 0)[None]
    boxes = np.stack([10. * numbers, 0 * numbers, 10 * numbers + 9, 0 * numbers + 30], 1)
    yield 'mmseg', SegDataSample(pred_sem_seg=PixelData(data=labels))
    yield 'mmdet', DetDataSample(pred_instances=InstanceData(
        bboxes=boxes, labels=numbers, scores=np.ones(len(NAMES)),
        masks=np.stack([labels[0] == n for n in numbers])))


@pytest.mark.filterwarnings('error::UserWarning')
@pytest.mark.parametrize('scope, sample', list(samples()), ids=['mmseg', 'mmdet'])
def test_any_name_is_drawn_and_samples_may_be_of_numpy(scope, sample):
    kind = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer')[scope]
    cfg = Config(dict(default_scope=scope, visualizer=dict(type=kind, name='a')))
    plain = np.full((40, 10 * len(NAMES), 3), 90, np.uint8)
    drawn = draw(build_visualizer(cfg, dict(classes=NAMES)), plain, sample)
    again = draw(build_visualizer(cfg, dict(classes=NAMES[::-1])), plain, sample)
    assert drawn.shape == again.shape == (120, 30 * len(NAMES), 3) and (drawn != again).any()


def test_dollar_signs_are_plain_text_and_unknown_letters_are_marked():
    from matplotlib.figure import Figure
    figure = Figure()
    for name in ('$x$', '$5 cost$', 'a\\$b', 'Größe Ж λ'):
        shown = figure.text(0, 0, drawn_text(name))
        assert shown._preprocess_math(shown.get_text()) == (name, False)
    assert drawn_text('猫 a') == '\ufffd a'


DET = """_base_ = 'fastervit_mm::mmdet/cascade_fvit_small.py'
model = dict(backbone=dict(arch=dict(
    _delete_=True, embed_dim=16, stem_channels=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))),
    neck=dict(in_channels=[16, 32, 64, 128]), roi_head=dict(
        bbox_head=[dict(head, num_classes=2, fc_out_channels=64)
                   for head in _base_.model.roi_head.bbox_head],
        mask_head=None, mask_roi_extractor=None),
    test_cfg=dict(rcnn=dict(score_thr=0.)))
steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96), keep_ratio=True),
         dict(type='LoadAnnotations', with_bbox=True),
         dict(type='PackDetInputs')]
data = dict(num_workers=0, persistent_workers=False, dataset=dict(
    pipeline=steps, data_root='{root}', metainfo=dict(classes={classes}), ann_file='{file}',
    data_prefix=dict(img='')))
train_dataloader = val_dataloader = test_dataloader = data
"""


@pytest.mark.parametrize('classes, order, names', [
    (('red', 'blue'), ('red', 'blue'), ('red', 'blue')),
    (('blue', 'red'), ('red', 'blue'), ('red', 'blue')),  # saved so, but numbered by the file
    (('blue', 'red'), ('blue', 'red'), ('blue', 'red'))])
def test_classes_have_the_names_of_their_labels(classes, order, names, tmp_path):
    making.coco(tmp_path / 'train.json', {'0.jpg': making.some_boxes(0)}, order, ids=[7, 3])
    config = making.text(tmp_path / 'det.py', DET.format(
        root=f'{tmp_path}/', classes=classes, file='train.json'))
    model = build_model(read_config(config))
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(
        CLASSES=classes, palette=[(1, 2, 3), (4, 5, 6)]))), tmp_path / 'det.pth')
    inferencer = Inferencer(config, tmp_path / 'det.pth', device='cpu')
    assert inferencer.classes == names
    ids = dict(zip(order, (7, 3)))
    assert inferencer.categories.ids == [ids[name] for name in names]
    assert load_model(inferencer.cfg, str(tmp_path / 'det.pth')).dataset_meta['classes'] == names


def test_segments_are_written_as_coco_has_them(tmp_path):
    from mmdet.structures import DetDataSample
    # Label and 1000 times the number of its thing; the first pixel is stuff of label 0.
    labels = torch.tensor([[0, 1000, 2000, 2000], [1001, 1001, 2, 255]])[None]
    sample = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=labels))
    numbers, segments = segments_of(sample, 2)
    assert [(s['label'], s['area'], s['bbox']) for s in segments] == [
        (0, 1, [0, 0, 1, 1]), (0, 1, [1, 0, 1, 1]), (1, 2, [0, 1, 2, 1]), (0, 2, [2, 0, 2, 1])]
    assert numbers.tolist() == [[1, 2, 4, 4], [3, 3, 0, 0]]
    write_segments(tmp_path / 'p.png', numbers * 70000)
    assert (read_segments(tmp_path / 'p.png') == numbers * 70000).all()


PANOPTIC = """_base_ = 'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['fastervit_mm'], allow_failed_imports=False)
model = dict(backbone=dict(_delete_=True, type='FasterViT', arch=dict(
    embed_dim=16, stem_channels=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))),
    neck=dict(in_channels=[16, 32, 64, 128]))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='PackDetInputs')]))
"""


def test_a_panoptic_network_predicts(tmp_path):
    config = making.text(tmp_path / 'fpn.py', PANOPTIC)
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(read_config(config)).state_dict()), tmp_path / 'fpn.pth')
    making.picture(tmp_path / 'in/a/photo.jpg', making.some_boxes(1))
    inferencer = Inferencer(config, tmp_path / 'fpn.pth', device='cpu')
    one, = inferencer(tmp_path / 'in', tmp_path / 'out').predictions
    content = json.loads((tmp_path / 'out/panoptic.json').read_text())
    annotation, = content['annotations']
    written = np.asarray(Image.open(tmp_path / 'out/pred' / annotation['file_name'])).astype(int)
    ids = written @ (1, 256, 256**2)
    assert annotation['file_name'] == 'a/photo.png' and np.array_equal(ids, one.label_map)
    assert annotation['segments_info'] == one.segments
    for segment in one.segments:
        assert (ids == segment['id']).sum() == segment['area'] > 0
        category, = (c for c in content['categories'] if c['id'] == segment['category_id'])
        assert category['isthing'] == segment['isthing']
    assert (tmp_path / 'out/vis/a/photo.jpg').is_file()
    # Without any segment its image is drawn as it is.
    from mmdet.structures import DetDataSample
    nothing = DetDataSample(pred_panoptic_seg=PixelData(sem_seg=torch.full((1, 64, 96), 133)))
    image = np.full((64, 96, 3), 77, np.uint8)
    assert (inferencer.drawn(image, nothing)[0] == 77).all()


def test_a_detectors_predictions_name_their_files(tmp_path):
    """A test run on images of equal names: pictures, and paths in the pickle."""
    boxes = {f'{s}/0.jpg': making.some_boxes(n) for n, s in enumerate('ab')}
    for name, found in boxes.items():
        making.picture(tmp_path / name, found)
    making.coco(tmp_path / 'val.json', boxes, ['red', 'blue'])
    config = making.text(tmp_path / 'det.py', DET.format(
        root=f'{tmp_path}/', classes=('red', 'blue'), file='val.json') + (
        f'val_evaluator = test_evaluator = dict(ann_file={str(tmp_path / "val.json")!r}, '
        "metric='bbox')"))
    torch.save(dict(state_dict=build_model(read_config(config)).state_dict()), tmp_path / 'd.pth')
    cfg = launch.load_config(str(config), work_dir=str(tmp_path / 'w'))
    launch.test(cfg, str(tmp_path / 'd.pth'), str(tmp_path / 'out.pkl'),
                show_dir=str(tmp_path / 'shown'))
    assert names_below(tmp_path / 'shown') == ['a/0.png', 'b/0.png']
    predictions = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert [p['img_path'] for p in predictions] == [str(tmp_path / name) for name in boxes]
