"""Few parameter groups for an optimizer, layer-wise learning rates, fused kernels on GPUs."""
from functools import partial
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch import nn

from ..backbone import StagedBackbone
from ..compat import has_fused_kernels
from ..config_files import ConfigError
from ..weights import CheckpointError

# What a group has beside settings of the optimizer: mmengine has applied the factors to lr and
# weight_decay, and keeps them.
_NO_SETTINGS = ('params', 'param_names', 'lr_mult', 'decay_mult')
# Those with a fused kernel for CUDA; Adagrad has one for CPUs alone.
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
# State of one tensor for each parameter, of its shape.
_OF_A_PARAMETERS_SHAPE = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, with parameters of equal settings in one group.

    mmengine makes a group of each parameter as soon as there is a ``paramwise_cfg``: 451 for
    FasterViT-2, for each of which an optimizer starts its kernels anew. Merged they are two, and
    every parameter has the same learning rate and weight decay. A group's ``param_names`` say whose
    it is, and the log has a line for each group.

    Checkpoints saved with mmengine's groups resume, parameter by parameter. Their schedules do too
    with :class:`~fastervit_mm.engine.hooks.RegroupHook`, which ``tools/train.py`` adds.

    Adam, AdamW and SGD of PyTorch are ``fused`` where all parameters are on a CUDA device, unless
    the optimizer's settings have ``fused``, ``foreach`` or ``differentiable``; mixed precision with
    a loss scale goes through the fused kernel too. ``fused=True`` is left out, and the log says so,
    where torch has no such kernel: on CPUs before 2.4, for SGD before 2.3.

    Args:
        optim_wrapper_cfg: As for mmengine's constructor.
        paramwise_cfg: As for mmengine's constructor, and ``layer_decay_rate``, above 0 and at most
            1: the learning rate of a layer is that of the next one times this. Layers are the stem,
            each block of the four stages (a downsampling belongs to the block before it), and
            everything else (output norms, neck, heads), which has the full rate. The name is
            mmpretrain's. Default 1. Also ``backbone_lr_mult``, a factor for the learning rate of
            all of FasterViT; in ``custom_keys`` it would undo the other settings of what it
            matches. Default 1.

    Raises:
        ConfigError: For a ``layer_decay_rate`` or a ``backbone_lr_mult`` out of range, or with a
            model without FasterViT.

    Example::

        optim_wrapper = dict(
            constructor='MergedOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(norm_decay_mult=0., layer_decay_rate=0.9))
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of a model, and its wrapper."""
        model = getattr(model, 'module', model)
        self._names = [name for name, _ in model.named_parameters()]
        self._choose_fused(model)
        wrapper = super().__call__(model)
        wrapper.optimizer.register_load_state_dict_pre_hook(partial(_fit, self._names))
        for group in wrapper.optimizer.param_groups:
            first = group.get('param_names', self._names)[0]
            settings = [f'{key}={group[key]:.6g}' for key in ('lr', 'weight_decay')
                        if group.get(key) is not None]
            print_log(f'Optimizer: {len(group["params"])} parameters from {first} on: '
                      + ', '.join(settings + ['fused'] * bool(group.get('fused'))),
                      logger='current')
        return wrapper

    def add_params(self, params: List[dict], module: nn.Module, prefix: str = '',
                   is_dcn_module: Optional[bool] = None) -> None:
        """Add a module's groups to ``params``, merged once all of the model are there."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # mmengine comes here for every module
            return
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        scales = self._layer_scales(module)
        merged: Dict[str, dict] = {}
        for group in params:
            (parameter,), settings = group['params'], _settings(group)
            name = names[id(parameter)]
            settings.setdefault('lr', self.base_lr)
            settings.setdefault('weight_decay', self.base_wd)
            settings = {k: v for k, v in settings.items() if v is not None}
            if name in scales:
                settings['lr'] *= scales[name]
            same = merged.setdefault(_key(settings), dict(settings, params=[], param_names=[]))
            same['params'].append(parameter)
            same['param_names'].append(name)
        self._names = [names[id(group['params'][0])] for group in params]
        params[:] = merged.values()

    def _layer_scales(self, model: nn.Module) -> Dict[str, float]:
        """Factors of the learning rate, by name, of the parameters that have one below 1."""
        factors = {}
        for key in ('layer_decay_rate', 'backbone_lr_mult'):
            factors[key] = self.paramwise_cfg.get(key, 1)
            if not 0 < factors[key] <= 1:
                raise ConfigError(f'optim_wrapper.paramwise_cfg.{key}={factors[key]}: give a '
                                  'number above 0 and at most 1')
        given = {key: factor for key, factor in factors.items() if factor != 1}
        if not given:
            return {}
        key, factor = next(iter(given.items()))
        if self.base_lr is None:
            raise ConfigError(f'optim_wrapper.paramwise_cfg.{key} needs '
                              'optim_wrapper.optimizer.lr')
        backbones = {name: m for name, m in model.named_modules() if isinstance(m, StagedBackbone)}
        if not backbones:
            raise ConfigError(f'optim_wrapper.paramwise_cfg.{key}={factor}: '
                              f'{type(model).__name__} holds no FasterViT. Leave it out')
        rate, every = factors.values()
        scales = {}
        for prefix, backbone in backbones.items():
            depths = [len(stage.blocks) for stage in backbone.stages]
            for name, _ in backbone.named_parameters():
                below = sum(depths) + 1 - layer_of(name, depths)
                scales[f'{prefix}.{name}' if prefix else name] = every * rate**below
        return scales

    def _choose_fused(self, model: nn.Module) -> None:
        kind = self.optimizer_cfg['type']
        if isinstance(kind, str):
            with OPTIMIZERS.switch_scope_and_registry(None) as registry:
                kind = registry.get(kind)
        if kind not in _FUSED:
            return
        on_cuda, settings = _on_cuda(model), self.optimizer_cfg
        if not has_fused_kernels(kind, on_cuda):
            if settings.get('fused'):
                print_log(f'Optimizer: fused=True is left out: torch {torch.__version__} has no '
                          f'fused {kind.__name__} for these parameters', logger='current')
            self.optimizer_cfg = {k: v for k, v in settings.items() if k != 'fused'}
        elif on_cuda and not any(
                settings.get(k) is not None for k in ('fused', 'foreach', 'differentiable')):
            self.optimizer_cfg = dict(settings, fused=True)


def layer_of(name: str, depths: Sequence[int]) -> int:
    """Layer of a FasterViT's parameter, for layer-wise learning rates.

    Args:
        name: The parameter's, within the backbone.
        depths: Blocks of each stage.

    Returns:
        0 for the stem, 1 and up for the blocks in their order, one more than the last for the
        output norms. A downsampling has the layer of the block before it; what a stage has beside
        its blocks that of its first.
    """
    part, index, *rest = name.split('.')
    if part == 'stem':
        return 0
    if part == 'stages':
        block = int(rest[1]) if rest[0] == 'blocks' else 0
        return sum(depths[:int(index)]) + block + 1
    if part == 'downsamples':
        return sum(depths[:int(index) + 1])
    return sum(depths) + 1


def _on_cuda(model: nn.Module) -> bool:
    return all(p.is_cuda and p.is_floating_point() for p in model.parameters())


def _settings(group: Mapping[str, Any]) -> Dict[str, Any]:
    return {k: v for k, v in group.items() if k not in _NO_SETTINGS}


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))


def _fit(names: Sequence[str], optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """An optimizer's saved state in the groups of this optimizer.

    The groups keep what they had when they were saved: learning rate, schedule and the rest.

    Args:
        names: The parameters in the order in which mmengine's constructor adds them.
        optimizer: Whose groups they shall be.
        state: As saved.

    Raises:
        CheckpointError: For other parameters, and for groups that this config divides otherwise.
    """
    groups, saved = optimizer.param_groups, state['param_groups']
    if _layout(groups) != _layout(saved):
        saved = _regrouped(names, optimizer, saved)
    # How kernels are started is this machine's matter.
    saved = [dict(old, **{k: group[k] for k in ('fused', 'foreach') if k in group})
             for old, group in zip(saved, groups)]
    states = {index: dict(kinds) for index, kinds in state['state'].items()}
    for old, group in zip(saved, groups):
        for index, parameter, name in zip(old['params'], group['params'],
                                          group.get('param_names', names)):
            for kind in _OF_A_PARAMETERS_SHAPE:
                was = states.get(index, {}).get(kind)
                if was is not None and was.shape != parameter.shape:
                    raise _cannot_resume(f'{kind} of {name} is {tuple(was.shape)}, the parameter '
                                         f'{tuple(parameter.shape)}')
                if was is not None and was.stride() != parameter.stride():
                    # Saved before convolutions were channels last; fused kernels take one layout.
                    states[index][kind] = torch.empty_like(
                        parameter, dtype=was.dtype, device=was.device).copy_(was)
    return dict(state, param_groups=saved, state=states)


def _layout(groups: Sequence[Mapping]) -> List[Tuple]:
    """What has to agree for PyTorch to load groups as they are."""
    return [(len(group['params']), group.get('param_names')) for group in groups]


def _regrouped(names: Sequence[str], optimizer: torch.optim.Optimizer, saved: Sequence[dict]
               ) -> List[dict]:
    indices = [index for group in saved for index in group['params']]
    theirs = names
    if all('param_names' in group for group in saved):
        theirs = [name for group in saved for name in group['param_names']]
    elif len(saved) > 1 and any(len(group['params']) > 1 for group in saved):
        raise _cannot_resume(f'{len(saved)} groups have no names to tell their parameters apart')
    own = [name for group in optimizer.param_groups for name in group.get('param_names', names)]
    if len(indices) != len(own) or set(theirs) != set(own):
        other = sorted(set(theirs) ^ set(own))
        raise _cannot_resume(f'{len(indices)} parameters, and this model trains {len(own)}'
                             + (f'; only one of them has {other[0]}' if other else ''))
    index_of = dict(zip(theirs, indices))
    settings_of = dict(zip(theirs, (_of_optimizer(group, optimizer) for group in saved
                                   for _ in group['params'])))
    new: List[dict] = []
    for group in optimizer.param_groups:
        members = group.get('param_names', names)
        settings = settings_of[members[0]]
        for name in members:
            for key, value in settings.items():
                if settings_of[name].get(key) != value:
                    raise _cannot_resume(f'{members[0]} and {name} differ in {key} ({value}, '
                                         f'{settings_of[name].get(key)}), in this config they do '
                                         'not')
        new.append(dict({k: v for k, v in group.items() if k == 'param_names'}, **settings,
                        params=[index_of[name] for name in members]))
    distinct = [len({_key(_of_optimizer(group, optimizer)) for group in some})
                for some in (new, optimizer.param_groups)]
    if distinct[0] != distinct[1]:
        raise _cannot_resume(f'parameters have {distinct[0]} different settings, in this config '
                             f'{distinct[1]}')
    return new


def _of_optimizer(group: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Dict[str, Any]:
    """A group's settings that the optimizer or a schedule reads."""
    return {k: v for k, v in group.items()
            if k in optimizer.defaults and k not in ('fused', 'foreach')
            or k.startswith('initial_')}


def _cannot_resume(why: str) -> CheckpointError:
    return CheckpointError(f'resume: in the checkpoint\'s optimizer {why}. Give the config that '
                           'the checkpoint was trained with, or start anew from its weights with '
                           'load_from')
