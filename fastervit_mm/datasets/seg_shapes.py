"""The shapes dataset for mmseg."""
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .scenes import CLASSES, PALETTE
from .shapes import holds_other_files, make_shapes


@DATASETS.register_module()
class ShapesSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` of the shapes, generated in ``data_root`` if they are not there.

    Args:
        data_root: Folder of the dataset.
        **kwargs: Arguments of ``BaseSegDataset``.
    """

    METAINFO = dict(classes=('ground', *CLASSES), palette=[(40, 40, 40), *PALETTE])
    makes_itself = True  # its files need not exist before it is built
    holds_other_files = staticmethod(holds_other_files)

    def __init__(self, *args, data_root: str = 'data/shapes', img_suffix: str = '.png', **kwargs):
        make_shapes(data_root)
        super().__init__(*args, data_root=data_root, img_suffix=img_suffix, **kwargs)
