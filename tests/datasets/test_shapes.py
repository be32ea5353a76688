"""The shapes dataset: the same bytes every time, and annotations that are true."""
import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from scipy.ndimage import binary_fill_holes

from fastervit_mm.datasets import make_shapes, shapes
from fastervit_mm.datasets.coco_shapes import ShapesDataset
from fastervit_mm.datasets.scenes import CLASSES, draw_scene, outline
from fastervit_mm.datasets.seg_shapes import ShapesSegDataset


def digest(folder):
    digests = {}
    for file in sorted(folder.rglob('*')):
        if file.is_file():
            digests[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    small = {'train': (0, 30), 'val': (1_000_000, 10)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, 'SPLITS', small)
        yield make_shapes(tmp_path_factory.mktemp('data') / 'shapes')


def test_the_same_bytes_every_time(root, tmp_path):
    assert digest(make_shapes(tmp_path / 'again')) == digest(root)


def test_a_folder_that_is_there_is_kept(root):
    before = {f: f.stat().st_mtime_ns for f in root.rglob('*')}
    make_shapes(root)
    assert {f: f.stat().st_mtime_ns for f in root.rglob('*')} == before


def test_a_broken_or_older_folder_is_made_anew(root, tmp_path):
    folder = make_shapes(tmp_path / 'shapes')
    (folder / 'made_by.json').write_text('{"recipe": "older"}')
    (folder / 'train' / '000001.png').unlink()
    assert digest(make_shapes(folder)) == digest(root)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('two years of work')
    with pytest.raises(FileExistsError, match='root=.*not the shapes dataset'):
        make_shapes(tmp_path)
    assert (tmp_path / 'thesis.tex').read_text() == 'two years of work'


def test_annotations_are_the_masks(root):
    """Polygons and run lengths, decoded by pycocotools, against what was drawn."""
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


def test_what_the_data_promise(root):
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
    """The mean colours of the classes differ no more than chance allows."""
    colours = {label: [] for label in range(len(CLASSES))}
    for seed in range(150):
        scene = draw_scene(seed)
        for instance in scene.instances:
            colours[instance.label].append(scene.image[instance.mask].mean(axis=0))
    for values in colours.values():
        error = np.std(values, axis=0) / np.sqrt(len(values))
        everyone = np.mean([v for vs in colours.values() for v in vs], axis=0)
        assert (np.abs(np.mean(values, axis=0) - everyone) < 4 * error).all()


def test_forms_are_what_they_are_called():
    def area(name):
        x, y = outline(CLASSES.index(name)).T
        return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area('circle') == pytest.approx(np.pi, rel=0.01)
    assert area('square') == pytest.approx(2)
    assert area('triangle') == pytest.approx(3 * 3**0.5 / 4)
    assert len(outline(CLASSES.index('star'))) == 10
    for label in range(len(CLASSES)):
        assert np.hypot(*outline(label).T).max() == pytest.approx(1)


def test_training_and_validation_pictures_do_not_overlap():
    (train, n_train), (val, n_val) = shapes.SPLITS['train'], shapes.SPLITS['val']
    assert train + n_train < val or val + n_val < train


def test_mmdet_reads_it(root):
    dataset = ShapesDataset(data_root=str(root), ann_file='annotations/instances_val.json',
                            data_prefix=dict(img='val/'), test_mode=True, pipeline=[])
    assert len(dataset) == 10 and dataset.metainfo['classes'] == CLASSES
    listed = json.loads((root / 'annotations/instances_val.json').read_text())
    assert sum(len(dataset.get_data_info(i)['instances']) for i in range(10)) == len(
        listed['annotations'])


def test_label_maps_are_the_masks(root):
    """The second annotation form, against the scene and against the first form."""
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
    dataset = ShapesSegDataset(
        data_root=str(root), data_prefix=dict(img_path='val', seg_map_path='labels/val'),
        test_mode=True, pipeline=[])
    assert len(dataset) == 10 and dataset.metainfo['classes'] == ('ground', *CLASSES)
    assert not dataset.metainfo['reduce_zero_label']
    for i in range(10):
        info = dataset.get_data_info(i)
        assert cv2.imread(info['img_path']).shape[:2] == cv2.imread(info['seg_map_path']).shape[:2]


@pytest.mark.parametrize('module, other', [('coco_shapes', 'mmseg'), ('seg_shapes', 'mmdet')])
def test_each_library_does_without_the_other(module, other):
    code = f'import sys; sys.modules[{other!r}] = None; import fastervit_mm.datasets.{module}'
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)
