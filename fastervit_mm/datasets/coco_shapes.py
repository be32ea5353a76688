"""The shapes data set for mmdet."""
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from .scenes import CLASSES, PALETTE
from .shapes import make_shapes


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """mmdet's ``CocoDataset`` over the shapes, which it makes in ``data_root`` if they are missing.

    Args:
        data_root: Folder of the data set.
        **kwargs: As ``CocoDataset``'s.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)
    makes_itself = True  # nothing to look for before it is built

    def __init__(self, *args, data_root: str = 'data/shapes', **kwargs):
        make_shapes(data_root)
        super().__init__(*args, data_root=data_root, **kwargs)
