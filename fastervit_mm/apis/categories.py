"""Names and ids of a dataset's classes and images."""
import logging
import os
from typing import Dict, List, NamedTuple, Sequence

import mmengine
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from ..models import annotation_file, class_of, dataset_config, image_folders

# COCO's annotations number its 80 classes from 1 to 90, without these.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


class Categories(NamedTuple):
    """COCO's ids of a detector's classes and images.

    Attributes:
        ids: Category id of each class.
        images: Image id of each annotated image, by its real path.
    """
    ids: List[int]
    images: Dict[str, int]


def metainfo(cfg: Config) -> dict:
    """Classes and palette of a config's dataset, without building it."""
    dataset = dataset_config(cfg)
    found = class_of(dataset, cfg, DATASETS)
    return dict(found._load_metainfo(dict(dataset.get('metainfo') or {}))) if found else {}


def find_categories(cfg: Config, classes: Sequence[str]) -> Categories:
    """Category ids of a detector's classes.

    They are those of the dataset's annotation file, if it exists and has the classes. Otherwise
    COCO's own ids for COCO's 80 classes, and numbers from 1 for other classes.

    Args:
        cfg: The detector's config.
        classes: Names of its classes.
    """
    dataset = dataset_config(cfg)
    annotations = annotation_file(dataset)
    if os.path.isfile(annotations) and annotations.endswith('.json'):
        try:
            content = mmengine.load(annotations)
            by_name = {str(entry['name']): entry['id'] for entry in content['categories']}
            folder = (image_folders(cfg) or [dataset.get('data_root') or ''])[0]
            images = {os.path.realpath(os.path.join(folder, entry['file_name'])): entry['id']
                      for entry in content['images']}
            if all(name in by_name for name in classes):
                return Categories([by_name[name] for name in classes], images)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print_log(f'{annotations}: not a COCO annotation file ({type(error).__name__}: '
                      f'{error}); category ids do not come from it', logger='current',
                      level=logging.WARNING)
    if tuple(classes) == _coco_classes():
        return Categories([i for i in range(1, 91) if i not in _COCO_GAPS], {})
    return Categories(list(range(1, len(classes) + 1)), {})


def _coco_classes() -> tuple:
    from mmdet.datasets import CocoDataset
    return tuple(CocoDataset.METAINFO['classes'])
