"""Merged parameter groups, layer-wise rates and fused kernels."""
import copy
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from benchmarks.operators import operators
from benchmarks.recipes import RECIPES
from fastervit_mm import FasterViT, compat
from fastervit_mm.compat import TORCH
from fastervit_mm.config_files import ConfigError
from fastervit_mm.engine import launch, optimizers
from fastervit_mm.engine.optimizers import MergedOptimWrapperConstructor, layer_of
from fastervit_mm.weights import CheckpointError
from tests.conftest import REPO, TINY, needs_torch
from tests.engine.conftest import SEGMENTOR

# Those that train; an evaluation of ImageNet has no optimizer. RECIPES have a test of their own.
CONFIGS = [path for path in sorted(REPO.glob('configs/mm*/*.py'))
           if not path.stem.endswith('_in1k')
           and f'{path.parent.name}/{path.stem}' not in RECIPES]
PARAMWISE = Config.fromfile(str(REPO / 'configs/_base_/fastervit.py')).fastervit_paramwise_cfg
ADAMW = dict(type='AdamW', lr=1e-2, weight_decay=0.05)


def built(model, merged=True, paramwise=PARAMWISE, **optimizer):
    kind = MergedOptimWrapperConstructor if merged else DefaultOptimWrapperConstructor
    settings = dict(type='OptimWrapper', optimizer=dict(ADAMW, **optimizer))
    return kind(settings, copy.deepcopy(paramwise))(model)


def settings_by_name(model, wrapper):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: {k: v for k, v in group.items()
                           if k not in ('params', 'param_names', 'lr_mult', 'decay_mult')}
            for group in wrapper.optimizer.param_groups for p in group['params']}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_at_most_two_groups_and_mmengines_settings(path):
    import mmdet.models  # noqa: F401  (not on the meta device)
    import mmpretrain.models  # noqa: F401
    import mmseg.models  # noqa: F401
    cfg = Config.fromfile(str(path))
    init_default_scope(cfg.default_scope)
    cfg.optim_wrapper.type = 'OptimWrapper'  # AMP needs a GPU; the groups are the same
    for setting in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(setting, None)
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    ours = build_optim_wrapper(model, cfg.optim_wrapper)
    few = 2 if cfg.optim_wrapper.get('paramwise_cfg') else 1
    assert len(ours.optimizer.param_groups) == few
    cfg.optim_wrapper.pop('constructor')
    if TORCH < (2, 4):  # no fused kernels but CUDA's, and mmengine asks for them all the same
        cfg.optim_wrapper.optimizer.pop('fused', None)
    mmengines = build_optim_wrapper(model, cfg.optim_wrapper)
    assert len(mmengines.optimizer.param_groups) > 50 or few == 1
    assert settings_by_name(model, ours) == settings_by_name(model, mmengines)


def test_groups_keep_their_order_and_name_their_parameters():
    model = FasterViT(TINY)
    first, second = built(model).optimizer.param_groups
    names = [name for name, _ in model.named_parameters()]
    assert first['param_names'][0] == names[0]
    for group in (first, second):
        assert group['param_names'] == sorted(group['param_names'], key=names.index)
        assert [dict(model.named_parameters())[n] is p for n, p in zip(
            group['param_names'], group['params'])] == [True] * len(group['params'])
    custom = dict(PARAMWISE, custom_keys=dict(stem=dict(lr_mult=0.1), position=dict(betas=(0, 0))))
    assert settings_by_name(model, built(model, True, custom)) == settings_by_name(
        model, built(model, False, custom))


def test_frozen_parameters_have_no_group():
    model = FasterViT(TINY, frozen_stages=1)
    names = [n for group in built(model).optimizer.param_groups for n in group['param_names']]
    assert sorted(names) == sorted(n for n, p in model.named_parameters() if p.requires_grad)


# Fewer operators

def operators_of_a_step(merged, **optimizer):
    # As many parameters as FasterViT-2 has.
    model = FasterViT(dict(TINY, depths=(3, 3, 8, 5)))
    wrapper = built(model, merged, **optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    wrapper.step()
    return operators(wrapper.step).total()


def test_a_step_is_few_operators():
    merged = operators_of_a_step(merged=True, foreach=True)
    assert merged <= 20 and operators_of_a_step(merged=False, foreach=True) > 100 * merged
    if TORCH >= (2, 4):
        assert operators_of_a_step(merged=True, fused=True) <= 6


# Fused

fused_on_cpu = needs_torch(2, 4, 'before, no fused kernels on a CPU')


@fused_on_cpu
@pytest.mark.parametrize('settings, fused', [
    (dict(), True), (dict(type='SGD', momentum=0.9), True), (dict(type='Adam'), True),
    (dict(type='RMSprop'), None), (dict(foreach=True), None), (dict(fused=False), False)])
def test_fused_where_all_parameters_are_on_a_gpu(monkeypatch, settings, fused):
    monkeypatch.setattr(optimizers, '_on_cuda', lambda model: True)
    groups = built(FasterViT(TINY), **settings).optimizer.param_groups
    assert [group.get('fused') for group in groups] == [fused] * len(groups)
    monkeypatch.undo()
    assert not built(FasterViT(TINY)).optimizer.param_groups[0]['fused']


def test_without_a_fused_kernel_fused_is_left_out(monkeypatch):
    said = []
    monkeypatch.setattr(compat, 'TORCH', (2, 1))
    monkeypatch.setattr(optimizers, 'print_log', lambda text, **kwargs: said.append(text))
    groups = built(FasterViT(TINY), fused=True).optimizer.param_groups
    assert not any(group.get('fused') for group in groups)
    assert said[0].startswith('Optimizer: fused=True is left out: torch')


@needs_torch(2, 6, 'before, a build for CUDA asks for its driver here')
def test_devices_of_parameters():
    from torch._subclasses import FakeTensorMode

    def on_cuda(*devices):
        with FakeTensorMode():
            return optimizers._on_cuda(torch.nn.ParameterList(
                torch.empty(2, device=device) for device in devices))

    assert on_cuda('cuda', 'cuda') and not on_cuda('cuda', 'cpu') and not on_cuda('cpu')


@fused_on_cpu
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.1)])
def test_fused_goes_with_a_loss_scale(monkeypatch, clip):
    """mmengine's wrapper with a loss scale, on a CPU: the same step, and none with inf."""
    monkeypatch.setattr('mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available',
                        lambda: True)
    monkeypatch.setattr('torch.cuda.amp.GradScaler._lazy_init_scale_growth_tracker',
                        lambda *args: None, raising=False)
    ends = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
        wrapper = AmpOptimWrapper(optimizer=built(model, fused=fused).optimizer,
                                  clip_grad=copy.deepcopy(clip), loss_scale=dict(enabled=False))
        wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.)
        for loss in (lambda y: (y * torch.arange(3)).sum(), lambda y: (y * torch.inf).sum()):
            before = copy.deepcopy(model.state_dict())
            wrapper.backward(loss(model(torch.rand(4, 3))))
            wrapper.step()
            wrapper.zero_grad()
            after = model.state_dict()
            moved = any(not torch.equal(before[k], after[k]) for k in before)
            ends.append((moved, after))
    assert [moved for moved, _ in ends] == [True, False] * 2
    for name in after:
        torch.testing.assert_close(ends[1][1][name], ends[3][1][name], rtol=1e-5, atol=1e-6)


# Layer-wise learning rates

def test_layers_count_from_the_stem_to_the_heads():
    depths = (1, 2, 2, 1)
    layers = {name: layer_of(name, depths) for name in (
        'stem.conv1.weight', 'stages.0.blocks.0.conv1.weight', 'downsamples.0.norm.weight',
        'stages.1.blocks.0.conv1.weight', 'stages.1.blocks.1.conv1.weight',
        'downsamples.1.conv.weight', 'stages.2.carrier_init.conv.weight',
        'stages.2.positions.weight1', 'stages.2.blocks.0.attn.qkv.weight',
        'stages.3.blocks.0.attn.qkv.weight',
        'out_norms.0.weight')}
    assert list(layers.values()) == [0, 1, 1, 2, 3, 3, 4, 4, 4, 6, 7]
    known = {name.split('.')[0] for name, _ in FasterViT(TINY).named_parameters()}
    assert known == {'stem', 'stages', 'downsamples', 'out_norms'}


def test_the_learning_rate_falls_from_layer_to_layer():
    model = torch.nn.ModuleDict(dict(backbone=FasterViT(TINY), head=torch.nn.Linear(2, 2)))
    plain = settings_by_name(model, built(model))
    wrapper = built(model, paramwise=dict(PARAMWISE, layer_decay_rate=0.5))
    decayed = settings_by_name(model, wrapper)
    assert len(wrapper.optimizer.param_groups) <= 2 * 8
    for name, below in (('backbone.stem.conv1.weight', 7), ('head.weight', 0), ('head.bias', 0),
                        ('backbone.out_norms.0.weight', 0),
                        ('backbone.stages.2.blocks.1.attn.qkv.weight', 2),
                        ('backbone.stages.2.blocks.1.attn.qkv.bias', 2)):
        assert decayed[name] == dict(plain[name], lr=1e-2 * 0.5**below), name


@pytest.mark.parametrize('rate', [0, -1, 1.5])
def test_a_layer_decay_out_of_range_is_an_error(rate):
    with pytest.raises(ConfigError, match=f'layer_decay_rate={rate}: give a number above 0'):
        built(FasterViT(TINY), paramwise=dict(layer_decay_rate=rate))


def test_a_layer_decay_of_another_network_is_an_error():
    with pytest.raises(ConfigError, match='layer_decay_rate=0.9: Linear holds no FasterViT'):
        built(torch.nn.Linear(2, 2), paramwise=dict(layer_decay_rate=0.9))


# Checkpoints

@pytest.fixture(scope='module')
def runs(tmp_path_factory, tiny_ade20k):
    """Checkpoints after 8 iterations, and after the last four again; the second log."""
    folder = tmp_path_factory.mktemp('resumed')
    path = folder / 'segmentor.py'
    path.write_text(SEGMENTOR.replace('ROOT', str(tiny_ade20k)) + """
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=5),
    dict(type='CosineRestartLR', periods=[4, 4], restart_weights=[1, 0.5], eta_min=0,
         by_epoch=False, begin=5, end=13)]
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
auto_scale_lr = dict(base_batch_size=4)
""")

    def run(name, resume=None):
        cfg = launch.load_config(str(path), work_dir=str(folder / name), cfg_options={
            'randomness.deterministic': True})  # keeps the number of threads
        launch.train(cfg, auto_scale_lr=True, resume=resume)
        return (torch.load(folder / name / 'iter_8.pth'),
                max((folder / name).glob('*/*.log')).read_text())

    whole, _ = run('whole')
    return whole, *run('again', str(folder / 'whole/iter_4.pth'))


def test_a_resumed_optimizer_and_its_schedules_are_those_of_the_whole_run(runs):
    whole, again, _ = runs
    assert len(again['optimizer']['param_groups']) == 2
    assert again['optimizer']['param_groups'] == whole['optimizer']['param_groups']
    assert again['param_schedulers'] == whole['param_schedulers']
    # --auto-scale-lr, a batch of 2
    assert again['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(6e-5 / 2)
    for part in ('state_dict', 'ema_state_dict'):
        assert whole[part].keys() == again[part].keys()
        assert all(torch.equal(again[part][name], tensor) for name, tensor in whole[part].items())


def test_the_log_describes_each_group(runs):
    found = re.findall(r'Optimizer: (\d+) parameters from (\S+) on: lr=(\S+), weight_decay=(\S+)',
                       runs[2])
    assert [(lr, decay) for _, _, lr, decay in found] == [('6e-05', '0.01'), ('6e-05', '0')]
    assert found[0][1] == 'backbone.stem.conv1.weight'


def saved(merged=True, paramwise=PARAMWISE, arch=TINY):
    """State of an optimizer after one step."""
    model = FasterViT(arch)
    wrapper = built(model, merged, paramwise)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.)
    wrapper.step()
    return wrapper.state_dict()


def test_every_parameter_gets_its_own_state():
    model = FasterViT(TINY)
    wrapper = built(model)
    wrapper.load_state_dict(saved())
    for number, parameter in enumerate(model.parameters()):
        average = wrapper.optimizer.state[parameter]['exp_avg']
        torch.testing.assert_close(average, torch.full_like(parameter, 0.1 * (number + 1)))


@fused_on_cpu
def test_fused_and_foreach_are_not_taken_from_a_checkpoint(monkeypatch):
    monkeypatch.setattr(optimizers, '_on_cuda', lambda model: True)
    wrapper = built(FasterViT(TINY))
    wrapper.load_state_dict(saved(paramwise=PARAMWISE))
    assert [group['fused'] for group in wrapper.optimizer.param_groups] == [True, True]
    state = wrapper.state_dict()
    monkeypatch.undo()
    wrapper = built(FasterViT(TINY))
    wrapper.load_state_dict(state)
    assert [group['fused'] for group in wrapper.optimizer.param_groups] == [None, None]


@pytest.mark.parametrize('settings, match', [
    (dict(arch=dict(TINY, embed_dim=32)),
     r'exp_avg of stem.conv2.weight is \(32, 8, 3, 3\) in the checkpoint, the parameter \(16, 8'),
    (dict(arch=dict(TINY, depths=(1, 2, 3, 1))), 'the model has no stages.2.blocks.2.attn'),
    (dict(merged=False), r'has (\d+) parameters in \1 groups, this config.s \1 parameters in 2'),
    (dict(paramwise=dict(PARAMWISE, layer_decay_rate=0.5)), r'in 15 groups, this config.s .* in 2'),
    (dict(paramwise=dict(norm_decay_mult=0.)), 'in 2 groups, .* as many, divided otherwise'),
], ids=['wider', 'deeper', "mmengine's groups", 'more groups', 'other groups'])
def test_state_that_does_not_fit_is_an_error_of_one_line(settings, match):
    state = saved(**settings)
    with pytest.raises(CheckpointError, match=match) as error:
        built(FasterViT(TINY)).load_state_dict(state)
    assert '\n' not in str(error.value)
