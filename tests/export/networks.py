"""Small networks and their checkpoints, by the demos' configs."""
import torch

from fastervit_mm.engine import launch
from fastervit_mm.models import build_model
from tests.conftest import REPO, TINY, stir

# What is traced takes time: every kind of part, and two blocks where blocks hand on carriers.
ARCH = dict(TINY, depths=(1, 1, 2, 1), layer_scale=0.5, propagate_carriers=True)
CHANNELS = [16, 32, 64, 128]

SEGMENTOR = dict(config=str(REPO / 'configs/mmseg/upernet_fvit_shapes.py'), options={
    'model.decode_head.in_channels': CHANNELS, 'model.decode_head.channels': 16,
    'model.decode_head.pool_scales': [1, 6],
    'model.auxiliary_head.in_channels': 64, 'model.auxiliary_head.channels': 16})
DETECTOR = dict(config=str(REPO / 'configs/mmdet/cascade_fvit_shapes.py'), options={
    'model.neck.in_channels': CHANNELS})


def options(which, **more):
    """``--cfg-options`` of a small network, as the command line has them."""
    arch = {f'model.backbone.arch.{key}': value for key, value in ARCH.items()}
    return {**arch, **which['options'], **more}


def config(which, work_dir, **more):
    return launch.load_config(which['config'], work_dir=str(work_dir),
                              cfg_options=options(which, **more))


def network(cfg, seed=0):
    """Random weights, with distinct norms and scales."""
    torch.manual_seed(seed)
    model = build_model(cfg)
    stir(model)
    return model.eval()


def saved(model, path):
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


def detector(cfg, seed=0):
    """Random weights of heads that tell places apart, as trained ones do."""
    model = network(cfg, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(('rpn_cls.weight', 'fc_cls.weight', 'rpn_reg.weight')):
                # Not so much that scores are equal in float32, and their order open.
                parameter *= 30 if name.endswith('fc_cls.weight') else 5
    return model
