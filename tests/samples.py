"""The samples of COCO, ADE20K and others that tests read: real images, or stand-ins for them.

Real samples are read where they are: in the folder that the environment variable
``FASTERVIT_MM_SAMPLES`` names, else in ``shared/data`` beside the clone. Where there are none, the
generator of the embedded shapes draws stand-ins of the same layout. So a test may rely on the
layout, on the numbers of files and on what :func:`draw_coco` and :func:`draw_ade20k` promise, and
on no particular image. With ``CI=true`` real samples are required.
"""
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Callable, List, Optional, Tuple

import cv2
import numpy as np
import pytest
from filelock import FileLock

from benchmarks.shapes import make_shapes
from benchmarks.shapes.files import coco_annotation
from benchmarks.shapes.scenes import CLASSES, Instance, Scene, draw_scene

VARIABLE = 'FASTERVIT_MM_SAMPLES'
BESIDE = Path(__file__).resolve().parents[2] / 'shared' / 'data'

# COCO numbers its 80 categories from 1 to 90, without these.
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
# Half of the objects are of these, so that a few images have many of one class, as COCO's have.
COMMON = ('person', 'chair', 'spoon', 'cup', 'book', 'bowl', 'car', 'bird', 'tv', 'bottle', 'sink')
# ADE20K's numbers of wall, building, sky, floor, tree, ceiling, road, grass, pavement and earth.
GROUNDS = (1, 2, 3, 4, 5, 6, 7, 10, 12, 14)
# Width and height; the data sets' own.
COCO_SIZES = ((640, 480), (640, 427), (480, 640), (500, 375), (427, 640), (640, 360), (352, 230))
ADE_SIZES = ((512, 383), (383, 512), (512, 341), (512, 512), (512, 288), (366, 512))
TILINGS = ((1, 1), (2, 1), (1, 2), (3, 2))  # columns and rows of scenes


def find(name: str) -> Optional[Path]:
    """Folder of a real sample, a key of :data:`STAND_INS`, or None.

    A folder that the variable names has to hold it.
    """
    named = os.environ.get(VARIABLE)
    folder = (Path(named).expanduser().resolve() if named else BESIDE) / name
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f'{VARIABLE}={named!r}: no {name} in it. Name the folder that holds {name}, or '
                    'unset the variable to test on stand-ins', pytrace=False)
    if os.environ.get('CI') == 'true':
        pytest.fail(f'CI=true and no real samples: there is no {folder}. Put them there, or name '
                    f'their folder in {VARIABLE}', pytrace=False)
    return None


def describe() -> str:
    """What tests will read, for the first lines of a run."""
    folder = Path(os.environ.get(VARIABLE) or BESIDE)
    if folder.is_dir():
        return f'real images in {folder}'
    return f'stand-ins; for real images name their folder in {VARIABLE} (there is no {folder})'


def get(name: str, folder: Path) -> Path:
    """Folder of a sample: the real one, else a stand-in.

    Args:
        name: A key of :data:`STAND_INS`.
        folder: Where a stand-in is drawn once, for every process that asks with this folder.
    """
    found = find(name)
    if found is not None:
        return found
    return _once(folder / name, STAND_INS[name])


def _once(root: Path, draw: Callable[[Path], None]) -> Path:
    with FileLock(root.with_name(f'{root.name}.lock')):
        if not root.is_dir():
            building = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
            try:
                draw(building)
                building.rename(root)  # complete or not at all
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return root


def link_shapes(folder: Path, session_folder: Path) -> None:
    """Lay ``data/shapes`` into a folder: 300 scenes to train on and 60 others.

    Args:
        folder: Where a tool will run, which then generates nothing.
        session_folder: Where they are drawn once, for every process that asks with this folder.
    """
    (folder / 'data').mkdir()
    (folder / 'data/shapes').symlink_to(_once(session_folder / 'shapes', draw_shapes))


def draw_shapes(root: Path, train: int = 300, val: int = 60) -> None:
    """Generate the shapes dataset with fewer scenes: all 1320 take half a minute."""
    make_shapes(root, train, val)


def draw_coco(root: Path, num_images: int = 50) -> None:
    """Draw a stand-in for a sample of COCO 2017.

    ``annotations/instances_{train,val}2017.json``, ``train2017/`` and ``val2017/``; all 80
    categories; polygons, and uncompressed run lengths for crowds; images of several sizes and
    formats, in no order of their numbers. One training and two validation images have no object.

    Args:
        root: Folder, which exists.
        num_images: Of each split.
    """
    from mmdet.datasets import CocoDataset
    names = CocoDataset.METAINFO['classes']
    ids = [i for i in range(1, 91) if i not in COCO_GAPS]
    of_shape = [[i for i in range(len(names)) if i % len(CLASSES) == label]
                for label in range(len(CLASSES))]
    (root / 'annotations').mkdir()
    for split, seed, empty in (('train2017', 1, [15]), ('val2017', 2, [15, 31])):
        random = np.random.RandomState(seed)
        (root / split).mkdir()
        images, annotations = [], []
        for index, number in enumerate(random.permutation(500_000)[:num_images].tolist()):
            image, instances, _ = _mosaic(random, COCO_SIZES[index % len(COCO_SIZES)])
            if index in empty:
                image, instances = cv2.blur(image, (300, 300)), []  # nothing can be told apart
            height, width = image.shape[:2]
            images.append(dict(id=number, file_name=f'{number:012d}.jpg', height=height,
                               width=width))
            _write(root / split / images[-1]['file_name'], image)
            for instance in instances:
                category = random.choice(of_shape[instance.label])
                if random.rand() < 0.5:
                    category = random.choice([i for i in of_shape[instance.label]
                                              if names[i] in COMMON])
                annotation = coco_annotation(instance)
                if instance.is_crowd:
                    annotation['segmentation'] = _run_lengths(instance.mask)
                annotation.update(id=len(annotations) + 1, image_id=number,
                                  category_id=ids[category])
                annotations.append(annotation)
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(dict(
            info=dict(description='A stand-in for COCO 2017'), images=images,
            annotations=annotations,
            categories=[dict(supercategory='shape', id=i, name=n) for i, n in zip(ids, names)])))


def draw_ade20k(root: Path, num_images: Tuple[int, int] = (100, 50)) -> None:
    """Draw a stand-in for a sample of ADE20K.

    ``images/{training,validation}`` and ``annotations/{training,validation}``: label maps with 0
    for other, which is in every image, and 1 to 150 for the classes; long sides of 512; neighbours
    of different sizes.

    Args:
        root: Folder, which exists.
        num_images: Of training and of validation.
    """
    for split, seed, count in zip(('training', 'validation'), (3, 4), num_images):
        random = np.random.RandomState(seed)
        for part in ('images', 'annotations'):
            (root / part / split).mkdir(parents=True)
        for index in range(count):
            image, instances, ground = _mosaic(random, ADE_SIZES[index % len(ADE_SIZES)])
            labels = np.array(GROUNDS, np.uint8)[ground]
            for place, instance in enumerate(instances):
                other = instance.is_crowd or place == 0
                labels[instance.mask] = 0 if other else random.choice(
                    np.arange(instance.label + 1, 151, len(CLASSES)))
            name = f'ADE_val_{13 * index + seed:08d}'
            _write(root / 'images' / split / f'{name}.jpg', image)
            _write(root / 'annotations' / split / f'{name}.png', labels)


def draw_bccd(root: Path) -> None:
    """Draw a stand-in for BCCD, of fewer images: boxes of three classes in three splits, no masks.

    Args:
        root: Folder, which exists.
    """
    names = ('RBC', 'WBC', 'Platelets')
    (root / 'annotations').mkdir()
    for split, seed, count in (('train', 5, 24), ('val', 6, 12), ('test', 7, 12)):
        random = np.random.RandomState(seed)
        (root / split).mkdir()
        images, annotations = [], []
        for index in range(count):
            image, instances, _ = _mosaic(random, (640, 480))
            images.append(dict(id=index, file_name=f'BloodImage_{seed}{index:04d}.jpg', height=480,
                               width=640))
            _write(root / split / images[-1]['file_name'], image)
            for instance in instances:
                annotation = coco_annotation(instance)
                del annotation['segmentation']
                annotation.update(id=len(annotations) + 1, image_id=index, iscrowd=0,
                                  category_id=instance.label % len(names) + 1)
                annotations.append(annotation)
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(dict(
            images=images, annotations=annotations,
            categories=[dict(id=i, name=n) for i, n in enumerate(names, 1)])))


def draw_camvid(root: Path) -> None:
    """Draw a stand-in for CamVid, of fewer images: labels 0 to 10 and 255, in three splits.

    Args:
        root: Folder, which exists.
    """
    for split, seed, count in (('training', 8, 24), ('validation', 9, 12), ('testing', 10, 12)):
        random = np.random.RandomState(seed)
        for part in ('images', 'annotations'):
            (root / part / split).mkdir(parents=True)
        for index in range(count):
            image, instances, ground = _mosaic(random, (480, 360))
            labels = ground % 7
            for place, instance in enumerate(instances):
                labels[instance.mask] = 255 if place == 0 else 7 + instance.label
            name = f'{seed:04d}TP_{index:06d}'
            _write(root / 'images' / split / f'{name}.jpg', image)
            _write(root / 'annotations' / split / f'{name}.png', labels)


STAND_INS = dict(tiny_coco=lambda root: draw_coco(root), ade20k_tiny=draw_ade20k, bccd=draw_bccd,
                 camvid=draw_camvid)


@functools.cache
def _scenes() -> List[Scene]:
    """Tiles that images are composed of; drawing each anew would take several times as long."""
    return [draw_scene(seed, size=112) for seed in range(2_000_000, 2_000_060)]


def _mosaic(random: np.random.RandomState, size: Tuple[int, int]
            ) -> Tuple[np.ndarray, List[Instance], np.ndarray]:
    """Scenes side by side: large objects in some images, many small ones in others.

    Returns:
        The image (H, W, 3) in BGR, its instances, and (H, W) the index into GROUNDS of what lies
        behind them.
    """
    width, height = size
    columns, rows = TILINGS[random.randint(len(TILINGS))]
    image, ground = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    instances = []
    for row in range(rows):
        for column in range(columns):
            top, bottom = row * height // rows, (row + 1) * height // rows
            left, right = column * width // columns, (column + 1) * width // columns
            scene = _scenes()[random.randint(len(_scenes()))]
            shape, turn = (right - left, bottom - top), random.choice([1, -1])
            image[top:bottom, left:right] = cv2.resize(
                scene.image[:, ::turn], shape, interpolation=cv2.INTER_CUBIC)
            ground[top:bottom, left:right] = random.randint(len(GROUNDS))
            for instance in scene.instances:
                mask = np.zeros((height, width), bool)
                mask[top:bottom, left:right] = cv2.resize(
                    instance.mask[:, ::turn].astype(np.uint8), shape,
                    interpolation=cv2.INTER_NEAREST)
                instances.append(Instance(instance.label, mask, instance.is_crowd))
    # Two images of one scene alone shall not be the same file: that is a leak between splits.
    _, keys, place, *_ = random.get_state()
    brightness = np.random.RandomState([*keys[:2], place]).uniform(0.9, 1.1)
    return cv2.convertScaleAbs(image, alpha=brightness), instances, ground


def _run_lengths(mask: np.ndarray) -> dict:
    """As COCO's own files have crowds: lengths of runs down the columns, the first of zeros."""
    flat = np.concatenate([[0], mask.T.ravel(), [0]]).astype(np.int8)
    changes = np.flatnonzero(np.diff(flat))
    if len(changes) and changes[-1] == mask.size:
        changes = changes[:-1]
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    return dict(counts=counts.tolist(), size=list(mask.shape))


def _write(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f'could not write {path}')
