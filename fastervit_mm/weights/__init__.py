"""Published checkpoints: their addresses, reading them safely, loading them completely."""
from .addresses import PUBLISHED, resolve
from .converting import convert
from .keys import translate, translate_whole
from .loading import PretrainedBackbone, load_backbone
from .reading import CheckpointError, check_finite, read_checkpoint, tensors_of

__all__ = ['PUBLISHED', 'CheckpointError', 'PretrainedBackbone', 'check_finite', 'convert',
           'load_backbone', 'read_checkpoint', 'resolve', 'tensors_of', 'translate',
           'translate_whole']
