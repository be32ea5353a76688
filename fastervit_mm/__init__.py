"""FasterViT (arXiv 2306.06189) for OpenMMLab; importing this registers the backbone."""
from .registration import register

register()

from .backbone import FasterViT, HATStage, SwinHAT  # noqa: E402
from .config_files import get_config  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ['FasterViT', 'HATStage', 'SwinHAT', '__version__', 'get_config']
