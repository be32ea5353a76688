"""The network: needs torch, mmengine and timm only."""
from .base import StagedBackbone
from .fastervit import FasterViT
from .stages import HATStage
from .swin_hat import SwinHAT
from .variants import VARIANTS, Variant

__all__ = ['VARIANTS', 'FasterViT', 'HATStage', 'StagedBackbone', 'SwinHAT', 'Variant']
