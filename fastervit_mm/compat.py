"""Work-arounds for other libraries, or versions of them.

Each states its reason and when it can go. This module only defines them:
:func:`fastervit_mm.registration.register` and the tools apply them.
"""
import argparse
import importlib.util
import inspect
import pickle
import warnings
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

try:
    from torch.utils.flop_counter import flop_registry  # noqa: F401
except ImportError:  # torch 2.1
    from torch.utils.flop_counter import flop_mapping as flop_registry  # noqa: F401

TORCH = tuple(int(number) for number in torch.__version__.split('.')[:2])

_torchvision_schemas = None


def declare_torchvision_ops() -> None:
    """Let torchvision import where its compiled operators do not load.

    torchvision from a package registry is built for CUDA. Beside a CPU build of torch its library
    does not load, and ``import torchvision``, hence ``import timm``, fails with "operator
    torchvision::nms does not exist" when it gives these two operators their shape rules. Their
    schemas are enough; calling them still fails, and nothing here calls them (mmcv has its own
    NMS). Serves torch 2.4 and newer. Can go when torchvision registers those rules only with its
    ops (pytorch/vision#9085).
    """
    global _torchvision_schemas
    spec = importlib.util.find_spec('torchvision')
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, 'nms'):
        return
    # _C, and _C_stable from torchvision 0.29 on, which must be the first to register.
    for library in Path(spec.origin).parent.glob('_C*.*'):
        try:
            torch.ops.load_library(library)
            return
        except OSError:
            continue
    _torchvision_schemas = torch.library.Library('torchvision', 'FRAGMENT')
    _torchvision_schemas.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _torchvision_schemas.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


def checkpoint_types() -> Dict[str, Any]:
    """Harmless types and functions in checkpoints, by their names there.

    mmengine's own hold HistoryBuffers of numpy arrays, the authors' an ``argparse.Namespace``.
    Constructing them runs no code from a file.
    """
    try:
        from numpy._core import multiarray
    except ImportError:  # numpy 1
        from numpy.core import multiarray
    types = [argparse.Namespace, OrderedDict, HistoryBuffer, np.ndarray, np.dtype]
    types += [type(np.dtype(name)) for name in
              ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64',
               'float16', 'float32', 'float64')]
    named = {f'{kind.__module__}.{kind.__qualname__}': kind for kind in types}
    # torch pickles with protocol 2, where numpy's bytes are stored as text, for codecs.encode.
    named['_codecs.encode'] = __import__('_codecs').encode
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as numpy 1 and 2 write
        for name in ('_reconstruct', 'scalar'):
            named[f'{module}.{name}'] = getattr(multiarray, name)
    return named


def allow_checkpoint_types() -> None:
    """Let ``torch.load(weights_only=True)`` also read :func:`checkpoint_types`.

    From 2.6 on torch reads weights only by default, and mmengine 0.10.7 then cannot read its own
    checkpoints, so mmdet's and mmseg's own tools cannot resume (open-mmlab/mmengine#1655). Can go
    when mmengine allows its types itself; ``Namespace`` stays for the authors' files.
    """
    if TORCH >= (2, 6):
        named = {**checkpoint_types(), _GETATTR: _statistic_of_history}
        torch.serialization.add_safe_globals([(value, name) for name, value in named.items()])


_GETATTR = 'builtins.getattr'


def _statistic_of_history(owner: object, name: str) -> object:
    """``getattr`` for files, limited to HistoryBuffer's statistics.

    A HistoryBuffer is pickled with its methods, each as a call of ``getattr``, which could reach
    anything. Other attributes are left to what the program itself has declared safe.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    for allowed in torch.serialization.get_safe_globals():
        value, path = allowed if isinstance(allowed, tuple) else (allowed, '')
        if value is getattr or path == _GETATTR and value is not _statistic_of_history:
            return value(owner, name)
    raise pickle.UnpicklingError(f'getattr of {name!r} on {owner!r} is not allowed')


def is_autocast_enabled(kind: str) -> bool:
    """``torch.is_autocast_enabled(device_type)``, also before torch 2.4."""
    if TORCH >= (2, 4):
        return torch.is_autocast_enabled(kind)
    return torch.is_autocast_cpu_enabled() if kind == 'cpu' else torch.is_autocast_enabled()


def has_fused_kernels(kind: type, on_cuda: bool) -> bool:
    """Whether a torch optimizer takes ``fused=True`` on the device.

    SGD has it from torch 2.3 on; CPUs have it from 2.4 on.
    """
    return 'fused' in inspect.signature(kind).parameters and (on_cuda or TORCH >= (2, 4))


def ignore_pkg_resources() -> None:
    """Silence setuptools' warning that ``pkg_resources`` is deprecated.

    For programs: mmengine 0.10.7 imports it again for each base such as ``mmdet::_base_/...``, up
    to five times a config. Can go when mmengine reads versions with ``importlib.metadata``.
    """
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated as an API')


def find_forks_by_module() -> None:
    """Let configs inherit ``mmseg::...`` from OneDL's forks.

    mmengine, and OneDL's 0.10.12 too, asks for the distribution mmsegmentation, which OneDL calls
    onedl-mmsegmentation. Looked up by module, it is found. Nothing changes for packages that
    mmengine finds. Can go when OneDL's mmengine knows OneDL's names.
    """
    for module, distribution in list(MODULE2PACKAGE.items()):
        try:
            metadata.distribution(distribution)
        except metadata.PackageNotFoundError:
            if importlib.util.find_spec(module) is not None:
                MODULE2PACKAGE[module] = module


def without_autocast(device: torch.device) -> ContextManager:
    """Context without autocast; the meta device has none."""
    return nullcontext() if device.type == 'meta' else torch.autocast(device.type, enabled=False)


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor,
                                 scale: float) -> Tensor:
    """PyTorch's attention, on CUDA without the cuDNN kernel.

    The memory-efficient kernel or plain products compute it there.

    No flash kernel takes a bias. Left to itself, PyTorch takes cuDNN first on Hopper from 2.11 on,
    which makes a plan for each new shape (0.4 s has been reported, FunASR#3704), is slower for
    short sequences with a bias (pytorch#130482), and has been wrong with a mask where the number
    of tokens is 64 more than a multiple of 128 (pytorch#196678). Can go when it is none of these.
    """
    def attend() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)

    if q.device.type != 'cuda' or TORCH < (2, 5):  # older versions have no cuDNN kernel
        return attend()
    if is_compiling():
        from torch.nn.attention import SDPBackend, sdpa_kernel
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return attend()
    # As sdpa_kernel, but cuDNN's flag alone: half a microsecond instead of 15.
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        return attend()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)


def checkpointed(block: nn.Module, with_cp: bool, *args: Any) -> Any:
    """Run a block, recomputing its activations later if ``with_cp``.

    torch's checkpoint would move BatchNorm's running statistics in its second pass too, so twice a
    step, and a network would be another with ``with_cp`` than without. Can go when it does not.
    """
    if not (with_cp and torch.is_grad_enabled()):
        return block(*args)
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not is_compiling():
        return checkpoint(block, *args, use_reentrant=False,
                          context_fn=lambda: (nullcontext(), _statistics_kept(norms)))
    # A compiled graph holds its own second pass, which computes activations alone; that of torch
    # 2.6 updates statistics too, that of 2.13 does not, and between them was not tried. The length:
    # the compiler of torch 2.6 does not know whether a list is true.
    if TORCH < (2, 13) and len(norms) > 0:
        return block(*args)
    return checkpoint(block, *args, use_reentrant=False)


@contextmanager
def _statistics_kept(norms: List[_BatchNorm]) -> Iterator[None]:
    saved = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        # With momentum 0 an update is the identity; the counter is a copy.
        m.momentum, m.num_batches_tracked = 0.0, m.num_batches_tracked.clone()
    try:
        yield
    finally:
        for m, (momentum, count) in zip(norms, saved):
            m.momentum, m.num_batches_tracked = momentum, count


def normed(norm: nn.Module, x: Tensor, eps: float) -> Tensor:
    """``norm(x)``, with a BatchNorm's ``eps`` also after it was replaced.

    transformers' DETRs, RT-DETRs and D-FINE freeze a backbone's BatchNorms by modules that take all
    but ``eps``, which is 1e-5 in them. Can go when those take it too.
    """
    if hasattr(norm, 'eps') or not hasattr(norm, 'running_var'):  # without both, deployed
        return norm(x)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=eps)


def mark_as_loaded(model: nn.Module) -> None:
    """Set transformers' mark for modules that it must not initialise.

    Its ``TimmBackbone.from_pretrained`` loads, then sets the running statistics of all BatchNorms
    to 0 and 1, without a word (huggingface/transformers#43520; 5.24 still does). Can go when it
    does not.
    """
    for module in model.modules():
        setattr(module, '_is_hf_initialized', True)  # noqa: B010  # for torch's stubs a Tensor


# torch 2.1 and 2.2 have it under another name.
is_compiling: Callable[[], bool] = (
    torch.compiler.is_compiling if hasattr(torch.compiler, 'is_compiling')
    else torch._utils.is_compiling)
