"""A detector's config made from small data, and the labels mmdet reads with it."""
import json
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

import fastervit_mm  # noqa: F401  (for fastervit_mm:: in a config)
from fastervit_mm.datasets.checking import is_note
from fastervit_mm.new_config import new_config

from .making import coco, picture, some_boxes

NAMES = ['red', 'blue']


def made(data, **settings):
    """A config made from data, read by mmengine, and the report."""
    out = data.parent / 'mine.py'
    report = new_config('det', data, out, force=True, **settings)
    return Config.fromfile(str(out)), report


def serious(report):
    return [problem for problem in report.problems if not is_note(problem[0])]


def dataset_of(cfg, split):
    init_default_scope('mmdet')
    return DATASETS.build({**cfg[f'{split}_dataloader'].dataset, 'pipeline': []})


def objects_of(data):
    """The same of data without a config."""
    found = {}
    for split in data.splits:
        for name, _, annotation, image in data.objects(split):
            found.setdefault(image['file_name'], []).append(
                (data.categories.index(name), *map(int, annotation['bbox'][:2])))
    return {name: sorted(objects) for name, objects in found.items()}


def seen(cfg, split):
    """The objects of each image as mmdet numbers them: label, left and top."""
    dataset = dataset_of(cfg, split)
    return {Path(info['img_path']).name: sorted(
        (o['bbox_label'], *map(int, o['bbox'][:2])) for o in info['instances'])
        for info in map(dataset.get_data_info, range(len(dataset)))}


def right(boxes):
    return {name: sorted(box[:3] for box in found) for name, found in boxes.items()}


def coco_data(root, names=NAMES, splits=('train', 'val'), number=2):
    boxes = {split: {f'{split}{i}.jpg': some_boxes(i, len(names)) for i in range(number)}
             for split in splits}
    for number, (split, found) in enumerate(boxes.items()):
        for seed, (name, some) in enumerate(found.items(), 100 * number):
            picture(root / split / name, some, seed=seed)
        coco(root / f'{split}.json', found, names)
    return boxes


def change(path, function):
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))
