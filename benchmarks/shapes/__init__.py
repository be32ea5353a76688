"""The shapes dataset: scenes drawn from seeds, as files for all three libraries."""
from .files import make_shapes
from .scenes import CLASSES, PALETTE

__all__ = ['CLASSES', 'PALETTE', 'make_shapes']
