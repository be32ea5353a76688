"""The recipes for other networks build what the model zoo says, and their optimizers."""
import json

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from benchmarks.recipes import OUT, RECIPES
from fastervit_mm import get_config
from fastervit_mm.weights import resolve

COUNTED = json.loads(OUT.read_text())['rows']
# Learning rates, over that of the optimizer, of backbone and heads.
RATES = {'mask2former': (0.1, 1), 'segformer': (1, 10)}


def test_every_recipe_is_counted():
    assert list(COUNTED) == list(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_builds_what_was_counted_with_the_rates_of_its_parts(name):
    import mmdet.models  # noqa: F401  (not on the meta device)
    import mmseg.models  # noqa: F401
    cfg = get_config(name)
    backbone = cfg.model.backbone
    assert backbone.init_cfg.checkpoint == f'fastervit://{backbone.arch}-224-1k'
    assert resolve(backbone.init_cfg.checkpoint) != backbone.init_cfg.checkpoint
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == COUNTED[name]['parameters']
    cfg.optim_wrapper.type = 'OptimWrapper'  # AMP needs a GPU; the groups are the same
    cfg.optim_wrapper.pop('loss_scale', None)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    whole, decay = (cfg.optim_wrapper.optimizer[key] for key in ('lr', 'weight_decay'))
    settings = {name: (group['lr'] / whole, group['weight_decay'])
                for group in optimizer.param_groups for name in group['param_names']}
    slow, fast = next((RATES[word] for word in RATES if word in name), (1, 1))
    assert settings['backbone.stages.2.blocks.0.attn.qkv.weight'] == pytest.approx((slow, decay))
    for spared in ('stages.2.carrier_position_biases.weight2', 'stages.2.carrier_bias',
                   'stem.norm1.weight', 'out_norms.3.weight'):
        assert settings[f'backbone.{spared}'] == pytest.approx((slow, 0))
    convolution = next(n for n, p in model.named_parameters() if 'head' in n and p.ndim == 4)
    assert settings[convolution] == pytest.approx((fast, decay))


@pytest.mark.parametrize('name, lr, rate, windows', [
    ('mmdet/cascade_fvit', 2e-4, 0.5, (28, 28)), ('mmseg/upernet_fvit', 5e-5, 0.4, (32, 16))])
def test_the_recipe_after_mambavision_differs_only_in_what_its_comment_names(
        name, lr, rate, windows):
    paper, other = get_config(name), get_config(f'{name}_as_mambavision')
    paper.optim_wrapper.optimizer.lr = lr
    paper.model.backbone.update(drop_path_rate=rate, window_size=windows, other_windows=True)
    assert other.to_dict() == paper.to_dict()
