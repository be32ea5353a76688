"""Published checkpoints: addresses, safe reading, complete loading."""
from .addresses import DETECTORS, PUBLISHED, resolve
from .converting import convert
from .dino import convert_dino, is_official_dino
from .errors import CheckpointError, check_finite
from .finding import translate, translate_whole
from .loading import PretrainedBackbone, load_backbone
from .reading import read_checkpoint, tensors_of

__all__ = ['DETECTORS', 'PUBLISHED', 'CheckpointError', 'PretrainedBackbone', 'check_finite',
           'convert', 'convert_dino', 'is_official_dino', 'load_backbone', 'read_checkpoint',
           'resolve', 'tensors_of', 'translate', 'translate_whole']
