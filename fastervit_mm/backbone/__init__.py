"""The network: needs torch, mmengine and timm only."""
from .fastervit import FasterViT
from .stages import HierarchicalAttention
from .swin_hat import SwinHAT
from .variants import VARIANTS, Variant

__all__ = ['VARIANTS', 'FasterViT', 'HierarchicalAttention', 'SwinHAT', 'Variant']
