"""FasterViT (arXiv 2306.06189) for OpenMMLab; importing this registers the backbone."""
from . import (
    compat,  # noqa: F401  (first: timm does not import without it on some machines)
    timm_models,  # noqa: F401  (timm's registry)
    weights,  # noqa: F401  (the fastervit:// scheme and the checked initialiser)
)
from .backbone import FasterViT, HierarchicalAttention, SwinHAT
from .config_files import get_config
from .operators import provide_operators
from .version import __version__

provide_operators()

__all__ = ['FasterViT', 'HierarchicalAttention', 'SwinHAT', '__version__', 'get_config']
