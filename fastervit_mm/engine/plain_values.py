"""Checkpoints of plain values, which load without running code."""
import logging
import os
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from functools import cache
from pprint import pformat
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_AS_THEY_ARE = (torch.Tensor, torch.dtype, torch.device, HistoryBuffer, type(None))


def plain(value: Any, name: str) -> Any:
    """Convert a value to plain containers, strings, numbers and tensors.

    Args:
        value: Such as a ConfigDict, an array or a path, nested or not. Classes and functions become
            their names; any other object becomes its text, with a warning.
        name: Name of the value, for the warning.
    """
    if isinstance(value, _AS_THEY_ARE):
        return value
    if isinstance(value, Enum):
        return plain(value.value, name)
    for kind in (str, bytes, bool, int, float, complex):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, np.longdouble):  # no plain type holds it
        return float(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist(), name)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {plain(key, name): plain(one, f'{name}.{key}') for key, one in value.items()}
    for kind, made in ((tuple, tuple), (frozenset, tuple), (Set, set), (Sequence, list)):
        if isinstance(value, kind):
            return made(plain(one, name) for one in value)
    if callable(value):
        return f'{value.__module__}.{getattr(value, "__qualname__", type(value).__qualname__)}'
    _warn(name, type(value).__name__)
    return str(value)


@cache
def _warn(name: str, kind: str) -> None:
    print_log(f'{name} is a {kind}, which checkpoints do not hold: its text is saved',
              'current', level=logging.WARNING)


@HOOKS.register_module()
class PlainValuesHook(Hook):
    """Save only plain values in checkpoints (:func:`plain`).

    Functions in the state of a schedule, such as OneCycleLR's curve, are left out: a resumed run
    has them from its config.
    """
    priority = 'LOWEST'  # after hooks that add something

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        schedules = checkpoint.get('param_schedulers', [])
        for states in schedules.values() if isinstance(schedules, dict) else [schedules]:
            states[:] = [{key: value for key, value in state.items() if not callable(value)}
                         for state in states]
        for name, value in checkpoint.items():
            if name.endswith('state_dict'):  # an OrderedDict, with the versions of layers
                value.update((key, plain(one, key)) for key, one in value.items())
            else:
                checkpoint[name] = plain(value, name)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:  # mmengine compares pickles, and warns if types differ
            own = getattr(runner.train_dataloader.dataset, 'metainfo', None)
            meta = checkpoint['meta']
            # As text, because of tensors; pretty-printed, because that sorts sets.
            texts = {pformat(plain(one, ''), width=1) for one in (own, meta.get('dataset_meta'))}
            if len(texts) == 1:
                meta['dataset_meta'] = own
