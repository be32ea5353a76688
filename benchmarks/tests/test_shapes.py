"""The shapes dataset: the same bytes every time, and correct annotations."""
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from pycocotools.coco import COCO
from scipy.ndimage import binary_fill_holes

from benchmarks.shapes import PALETTE, files, make_shapes
from benchmarks.shapes.files import crop
from benchmarks.shapes.scenes import CLASSES, draw_scene, outline
from fastervit_mm import get_config

COUNTS = dict(train=30, val=10)


def digest(folder):
    digests = {}
    for file in sorted(folder.rglob('*')):
        if file.is_file():
            digests[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', **COUNTS)


def test_the_same_bytes_every_time(root, tmp_path):
    assert digest(make_shapes(tmp_path / 'again', **COUNTS)) == digest(root)


def test_an_existing_folder_is_kept(root):
    before = {f: f.stat().st_mtime_ns for f in root.rglob('*')}
    make_shapes(root, **COUNTS)
    assert {f: f.stat().st_mtime_ns for f in root.rglob('*')} == before


def test_a_broken_or_older_folder_is_regenerated(root, tmp_path):
    folder = make_shapes(tmp_path / 'shapes', **COUNTS)
    (folder / 'made_by.json').write_text('{"kind": "shapes", "version": 1}')
    (folder / 'train' / '000001.png').unlink()
    assert digest(make_shapes(folder, **COUNTS)) == digest(root)


def test_a_folder_with_other_contents_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('two years of work')
    with pytest.raises(FileExistsError, match='root=.*other than those of the shapes'):
        make_shapes(tmp_path)
    assert (tmp_path / 'thesis.tex').read_text() == 'two years of work'


def test_annotations_are_the_masks(root):
    """Compare decoded polygons and run lengths with the drawn masks."""
    coco = COCO(str(root / 'annotations' / 'instances_train.json'))
    crowds = 0
    for image_id in coco.getImgIds():
        scene = draw_scene(image_id)
        drawn = cv2.imread(str(root / 'train' / coco.loadImgs(image_id)[0]['file_name']))
        assert np.array_equal(drawn, scene.image)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(scene.instances)
        for annotation, instance in zip(annotations, scene.instances):
            mask = coco.annToMask(annotation).astype(bool)
            # A polygon has no hole: where another shape lies within this one it is filled.
            drawn_mask = instance.mask if instance.is_crowd else binary_fill_holes(instance.mask)
            assert (mask & drawn_mask).sum() / (mask | drawn_mask).sum() > 0.98
            assert annotation['area'] == instance.mask.sum()
            x, y, w, h = annotation['bbox']
            ys, xs = np.nonzero(instance.mask)
            assert (x, y, x + w - 1, y + h - 1) == (xs.min(), ys.min(), xs.max(), ys.max())
            assert annotation['category_id'] == instance.label + 1
            crowds += annotation['iscrowd']
    assert crowds > 0


def test_the_data_have_the_promised_properties(root):
    """Small objects, overlaps, every class; and no two instances share a pixel."""
    areas, labels, touching = [], [], 0
    for seed in range(60):
        scene = draw_scene(seed)
        total = np.zeros(scene.image.shape[:2], int)
        for instance in scene.instances:
            total += instance.mask
            areas.append(instance.mask.sum())
            labels.append(instance.label)
            grown = cv2.dilate(instance.mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
            touching += any((grown & other.mask).any() for other in scene.instances
                            if other is not instance)
        assert total.max() <= 1
    assert set(labels) == set(range(len(CLASSES)))
    assert np.mean(np.array(areas) < 32**2) > 0.4
    assert touching / len(areas) > 0.3


def test_colour_does_not_tell_the_class():
    """The classes' mean colours differ only by chance."""
    colours = {label: [] for label in range(len(CLASSES))}
    for seed in range(150):
        scene = draw_scene(seed)
        for instance in scene.instances:
            colours[instance.label].append(scene.image[instance.mask].mean(axis=0))
    for values in colours.values():
        error = np.std(values, axis=0) / np.sqrt(len(values))
        everyone = np.mean([v for vs in colours.values() for v in vs], axis=0)
        assert (np.abs(np.mean(values, axis=0) - everyone) < 4 * error).all()


def test_shapes_match_their_names():
    def area(name):
        x, y = outline(CLASSES.index(name)).T
        return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area('circle') == pytest.approx(np.pi, rel=0.01)
    assert area('square') == pytest.approx(2)
    assert area('triangle') == pytest.approx(3 * 3**0.5 / 4)
    assert len(outline(CLASSES.index('star'))) == 10
    for label in range(len(CLASSES)):
        assert np.hypot(*outline(label).T).max() == pytest.approx(1)


def test_images_of_the_splits_differ(root):
    images = {path.read_bytes() for split in COUNTS for path in (root / split).iterdir()}
    assert len(images) == sum(COUNTS.values())


def test_a_stopped_generation_leaves_nothing_that_looks_complete(root, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(files, 'crop', stop)
        with pytest.raises(KeyboardInterrupt):
            make_shapes(tmp_path / 'shapes', **COUNTS)
    assert not (tmp_path / 'shapes').exists()
    assert digest(make_shapes(tmp_path / 'shapes', **COUNTS)) == digest(root)
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']


def dataset_of(config, root, **settings):
    """The validation dataset of a config, with other files."""
    cfg = get_config(config)
    init_default_scope(cfg.default_scope)
    return DATASETS.build(dict(cfg.val_dataloader.dataset, data_root=str(root), **settings))


def test_mmdet_reads_it(root):
    dataset = dataset_of('mmdet/cascade_fvit_shapes', root, test_mode=True)
    assert len(dataset) == 10 and dataset.metainfo['classes'] == CLASSES
    assert list(map(tuple, dataset.metainfo['palette'])) == PALETTE
    listed = json.loads((root / 'annotations/instances_val.json').read_text())
    assert sum(len(dataset.get_data_info(i)['instances']) for i in range(10)) == len(
        listed['annotations'])


def test_mmpretrain_reads_a_crop_of_every_shape(root):
    """Each with its class; crowds are left out."""
    dataset = dataset_of('mmpretrain/fastervit_shapes', root / 'crops')
    shapes = [(scene, instance) for seed in range(1_000_001, 1_000_011)
              for scene in [draw_scene(seed)] for instance in scene.instances]
    images = {(root / 'crops/val' / CLASSES[instance.label] / f'{number:06d}.png'): (
        crop(scene, instance), CLASSES[instance.label])
        for number, (scene, instance) in enumerate(shapes, 1) if not instance.is_crowd}
    assert len(dataset) == len(images) > 30
    for index in range(len(dataset)):
        item = dataset.get_data_info(index)
        pixels, name = images[Path(item['img_path'])]
        assert np.array_equal(cv2.imread(item['img_path']), pixels)
        assert dataset.metainfo['classes'][item['gt_label']] == name
        assert 0.6 < pixels.shape[0] / pixels.shape[1] < 1.7


def test_label_maps_are_the_masks(root):
    """Compare label maps with the scene and the COCO annotations."""
    coco = COCO(str(root / 'annotations' / 'instances_train.json'))
    for image_id in coco.getImgIds():
        labels = cv2.imread(str(root / f'labels/train/{image_id:06d}.png'), cv2.IMREAD_UNCHANGED)
        expected = np.zeros_like(labels)
        for instance in draw_scene(image_id).instances:
            expected[instance.mask] = instance.label + 1
        assert np.array_equal(labels, expected)
        areas = sum(a['area'] for a in coco.loadAnns(coco.getAnnIds(image_id)))
        assert (labels > 0).sum() == areas


def test_mmseg_reads_it(root):
    dataset = dataset_of('mmseg/upernet_fvit_shapes', root)
    assert len(dataset) == 10 and dataset.metainfo['classes'] == ('ground', *CLASSES)
    assert list(map(tuple, dataset.metainfo['palette']))[1:] == PALETTE
    assert not dataset.metainfo['reduce_zero_label']
    for i in range(10):
        info = dataset.get_data_info(i)
        assert cv2.imread(info['img_path']).shape[:2] == cv2.imread(info['seg_map_path']).shape[:2]
