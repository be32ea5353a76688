"""Every config builds what it says."""
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from fastervit_mm.backbone import VARIANTS
from fastervit_mm.engine.checks import check_config
from fastervit_mm.engine.launch import load_config
from fastervit_mm.weights import resolve
from tests.conftest import REPO

CONFIGS = sorted(path for kind in ('cascade', 'dino')
                 for path in (REPO / 'configs/mmdet').glob(f'{kind}_fvit*.py'))
FROM_SCRATCH = ('cascade_fvit_shapes', 'cascade_fvit_small')
DINO = [path for path in CONFIGS if path.stem.startswith('dino')]


def build(cfg):
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_builds_with_matching_widths(path):
    cfg = Config.fromfile(str(path))
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    assert tuple(cfg.model.neck.in_channels) == backbone.out_channels
    if path.stem not in FROM_SCRATCH:
        checkpoint = cfg.model.backbone.init_cfg.checkpoint
        assert resolve(checkpoint) != checkpoint
        arch = cfg.model.backbone.arch
        assert checkpoint == f'fastervit://{arch}{"" if "21k" in arch else "-224-1k"}'


def test_every_variant_has_a_config():
    archs = {Config.fromfile(str(p)).model.backbone.arch for p in CONFIGS
             if p.stem not in FROM_SCRATCH}
    assert archs == set(VARIANTS)


def test_every_variant_has_a_dino():
    archs = [Config.fromfile(str(p)).model.backbone.arch for p in DINO if 'scale' not in p.stem]
    assert sorted(archs) == sorted(VARIANTS)


def test_cascades_recipe_is_the_papers():
    cfg = Config.fromfile(str(REPO / 'configs/mmdet/cascade_fvit.py'))
    assert cfg.train_cfg.max_epochs == 36
    linear, steps = cfg.param_scheduler
    assert (linear.type, linear.by_epoch, linear.begin, linear.end) == ('LinearLR', False, 0, 1000)
    assert (steps.type, steps.milestones, steps.gamma) == ('MultiStepLR', [27, 33], 0.1)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    # No layer-wise decay left from ConvNeXt.
    assert cfg.optim_wrapper.constructor == 'MergedOptimWrapperConstructor'
    assert 'layer_decay_rate' not in cfg.optim_wrapper.paramwise_cfg
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.sync_bn == 'torch'
    for head in cfg.model.roi_head.bbox_head:
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ('ConvFCBBoxHead', 4, 1)
        assert head.reg_decoded_bbox and head.loss_bbox.type == 'GIoULoss'
        assert head.norm_cfg.type == 'SyncBN'
    swin = Config.fromfile(_installed('swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'))
    assert _unscoped(cfg.train_pipeline) == _unscoped(swin.train_pipeline)


@pytest.mark.parametrize('path', DINO, ids=lambda p: p.stem)
def test_the_authors_recipe_of_dino(path, tiny_coco, tmp_path, monkeypatch):
    """And the checks that come before a run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/coco').symlink_to(tiny_coco)
    cfg = load_config(str(path))
    check_config(cfg, training=True)
    if '224' in path.stem:  # one of each number of scales
        check_config(cfg, training=False)
    wrapper, (steps,) = cfg.optim_wrapper, cfg.param_scheduler
    assert wrapper.type == 'OptimWrapper' and wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    assert wrapper.optimizer == dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
    assert wrapper.paramwise_cfg == dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))
    assert (steps.milestones, steps.gamma, cfg.train_cfg.max_epochs) == ([11], 0.1, 12)
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16
    model = cfg.model
    assert model.backbone.drop_path_rate == 0.1 and model.backbone.pad_conv_stages == 7
    assert model.neck.bias and model.bbox_head.type == 'OfficialDINOHead'
    assert (model.dn_cfg.box_noise_scale, model.dn_cfg.label_noise_scale) == (0.4, 0.5)
    assert (model.num_queries, model.test_cfg.max_per_img) == (900, 300)
    levels = 5 if '5scale' in path.stem else 4
    assert model.neck.num_outs == model.get('num_feature_levels', 4) == levels
    assert model.backbone.out_indices == ((1, 2, 3), (0, 1, 2, 3))[levels == 5]
    assert 'custom_hooks' in cfg and 'fastervit_mm.dino' in cfg.custom_imports.imports
    assert cfg.test_dataloader.batch_size == 1
    kinds = [(t.type, t.get('imdecode_backend')) for t in cfg.test_dataloader.dataset.pipeline]
    assert kinds[:2] == [('LoadImageFromFile', 'pillow'), ('OfficialDINOResize', None)]
    assert cfg.test_evaluator.metric == 'bbox'


def _unscoped(node):
    """Without the scope that mmengine notes in a base of another package."""
    if isinstance(node, dict):
        return {k: _unscoped(v) for k, v in node.items() if k != '_scope_'}
    return [_unscoped(v) for v in node] if isinstance(node, (list, tuple)) else node


def _installed(name):
    from mmengine.config.utils import _get_package_and_cfg_path
    from mmengine.utils import get_installed_path
    package, path = _get_package_and_cfg_path(f'mmdet::{name}')
    return f'{get_installed_path(package)}/.mim/configs/{path}'


@pytest.mark.parametrize('path, weight_decay', [
    ('mmdet/cascade_fvit_3.py', 0.05), ('mmseg/upernet_fvit_3.py', 0.01)])
def test_weight_decay_spares_norms_biases_positions_and_layer_scale(path, weight_decay):
    cfg = Config.fromfile(str(REPO / 'configs' / path))
    cfg.optim_wrapper.type = 'OptimWrapper'  # AMP needs a GPU; the groups are the same
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.arch = dict(embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1),
                                   num_heads=(1, 1, 2, 4), layer_scale=1e-5)
    model = build(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    norms = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.LayerNorm)
    spared, decayed = set(), set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f'{module_name}.{name}'
            spare = (isinstance(module, norms) or name == 'bias' or 'position' in full
                     or 'carrier_bias' in full or 'layer_scale' in full)
            assert decay[id(parameter)] == (0 if spare else weight_decay), full
            (spared if spare else decayed).add(full)
    assert {'backbone.stages.2.carrier_position_biases.weight2',
            'backbone.stages.2.carrier_bias'} <= spared
    assert 'backbone.stages.2.blocks.0.carriers.layer_scale1.gamma' in spared
    assert 'backbone.stages.2.blocks.0.attn.qkv.weight' in decayed


@pytest.mark.parametrize('path', ['mmdet/cascade_fvit_0.py', 'mmseg/upernet_fvit_0.py'])
def test_norms_are_synchronised_when_distributed_and_plain_on_one_process(path):
    """By mmengine's own two functions, which its runner calls in the two cases."""
    from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
    cfg = Config.fromfile(str(REPO / 'configs' / path))
    cfg.model.backbone.init_cfg = None

    def kinds(model):
        return {type(m) for m in model.modules()
                if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)}

    assert kinds(convert_sync_batchnorm(build(cfg), cfg.sync_bn)) == {torch.nn.SyncBatchNorm}
    plain = kinds(revert_sync_batchnorm(build(cfg)))
    assert plain and torch.nn.SyncBatchNorm not in plain
