"""The shapes dataset for mmdet."""
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from .scenes import CLASSES, PALETTE
from .shapes import holds_other_files, make_shapes


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """mmdet's ``CocoDataset`` of the shapes, generated in ``data_root`` if they are not there.

    Args:
        data_root: Folder of the dataset.
        **kwargs: Arguments of ``CocoDataset``.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)
    makes_itself = True  # its files need not exist before it is built
    holds_other_files = staticmethod(holds_other_files)

    def __init__(self, *args, data_root: str = 'data/shapes', **kwargs):
        make_shapes(data_root)
        super().__init__(*args, data_root=data_root, **kwargs)
