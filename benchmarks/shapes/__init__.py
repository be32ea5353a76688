"""Generated shapes: scenes drawn from seeds, and their files."""
from .files import make_shapes
from .scenes import CLASSES, PALETTE

__all__ = ['CLASSES', 'PALETTE', 'make_shapes']
