"""Optimizer and schedule after a swap."""
from copy import deepcopy
from typing import Any, Dict, List, Optional, Sequence

from mmengine.config import Config

from ..config_files import config_folder
from ..models import type_name

# Learning rate and weight decay of this package's configs, for a batch of 16.
_OURS = dict(mmdet=(1e-4, 0.05), mmseg=(6e-5, 0.01))
# With a higher learning rate, AdamW trains something other than a transformer.
_HIGHEST = 5e-4


def paramwise_cfg() -> Dict[str, Any]:
    """Our configs' weight decay: none on norms, biases and positions."""
    return Config.fromfile(config_folder() / '_base_' / 'fastervit.py').to_dict()[
        'fastervit_paramwise_cfg']


def swap_optimizer(cfg: Config, others: Optional[Sequence[str]], half: str, why: Dict[str, str]
                   ) -> Dict[str, Any]:
    """Choose an optimizer for FasterViT, and settings depending on it.

    An AdamW keeps its learning rate and weight decay; anything else becomes the AdamW of this
    package's configs.

    Args:
        cfg: The old config, whose schedule stays.
        others: Names of parameters outside the backbone; None if unknown.
        half: Type for a config in mixed precision: ``'bfloat16'``, or ``''`` to keep its own.
        why: Extended by reasons, by a setting's name.

    Returns:
        Changed settings of the config, by name.
    """
    wrapper = cfg.get('optim_wrapper')
    if not wrapper or 'optimizer' not in wrapper:
        return {}
    wrapper = deepcopy(wrapper.to_dict())
    optimizer, paramwise = wrapper.pop('optimizer'), wrapper.pop('paramwise_cfg', None) or {}
    wrapper.pop('constructor', None)
    new = {'optim_wrapper': wrapper}
    before = optimizer['lr']
    if type_name(optimizer) != 'AdamW' or before > _HIGHEST:
        lr, decay = _OURS.get(cfg.get('default_scope'), _OURS['mmdet'])
        why['optim_wrapper'] = ('as in this package\'s configs, for a batch of 16; it was '
                                f'{type_name(optimizer)}, lr={before:g}')
        optimizer = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=decay)
        new['auto_scale_lr'] = dict(cfg.get('auto_scale_lr') or dict(enable=False),
                                    base_batch_size=16)  # the batch of that learning rate
        new.update(_scaled(cfg, lr / before, why))
    else:
        why['optim_wrapper'] = 'as it was, but no weight decay on norms, biases and positions'
    wrapper = dict(type=wrapper.pop('type', 'OptimWrapper'),
                   constructor='MergedOptimWrapperConstructor', optimizer=optimizer,
                   paramwise_cfg=_paramwise(paramwise, others), **wrapper)
    if half and type_name(wrapper) == 'AmpOptimWrapper':
        wrapper['dtype'] = half
        why['optim_wrapper'] += f'; in {half}, as float16 may overflow in a network of this size'
    new['optim_wrapper'] = wrapper
    return new


def _paramwise(given: Dict[str, Any], others: Optional[Sequence[str]]) -> Dict[str, Any]:
    """This package's settings, with the config's for neck and heads."""
    ours = paramwise_cfg()
    keys = given.get('custom_keys') or {}
    for key, settings in keys.items():
        meant = (not key.startswith('backbone') if others is None
                 else any(key in name for name in others))
        if meant and key not in ours['custom_keys']:
            ours['custom_keys'][key] = settings
    slower = (keys.get('backbone') or {}).get('lr_mult', 1)
    if slower != 1:
        ours['backbone_lr_mult'] = slower
    if given.get('bypass_duplicate'):  # heads that share layers
        ours['bypass_duplicate'] = True
    return ours


def _scaled(cfg: Config, factor: float, why: Dict[str, str]) -> Dict[str, Any]:
    """Schedule with its final learning rates scaled."""
    schedule: Optional[List[Dict]] = deepcopy(cfg.to_dict().get('param_scheduler'))
    changed = False
    for step in schedule if isinstance(schedule, list) else [schedule or {}]:
        for key in ('eta_min', 'eta_max'):
            if step.get(key):
                step[key] = float(f'{step[key] * factor:.2g}')
                changed = True
    if not changed:
        return {}
    why['param_scheduler'] = 'eta_min is scaled like the learning rate'
    return dict(param_scheduler=schedule)
