"""FasterViT (arXiv 2306.06189) for OpenMMLab; importing this registers the backbone."""
from . import compat as _compat  # first: timm does not import without it on some machines
from . import weights as _weights  # the fastervit:// scheme and the checked initialiser
from .backbone import FasterViT
from .version import __version__

__all__ = ['FasterViT', '__version__']
