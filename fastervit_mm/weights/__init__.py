"""Published checkpoints: their addresses, reading them safely, loading them completely."""
from .addresses import PUBLISHED, resolve
from .converting import convert
from .keys import translate
from .loading import PretrainedBackbone, load_backbone
from .reading import CheckpointError, read_checkpoint

__all__ = ['PUBLISHED', 'CheckpointError', 'PretrainedBackbone', 'convert', 'load_backbone',
           'read_checkpoint', 'resolve', 'translate']
