"""The generated datasets: of shapes, and of the long-range task.

``coco_shapes`` registers the first with mmdet, ``seg_shapes`` and ``seg_long_range`` both with
mmseg; neither library needs the other.
"""
from .long_range import make_long_range
from .shapes import make_shapes

__all__ = ['make_long_range', 'make_shapes']
