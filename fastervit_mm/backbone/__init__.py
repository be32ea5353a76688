"""The network: needs torch, mmengine and timm only."""
from .fastervit import FasterViT
from .variants import VARIANTS, Variant

__all__ = ['VARIANTS', 'FasterViT', 'Variant']
