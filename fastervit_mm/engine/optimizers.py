"""Optimizers with merged groups, layer decay and fused kernels."""
from functools import partial
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from torch import nn

from ..backbone import StagedBackbone
from ..compat import has_fused_kernels
from ..config_files import ConfigError
from ..weights import CheckpointError

# Keys that the optimizer does not take; mmengine has applied both factors already.
_NO_SETTINGS = ('params', 'param_names', 'lr_mult', 'decay_mult')
# Optimizers with a fused kernel for CUDA; Adagrad has one only for CPUs.
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
# States that have their parameter's shape.
_PARAMETER_SHAPED = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'momentum_buffer')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with equal parameters in one group.

    With a ``paramwise_cfg`` mmengine makes a group of each parameter, 451 for FasterViT-2, and the
    optimizer launches its kernels for each. Merged by learning rate, weight decay and other
    settings, two groups remain. A group's ``param_names`` lists its members, and the log has a line
    for each group. A run resumes only from a checkpoint with the same groups.

    Adam, AdamW and SGD of PyTorch are ``fused`` where all parameters are on a CUDA device, unless
    the optimizer's settings have ``fused``, ``foreach`` or ``differentiable``. ``fused=True`` is
    left out, with a line in the log, where torch has no such kernel: on CPUs before 2.4, for SGD
    before 2.3.

    Args:
        optim_wrapper_cfg: As for mmengine's constructor.
        paramwise_cfg: As for mmengine's constructor, and two factors above 0 and at most 1, each 1
            by default. ``layer_decay_rate`` (mmpretrain's name): a layer's learning rate over that
            of the next. Layers are the stem, each block of the four stages (a downsampling belongs
            to the block before it), and everything else (output norms, neck, heads), which has the
            full rate. ``backbone_lr_mult``: for all of FasterViT; in ``custom_keys`` it would
            override other settings of the same parameters.

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
        self._choose_fused(model)
        wrapper = super().__call__(model)
        names = [name for name, _ in model.named_parameters()]
        wrapper.optimizer.register_load_state_dict_pre_hook(partial(_fit, names))
        for group in wrapper.optimizer.param_groups:
            first = group.get('param_names', names)[0]
            settings = [f'{key}={group[key]:.6g}' for key in ('lr', 'weight_decay')
                        if group.get(key) is not None]
            print_log(f'Optimizer: {len(group["params"])} parameters from {first} on: '
                      + ', '.join(settings + ['fused'] * bool(group.get('fused'))),
                      logger='current')
        return wrapper

    def add_params(self, params: List[dict], module: nn.Module, prefix: str = '',
                   is_dcn_module: Optional[bool] = None) -> None:
        """Add a module's groups, merged at the model's end."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # mmengine comes here for every module
            return
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        scales = self._layer_scales(module)
        merged: Dict[str, dict] = {}
        for group in params:
            parameter, = group['params']
            name = names[id(parameter)]
            settings = {'lr': self.base_lr, 'weight_decay': self.base_wd, **group}
            settings = {key: value for key, value in settings.items()
                        if key not in _NO_SETTINGS and value is not None}
            if name in scales:
                settings['lr'] *= scales[name]
            same = merged.setdefault(repr(sorted(settings.items())),
                                     dict(settings, params=[], param_names=[]))
            same['params'].append(parameter)
            same['param_names'].append(name)
        params[:] = merged.values()

    def _layer_scales(self, model: nn.Module) -> Dict[str, float]:
        """Factors below 1 for learning rates, by parameter name."""
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
    """Layer number of a FasterViT's parameter, for layer decay.

    Args:
        name: The parameter's, within the backbone.
        depths: Blocks of each stage.

    Returns:
        0 for the stem, 1 and up for the blocks in their order, one more than the last for the
        output norms. A downsampling has the layer of the block before it; other parameters of a
        stage have that of its first block.
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


def _fit(names: Sequence[str], optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """Check that a saved state fits an optimizer.

    Args:
        names: The model's parameters, for a single group without ``param_names``.
        optimizer: The optimizer that will load it.
        state: As saved.

    Returns:
        The state, with this machine's settings of kernels.

    Raises:
        CheckpointError: If parameters or groups differ.
    """
    groups, saved = optimizer.param_groups, state['param_groups']
    if _layout(saved) != _layout(groups):
        sizes = [f'{sum(len(group["params"]) for group in some)} parameters in {len(some)} groups'
                 for some in (saved, groups)]
        other = sorted({name for some in (saved, groups) for group in some
                        for name in group.get('param_names', ())}.difference(names))
        raise _cannot_resume(f'the checkpoint\'s optimizer has {sizes[0]}, this config\'s '
                             + (sizes[1] if sizes[0] != sizes[1] else 'as many, divided otherwise')
                             + (f'; the model has no {other[0]}' if other else ''))
    for old, group in zip(saved, groups):
        for index, parameter, name in zip(old['params'], group['params'],
                                          group.get('param_names', names)):
            for kind in _PARAMETER_SHAPED:
                was = state['state'].get(index, {}).get(kind)
                if was is not None and was.shape != parameter.shape:
                    raise _cannot_resume(f'{kind} of {name} is {tuple(was.shape)} in the '
                                         f'checkpoint, the parameter {tuple(parameter.shape)}')
    return dict(state, param_groups=[
        dict(old, **{k: group[k] for k in ('fused', 'foreach') if k in group})
        for old, group in zip(saved, groups)])


def _layout(groups: Sequence[Mapping]) -> List[Tuple]:
    return [(len(group['params']), group.get('param_names')) for group in groups]


def _cannot_resume(why: str) -> CheckpointError:
    return CheckpointError(f'resume: {why}. Give the config that the checkpoint was trained with, '
                           'or start anew from its weights with load_from')
