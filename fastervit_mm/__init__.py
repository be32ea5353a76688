"""FasterViT (arXiv 2306.06189) for OpenMMLab; importing this registers the backbone."""
from . import operators  # noqa: F401  (before all that imports mmengine or mmcv)

# isort: split
from . import (
    compat,  # noqa: F401  (first: timm does not import without it on some machines)
    timm_models,  # noqa: F401  (timm's registry)
    weights,  # noqa: F401  (the fastervit:// scheme and the checked initialiser)
)
from .backbone import FasterViT, HATStage, SwinHAT
from .config_files import get_config
from .version import __version__

__all__ = ['FasterViT', 'HATStage', 'SwinHAT', '__version__', 'get_config']
