"""Mixed precision in training and testing."""
import logging
from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Optional, Union

import torch
from mmengine.config import Config
from mmengine.device import get_device, is_cuda_available
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast
from mmengine.structures import BaseDataElement
from torch import nn

from ..models import type_name

NAMES = {'bf16': 'bfloat16', 'fp16': 'float16'}  # of the command line, and PyTorch's
# Networks of this size are reported to overflow in float16 (Swin-L, InternImage-XL).
_OVERFLOWING = ('4-21k-224', '4-21k-384', '4-21k-512', '4-21k-768', '5', '6')


def has_amp_device() -> bool:
    """Whether mmengine finds a device for mixed precision."""
    return get_device() in ('cuda', 'npu', 'mlu', 'musa')


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """bfloat16 training on a CPU, which mmengine's wrapper refuses."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def choose_for_training(cfg: Config, amp: Union[bool, str] = False) -> None:
    """Set the precision of training in a config, in place.

    Without a type in the config or in ``amp``, the large networks (4-21k, 5 and 6) train in
    bfloat16 and all others in mmengine's default, float16. bfloat16 has float32's range and needs
    no loss scale. A CPU trains in bfloat16 if ``amp`` asks for it, which pays if it has matrix
    units.

    Args:
        cfg: A config. Its ``optim_wrapper.type='AmpOptimWrapper'`` changes if no device supports
            it.
        amp: Mixed precision even if the config does not ask for it: True, ``'bf16'`` or ``'fp16'``.
            Default False.

    Raises:
        ValueError: For ``amp`` that no device supports, or an unknown name.
    """
    _check_name(amp)
    wrapper = cfg.optim_wrapper
    if not amp and not _is_mixed(wrapper):
        return
    if not has_amp_device():
        _refuse_float16_on_cpu(amp)
        if amp and get_device() != 'cpu':  # a Mac's
            raise ValueError(f'amp={amp!r}: mixed precision needs a CPU or a GPU, NPU, MLU or MUSA '
                             f'device, and this is {get_device()!r}. Leave --amp out')
        print_log('Training in mixed precision, bfloat16, on the CPU' if amp else
                  'No GPU found: the config\'s mixed precision is off, training is in float32',
                  logger='current')
        wrapper.type = 'CPUAmpOptimWrapper' if amp else 'OptimWrapper'
        for setting in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(setting, None)
        return
    wrapper.type = 'AmpOptimWrapper'
    why = ''
    if amp in NAMES:
        wrapper.dtype = NAMES[amp]
    elif wrapper.get('dtype') is None:
        arch = (cfg.model.get('backbone') or {}).get('arch')
        wrapper.dtype = 'bfloat16' if arch in _OVERFLOWING else 'float16'
        if arch in _OVERFLOWING:
            why = f': float16 may overflow with arch={arch!r}; to try it, --amp fp16'
    wide = str(wrapper.dtype).endswith('bfloat16')
    wrapper.setdefault('loss_scale', dict(enabled=False) if wide else 'dynamic')
    print_log(f'Training in mixed precision, {wrapper.dtype}{why}', logger='current')
    if wide and not _has_bfloat16():
        print_log('This GPU emulates bfloat16, which is slow. For float16: --amp fp16',
                  logger='current', level=logging.WARNING)


def choose_for_testing(cfg: Config, amp: Union[bool, str] = False) -> Optional[torch.dtype]:
    """Choose the precision of a test, and log it.

    Args:
        cfg: A config. Its training's precision is only logged.
        amp: Mixed precision: True for bfloat16, or float16 on a GPU that lacks it; or ``'bf16'`` or
            ``'fp16'``. Default False, float32.

    Returns:
        The type, for :func:`test_in`; None for float32.

    Raises:
        ValueError: For float16 on a CPU, or another name.
    """
    _check_name(amp)
    if not amp:
        if _is_mixed(cfg.get('optim_wrapper') or {}):
            print_log('Testing in float32; the config trains in mixed precision, in which --amp '
                      'tests', logger='current')
        return None
    _refuse_float16_on_cpu(amp)
    name = NAMES[amp if amp in NAMES else 'bf16' if _has_bfloat16() else 'fp16']
    print_log(f'Testing in mixed precision, {name}', logger='current')
    return getattr(torch, name)


def _refuse_float16_on_cpu(amp: Union[bool, str]) -> None:
    if amp == 'fp16' and not has_amp_device():
        raise ValueError("amp='fp16': a CPU has mixed precision in bfloat16 only. Give --amp bf16")


def _is_mixed(wrapper: Mapping) -> bool:
    return 'type' in wrapper and type_name(wrapper) in ('AmpOptimWrapper', 'CPUAmpOptimWrapper')


def test_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Let a model's ``test_step`` compute in mixed precision.

    In place. mmengine's own switch, ``test_cfg.fp16``, is float16 on a GPU. Metrics cannot read
    bfloat16, so predictions are cast to float32.

    Args:
        model: A model of mmengine, or one in a wrapper.
        dtype: The type.
    """
    step = model.test_step

    def test_step(data: Union[dict, tuple, list]) -> list:
        with autocast(dtype=dtype):
            outputs = step(data)
        for output in outputs:
            _widen(output)
        return outputs

    model.test_step = test_step


def _widen(sample: BaseDataElement) -> None:
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            _widen(value)
        elif isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16):
            setattr(sample, name, value.float())


def keep_boxes_exact(model: nn.Module) -> None:
    """Keep box computations in float32, in place.

    In bfloat16 a coordinate of 1000 is known to 4 pixels, and mmdet 3.3 gives anchors and boxes the
    type of the maps. Also, mmcv 2.1 has no RoIAlign for it. Here the inputs of RoI extractors and
    the outputs of mmdet's heads are cast from bfloat16; other models and types do not change.

    Args:
        model: Any model, with or without wrappers. A second call changes nothing.
    """
    for module in model.modules():
        if getattr(module, '_keeps_boxes_exact', False) or not any(
                kind.__module__.startswith('mmdet.') for kind in type(module).__mro__):
            continue
        if hasattr(module, 'roi_layers'):
            module.register_forward_pre_hook(lambda module, args: _float32(args))
        elif hasattr(module, 'predict_by_feat'):
            module.register_forward_hook(lambda module, args, output: _float32(output))
        module._keeps_boxes_exact = True


def _float32(value: Any) -> Any:
    """Cast bfloat16 tensors, nested ones too, to float32."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    if isinstance(value, dict):
        return {k: _float32(v) for k, v in value.items()}
    return type(value)(map(_float32, value)) if type(value) in (tuple, list) else value


def _check_name(amp: Union[bool, str]) -> None:
    if isinstance(amp, str) and amp not in NAMES:
        raise ValueError(f'amp={amp!r}: give one of {", ".join(NAMES)}')


def _has_bfloat16() -> bool:
    # In torch 2.1 is_bf16_supported() cannot exclude emulation.
    return (not is_cuda_available() or torch.version.hip is not None
            or torch.cuda.get_device_capability() >= (8, 0))
