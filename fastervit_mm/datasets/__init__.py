"""The embedded shapes data set; importing this registers it with mmdet."""
from .coco_shapes import ShapesDataset
from .shapes import make_shapes

__all__ = ['ShapesDataset', 'make_shapes']
