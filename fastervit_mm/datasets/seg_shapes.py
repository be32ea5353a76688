"""The shapes data set for mmseg."""
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .scenes import CLASSES, PALETTE
from .shapes import make_shapes


@DATASETS.register_module()
class ShapesSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` over the shapes, made in ``data_root`` if they are missing.

    Args:
        data_root: Folder of the data set.
        **kwargs: As ``BaseSegDataset``'s.
    """

    METAINFO = dict(classes=('ground', *CLASSES), palette=[(40, 40, 40), *PALETTE])
    makes_itself = True  # nothing to look for before it is built

    def __init__(self, *args, data_root: str = 'data/shapes', img_suffix: str = '.png', **kwargs):
        make_shapes(data_root)
        super().__init__(*args, data_root=data_root, img_suffix=img_suffix, **kwargs)
