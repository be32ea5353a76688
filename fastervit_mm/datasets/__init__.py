"""The generated dataset of shapes.

``coco_shapes`` registers it with mmdet, ``seg_shapes`` with mmseg; neither needs the other
library.
"""
from .shapes import make_shapes

__all__ = ['make_shapes']
