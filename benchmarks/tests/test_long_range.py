"""The long-range task: only the mark in the image tells the class."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from benchmarks.long_range import task
from benchmarks.long_range.demo import CONFIG
from benchmarks.long_range.metric import DistanceAccuracy
from benchmarks.long_range.task import (
    CLASSES,
    PALETTE,
    RADIUS,
    accuracy_over_distance,
    draw_long_range,
    edges,
    inside,
    label_map,
    make_long_range,
    read_discs,
)
from benchmarks.shapes import make_shapes
from benchmarks.tests.test_shapes import digest


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_long_range(tmp_path_factory.mktemp('data') / 'long_range', train=12, val=8)


@pytest.fixture(scope='module')
def scenes():
    return [draw_long_range(seed) for seed in range(400)]


def test_the_same_bytes_every_time(root, tmp_path):
    assert digest(make_long_range(tmp_path / 'again', train=12, val=8)) == digest(root)


def test_larger_images_are_another_dataset(tmp_path):
    counts = dict(train=2, val=1)
    large = make_long_range(tmp_path / 'large', 160, **counts)
    image = cv2.imread(str(large / 'train/000002.png'))
    assert np.array_equal(image, draw_long_range(2, 160).image)
    before = digest(large)
    assert digest(make_long_range(large, 160, **counts)) == before
    assert digest(make_long_range(large, **counts)) != before  # written anew, as of another recipe
    assert cv2.imread(str(large / 'train/000002.png')).shape == (128, 128, 3)


def test_the_two_datasets_leave_each_other_alone(root, tmp_path):
    others = make_shapes(tmp_path / 'shapes', train=1, val=1)
    before = digest(others), digest(root)
    with pytest.raises(FileExistsError, match='other than those of the long-range'):
        make_long_range(others)
    with pytest.raises(FileExistsError, match='other than those of the shapes'):
        make_shapes(root)
    assert (digest(others), digest(root)) == before


def test_the_mark_has_the_colour_of_the_class(scenes):
    for scene in scenes[:50]:
        assert (scene.image[scene.mark] == PALETTE[scene.label][::-1]).all()
        labels = label_map(scene)
        assert not scene.mark[labels != 255].any()
        assert set(labels[labels != 255]) == {scene.label}
    assert {scene.label for scene in scenes} == set(range(len(CLASSES)))


def test_another_colour_changes_the_mark_alone(monkeypatch):
    before = [draw_long_range(seed) for seed in range(20)]
    monkeypatch.setattr(task, 'PALETTE', PALETTE[1:] + PALETTE[:1])
    for old, seed in zip(before, range(20)):
        changed = (draw_long_range(seed).image != old.image).any(axis=-1)
        assert np.array_equal(changed, old.mark)


def test_nothing_but_the_mark_tells_the_class(scenes):
    """Surrounding colours, places and distances differ only by chance."""
    found = {label: [] for label in range(len(CLASSES))}
    for scene in scenes:
        discs = (label_map(scene) != 255).astype(np.uint8)
        near = cv2.dilate(discs, np.ones((15, 15))).astype(bool) & ~scene.mark
        place = np.mean(np.nonzero(scene.mark), axis=1)
        found[scene.label].append(
            [*scene.image[near].mean(axis=0), *place, *scene.discs.mean(axis=0)])
    everyone = np.mean([v for vs in found.values() for v in vs], axis=0)
    for values in found.values():
        error = np.std(values, axis=0) / np.sqrt(len(values))
        assert (np.abs(np.mean(values, axis=0) - everyone) < 4 * error).all()


@pytest.mark.parametrize('size', [128, 200])
def test_discs_are_whole_and_at_the_stated_distances(size):
    distances = []
    for seed in range(60):
        scene = draw_long_range(seed, size)
        middle = np.mean(np.nonzero(scene.mark), axis=1)[::-1] + 0.5
        assert scene.mark.sum() == 8 * size
        assert sorted([*middle, *(size - middle)])[::3] == [4, size - 4]  # at the frame
        across = int(np.argmax(np.abs(middle - size / 2)))
        for x, y, distance in scene.discs:
            ys, xs = np.nonzero(inside((x, y), scene.image.shape))
            assert len(xs) == pytest.approx(np.pi * RADIUS**2, rel=0.08)
            assert (scene.image[ys, xs] == 255).all()
            assert abs(middle - (xs.mean() + 0.5, ys.mean() + 0.5))[across] == pytest.approx(
                distance, abs=0.6)
            distances.append(distance)
    assert 16 <= min(distances) < 20 and size - 17 < max(distances) <= size - 13


def test_every_range_of_distances_has_discs(scenes):
    distances = np.concatenate([scene.discs[:, 2] for scene in scenes[:200]])
    assert (np.histogram(distances, edges())[0] > 0.08 * len(distances)).all()


def test_an_image_too_small_is_refused():
    with pytest.raises(ValueError, match='size=64: give at least 128 pixels'):
        draw_long_range(0, 64)


def test_mmseg_reads_it(root):
    init_default_scope('mmseg')
    cfg = Config.fromfile(CONFIG)
    dataset = DATASETS.build(dict(cfg.val_dataloader.dataset, data_root=str(root)))
    assert len(dataset) == 8 and dataset.metainfo['classes'] == CLASSES
    assert list(map(tuple, dataset.metainfo['palette'])) == PALETTE
    discs = read_discs(root, 'val')
    for number in range(8):
        item = dataset[number]
        scene = draw_long_range(1_000_000 + number + 1)
        assert np.array_equal(item['inputs'].permute(1, 2, 0).numpy(), scene.image)
        assert np.array_equal(item['data_samples'].gt_sem_seg.data[0].numpy(), label_map(scene))
        assert np.allclose(discs[Path(item['data_samples'].img_path).name], scene.discs, atol=0.006)


def test_accuracy_by_distance_counts_discs(tmp_path):
    """By the majority of each disc's pixels; pixels elsewhere do not count."""
    metric = DistanceAccuracy(output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=CLASSES)
    discs = [(20, 20, 20.), (40, 20, 35.9), (60, 20, 16.), (80, 20, 116.)]
    true, said = torch.full((1, 40, 128), 255), torch.full((1, 40, 128), 3)
    for disc in discs:
        true[0, inside(disc, (40, 128))] = 2
    said[..., 12:28], said[..., 32:39] = 2, 2  # whole; the smaller part
    said[..., 59:68], said[..., 72:80] = 2, 1  # the larger part; none
    (tmp_path / 'discs').mkdir()
    (tmp_path / 'discs/val.json').write_text(json.dumps({'a.png': discs}))
    metric.process({}, [dict(pred_sem_seg=dict(data=said), gt_sem_seg=dict(data=true),
                             img_path=str(tmp_path / 'val/a.png'))])
    assert metric.evaluate(1) == {
        'accuracy': 50, 'accuracy/16-36': pytest.approx(200 / 3), 'accuracy/96-116': 0}
    assert np.array_equal(cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED), said[0])


def test_ranges_cover_every_distance():
    distances = np.linspace(16, 300, 500)
    found = accuracy_over_distance(distances, distances < 56)
    assert found == {'16-36': 1, '36-56': 1, '56-76': 0, '76-96': 0, '96-116': 0}
    assert accuracy_over_distance([200.], [True]) == {'96-116': 1}
    assert edges(228) == (16, 56, 96, 136, 176, 216)
    assert accuracy_over_distance([200., 56.], [True, False], 228) == {'56-96': 0, '176-216': 1}


def test_images_of_the_splits_differ(root):
    images = {path.read_bytes() for path in root.glob('*/*.png')}
    assert len(images) == 12 + 8
