"""Parameters of equal settings share a group; nothing else about a training changes."""
import copy
import re
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from fastervit_mm import FasterViT, compat
from fastervit_mm.benchmark.operators import operators
from fastervit_mm.compat import TORCH
from fastervit_mm.config_files import ConfigError
from fastervit_mm.engine import launch, optimizers
from fastervit_mm.engine.optimizers import MergedOptimWrapperConstructor, layer_of
from fastervit_mm.weights import CheckpointError
from tests.conftest import REPO, TINY, needs_torch
from tests.engine.conftest import SEGMENTOR

# Those that train; an evaluation of ImageNet has no optimizer.
CONFIGS = [path for path in sorted(REPO.glob('configs/mm*/*.py'))
           if not path.stem.endswith('_in1k')]
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
def test_where_parameters_are():
    from torch._subclasses import FakeTensorMode

    def on_cuda(*devices):
        with FakeTensorMode():
            return optimizers._on_cuda(torch.nn.ParameterList(
                torch.empty(2, device=device) for device in devices))

    assert on_cuda('cuda', 'cuda') and not on_cuda('cuda', 'cpu') and not on_cuda('cpu')


@fused_on_cpu
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.1)])
def test_fused_goes_with_a_loss_scale(monkeypatch, clip):
    """mmengine's wrapper with a scaler, on a CPU: a step is as without, one with inf is none."""
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


# Checkpoints of mmengine's groups

class Runs(NamedTuple):
    whole: dict  # checkpoint after 8 iterations with mmengine's groups
    again: dict  # after the last four again, with merged groups
    logs: tuple  # of the two
    further: dict  # and four more


@pytest.fixture(scope='module')
def runs(tmp_path_factory, tiny_ade20k) -> Runs:
    """A segmentor without chance after its start, with all that reads groups."""
    folder = tmp_path_factory.mktemp('regrouped')
    path = folder / 'segmentor.py'
    path.write_text(SEGMENTOR.replace('ROOT', str(tiny_ade20k)) + """
model['decode_head']['dropout_ratio'] = model['auxiliary_head']['dropout_ratio'] = 0.
# Biases before a norm, and of keys, have no gradient but rounding, which Adam would make a step of.
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(eps=1e-3), clip_grad=dict(max_norm=1.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=5),
    dict(type='CosineRestartLR', periods=[4, 4], restart_weights=[1, 0.5], eta_min=0,
         by_epoch=False, begin=5, end=13)]
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(max_iters=8, val_interval=100)
""")

    def run(name, resume=None, **changes):
        cfg = launch.load_config(str(path), work_dir=str(folder / name), cfg_options={
            'randomness.deterministic': True, **changes})  # keeps the number of threads
        launch.train(cfg, auto_scale_lr=True, resume=resume)
        last = torch.load(folder / name / f'iter_{cfg.train_cfg.max_iters}.pth')
        return last, max((folder / name).glob('*/*.log')).read_text()

    whole, log = run('whole', **{'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor'})
    again, second = run('again', str(folder / 'whole/iter_4.pth'))
    further, _ = run('further', str(folder / 'again/iter_8.pth'), **{'train_cfg.max_iters': 12})
    return Runs(whole, again, (log, second), further)


def test_a_run_of_mmengines_groups_goes_on_in_merged_ones(runs):
    whole, again = runs.whole, runs.again
    assert len(whole['optimizer']['param_groups']) > 100
    assert len(again['optimizer']['param_groups']) == 2
    for part in ('state_dict', 'ema_state_dict'):
        assert whole[part].keys() == again[part].keys()
        for name, tensor in whole[part].items():
            # Statistics of activations round more; no group holds them.
            torch.testing.assert_close(again[part][name], tensor, atol=3e-7, msg=name,
                                       rtol=1e-5 if 'running' in name else 1e-6)


def test_its_schedules_go_on_too(runs):
    saved = runs.whole['optimizer']['param_groups']
    scheduled = {k: saved[0][k] for k in ('lr', 'initial_lr')}
    assert scheduled['initial_lr'] == pytest.approx(6e-5 / 2)  # --auto-scale-lr, a batch of 2
    for group in runs.again['optimizer']['param_groups']:
        assert {k: group[k] for k in scheduled} == scheduled
    for old, new in zip(runs.whole['param_schedulers'], runs.again['param_schedulers']):
        assert len(old['base_values']) == len(saved) + 1 and len(new['base_values']) == 3
        assert {*new['base_values']} == {*old['base_values']}
        assert {k: v for k, v in new.items() if k not in ('base_values', '_last_value')} == {
            k: v for k, v in old.items() if k not in ('base_values', '_last_value')}
    said = [re.findall(r'Iter\(train\) \[8/8\]  base_lr: \S+ lr: \S+|grad_norm: \S+', log)[-2:]
            for log in runs.logs]
    assert said[0] == said[1] and len(said[0]) == 2


def test_a_run_of_merged_groups_goes_on(runs):
    assert len(runs.further['optimizer']['param_groups']) == 2
    steps = {int(s['step']) for s in runs.further['optimizer']['state'].values()}
    assert steps == {12}


def test_the_log_says_what_a_group_has(runs):
    found = re.findall(r'Optimizer: (\d+) parameters from (\S+) on: lr=(\S+), weight_decay=(\S+)',
                       runs.logs[1])
    assert [(lr, decay) for _, _, lr, decay in found] == [('6e-05', '0.01'), ('6e-05', '0')]
    assert found[0][1] == 'backbone.stem.conv1.weight'


def saved_and_fresh(merged=False, paramwise=PARAMWISE, arch=TINY, **optimizer):
    """State after one step, and the model to load it into."""
    model = FasterViT(arch)
    wrapper = built(model, merged, paramwise, **optimizer)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.)
    wrapper.step()
    return wrapper.state_dict(), FasterViT(TINY)


def assert_every_parameter_gets_its_own(state, model):
    wrapper = built(model)
    wrapper.load_state_dict(state)
    for number, parameter in enumerate(model.parameters()):
        average = wrapper.optimizer.state[parameter]['exp_avg']
        torch.testing.assert_close(average, torch.full_like(parameter, 0.1 * (number + 1)))


def test_every_parameter_gets_its_own_state():
    assert_every_parameter_gets_its_own(*saved_and_fresh())


def test_named_groups_are_divided_anew():
    state, model = saved_and_fresh(merged=True)
    group = state['param_groups'][1]
    state['param_groups'][1:] = [dict(group, **{k: group[k][s] for k in ('params', 'param_names')})
                                 for s in (slice(7, None), slice(7))]
    assert_every_parameter_gets_its_own(state, model)


def test_state_takes_the_layout_of_its_parameter():
    """Fused kernels take one layout alone; convolutions were contiguous once."""
    old, new = FasterViT(TINY).to(memory_format=torch.contiguous_format), FasterViT(TINY)
    wrapper = built(old)
    for parameter in old.parameters():
        parameter.grad = torch.rand_like(parameter)
    wrapper.step()
    resumed = built(new)
    resumed.optimizer.load_state_dict(wrapper.optimizer.state_dict())
    for before, parameter in zip(old.parameters(), new.parameters()):
        state = resumed.optimizer.state[parameter]
        assert state['exp_avg'].stride() == state['exp_avg_sq'].stride() == parameter.stride()
        assert torch.equal(state['exp_avg'], wrapper.optimizer.state[before]['exp_avg'])
    assert any(a.stride() != b.stride() for a, b in zip(old.parameters(), new.parameters()))


@fused_on_cpu
def test_how_kernels_start_is_not_taken_from_a_checkpoint(monkeypatch):
    state, model = saved_and_fresh(merged=True)
    monkeypatch.setattr(optimizers, '_on_cuda', lambda model: True)
    wrapper = built(model)
    wrapper.load_state_dict(state)
    assert [group['fused'] for group in wrapper.optimizer.param_groups] == [True, True]
    state = wrapper.state_dict()
    monkeypatch.undo()
    wrapper = built(model)
    wrapper.load_state_dict(state)
    assert [group['fused'] for group in wrapper.optimizer.param_groups] == [None, None]


def test_state_that_does_not_fit_is_an_error_of_one_line():
    def refused(match, state, paramwise=PARAMWISE):
        with pytest.raises(CheckpointError, match=match) as error:
            built(FasterViT(TINY), paramwise=paramwise).load_state_dict(copy.deepcopy(state))
        assert '\n' not in str(error.value)

    refused(r'exp_avg of stem.conv2.weight is \(32, 8, 3, 3\), the parameter \(16, 8, 3, 3\)',
            saved_and_fresh(arch=dict(TINY, embed_dim=32))[0])
    deep = dict(TINY, depths=(1, 2, 3, 1))
    refused(r'\d+ parameters, and this model trains \d+\. Give', saved_and_fresh(arch=deep)[0])
    refused(r'only one of them has stages.2.blocks.2.attn.proj.bias',
            saved_and_fresh(merged=True, arch=deep)[0])
    state = saved_and_fresh()[0]
    refused(r'stem.conv1.weight and stem.norm1.weight differ in weight_decay \(0.05, 0.0\), in '
            'this config they do not', state, paramwise=dict(bias_lr_mult=1.))
    refused('parameters have 2 different settings, in this config 15', state,
            paramwise=dict(PARAMWISE, layer_decay_rate=0.5))
    state = saved_and_fresh(merged=True)[0]
    for group in state['param_groups']:
        del group['param_names']
    state['param_groups'][0]['params'].append(state['param_groups'][1]['params'].pop())
    refused('2 groups have no names to tell their parameters apart', state)
