"""Function that mmengine's hub calls in a package."""
from .config_files import ConfigError


def register_all_modules() -> None:
    """Raise an error for ``mmengine.hub.get_model``, which cannot build these models.

    It looks for each part of a model in the registries of the config's package; here they are
    those of mmdet, mmseg and mmpretrain.

    Raises:
        ConfigError: Always; the message names the functions that do.
    """
    raise ConfigError(
        'mmengine.hub.get_model builds models of mmdet, mmseg and mmpretrain alone. Instead: '
        'from fastervit_mm import get_config; from fastervit_mm.models import build_model; '
        "model = build_model(get_config('mmseg/upernet_fvit_small'))")
