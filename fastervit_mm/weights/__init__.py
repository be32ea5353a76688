"""Published checkpoints: where they are, what is in them, and loading them whole or not at all."""
from .addresses import PUBLISHED, resolve
from .converting import convert
from .keys import translate
from .loading import PretrainedBackbone, load_backbone
from .reading import CheckpointError, read_checkpoint

__all__ = ['PUBLISHED', 'CheckpointError', 'PretrainedBackbone', 'convert',
           'load_backbone',
           'read_checkpoint', 'resolve', 'translate']
