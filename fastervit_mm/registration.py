"""All that ``import fastervit_mm`` adds to other libraries.

Nothing that they hold is replaced: what loaded, resolved or warned before does so afterwards.
"""
import sys

from .operators import LastFinder


def register() -> None:
    """Add this package's names to Python, torch, mmengine and timm."""
    # Python: `mmcv._ext` where no compiled one is found, and advice on missing libraries. First,
    # for all that imports mmcv.
    sys.meta_path.append(LastFinder())

    # torch: schemas of two operators, where torchvision's library does not load. Before timm, which
    # imports torchvision. Then types that torch.load(weights_only=True) may load.
    from . import compat
    compat.declare_torchvision_ops()
    compat.allow_checkpoint_types()

    # mmengine: configs named `fastervit_mm::mmdet/cascade_fvit.py`, in `_base_` and for
    # mmengine.hub.get_config, their scope, and OneDL's names of packages. mmengine looks up
    # MODULE2PACKAGE's values as distributions, which an editable install is not, then as modules.
    from mmengine import registry
    from mmengine.config.utils import MODULE2PACKAGE

    from .registry import SCOPE, ScopeOfProgram
    compat.find_forks_by_module()
    MODULE2PACKAGE[SCOPE] = f'{__package__}.config_files'
    for root in [*vars(registry).values()]:
        if isinstance(root, registry.Registry):
            ScopeOfProgram(root)

    # mmengine: `type='FasterViT'` and `type='SwinHAT'` in MODELS (by decorators), their
    # `init_cfg=dict(type='Pretrained')`, and checkpoints named `fastervit://2-224-1k`.
    from mmengine.runner.checkpoint import CheckpointLoader

    from . import backbone  # noqa: F401
    from .weights.addresses import SCHEME
    from .weights.loading import PretrainedBackbone
    from .weights.reading import load_from_fastervit
    registry.WEIGHT_INITIALIZERS.register_module('FasterViTPretrained', module=PretrainedBackbone)
    CheckpointLoader.register_scheme(SCHEME, load_from_fastervit)

    # timm: `fastervit_2` and ten other names for timm.create_model.
    from . import timm_models
    timm_models.register_models()
