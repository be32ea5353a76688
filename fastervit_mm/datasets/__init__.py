"""The embedded shapes data set.

``coco_shapes`` registers it with mmdet, ``seg_shapes`` with mmseg; neither needs the other's
library.
"""
from .shapes import make_shapes

__all__ = ['make_shapes']
