"""Work-arounds for versions of other libraries: each with its reason, and when it can go.

Importing the package applies them.
"""
import argparse
import importlib.util
import inspect
import pickle
import tarfile
import warnings
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, Dict, NoReturn

import numpy as np
import torch

try:
    from torch.utils.flop_counter import flop_registry  # noqa: F401
except ImportError:  # torch 2.1
    from torch.utils.flop_counter import flop_mapping as flop_registry  # noqa: F401

try:
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.logging import HistoryBuffer
except ModuleNotFoundError as error:  # two distributions provide it, so neither is a requirement
    raise ImportError("fastervit_mm needs mmengine: pip install 'fastervit_mm[openmmlab]', or "
                      "'fastervit_mm[onedl]' for OneDL's forks") from error

TORCH = tuple(int(number) for number in torch.__version__.split('.')[:2])

_torchvision_schemas = None


def declare_torchvision_ops() -> None:
    """Let torchvision's Python parts import where its compiled ops do not load.

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
    """The harmless types and functions that real checkpoints hold, by the names that files have.

    mmengine's own hold HistoryBuffers of numpy arrays, the authors' an ``argparse.Namespace``.
    None of them runs code on loading.
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
    named['builtins.getattr'] = _statistic_of_history
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as numpy 1 and 2 write
        for name in ('_reconstruct', 'scalar'):
            named[f'{module}.{name}'] = getattr(multiarray, name)
    return named


def allow_checkpoint_types() -> None:
    """Let ``torch.load(weights_only=True)`` read :func:`checkpoint_types`.

    From 2.6 on torch reads weights only by default, and mmengine 0.10.7 then cannot read its own
    checkpoints, so ``--resume`` and ``tools/test.py`` fail (open-mmlab/mmengine#1655). Can go when
    mmengine allows its types itself; ``Namespace`` stays for the authors' files.

    torch 2.1 to 2.5 have no list of names to add to, and until 2.9 the reader itself sets items of
    what is no dict (CVE-2026-24747). There it is replaced by :class:`CheckpointUnpickler`, which
    can go with torch 2.9.
    """
    if TORCH >= (2, 10):
        torch.serialization.add_safe_globals(
            [(value, name) for name, value in checkpoint_types().items()])
    else:
        torch._weights_only_unpickler.Unpickler = CheckpointPickle.Unpickler
        torch._weights_only_unpickler.load = CheckpointPickle.load


@cache
def _allowed() -> Dict[str, Any]:
    """All that a checkpoint may name: what torch's own list has, and :func:`checkpoint_types`."""
    newer = [torch.bool, torch.uint8, torch.bfloat16]  # missing in torch 2.1
    return {**torch._weights_only_unpickler._get_allowed_globals(),
            **{f'builtins.{kind.__name__}': kind for kind in (set, bytearray, complex)},
            **{str(kind): kind for kind in newer}, 'torch.device': torch.device,
            **checkpoint_types()}


class CheckpointUnpickler(pickle._Unpickler):
    """torch's restricted reader for torch before 2.10; all but :func:`_allowed` is an error.

    Nothing else is imported, called, made or changed. Python's reader and not its faster twin, in
    which only names can be restricted: a file could still change an allowed class, by the operation
    that restores an object's state.
    """

    dispatch = {operation: method for operation, method in pickle._Unpickler.dispatch.items()
                if bytes([operation]) not in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX,
                                              pickle.EXT1, pickle.EXT2, pickle.EXT4)}

    def find_class(self, module: str, name: str) -> Any:
        # Names of Python 2, which protocol 2 has.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        return _allowed().get(f'{module}.{name}') or self._refuse(f'global {module}.{name}')

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self._one_of_allowed()
        self.stack[-1] = function(*arguments)

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self._one_of_allowed()
        self.stack[-1] = kind.__new__(kind, *arguments)

    def _one_of_allowed(self) -> Any:
        value = self.stack[-1]
        if not any(value is allowed for allowed in _allowed().values()):
            self._refuse(f'call of {type(value).__name__}')
        return value

    def _build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if type(value) in (OrderedDict, HistoryBuffer, argparse.Namespace):
            if type(value) is HistoryBuffer:  # what its __setstate__ does, without the file's part
                HistoryBuffer._set_default_statistics(value)
            value.__dict__.update(state)
        elif isinstance(value, np.dtype) or type(value) in (
                np.ndarray, torch.Tensor, torch.nn.Parameter):
            value.__setstate__(state)
        else:
            self._refuse(f'state of {type(value).__name__}')

    def _set(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._mapping()[key] = value

    def _set_many(self) -> None:
        items = self.pop_mark()
        self._mapping().update(zip(items[::2], items[1::2]))

    def _mapping(self) -> dict:
        value = self.stack[-1]
        return value if type(value) in (dict, OrderedDict) else self._refuse(
            f'item of {type(value).__name__}')

    def _refuse(self, what: str) -> NoReturn:
        raise pickle.UnpicklingError(f'Unsupported {what}')

    dispatch.update({pickle.REDUCE[0]: _call, pickle.NEWOBJ[0]: _new, pickle.BUILD[0]: _build,
                     pickle.SETITEM[0]: _set, pickle.SETITEMS[0]: _set_many})


class CheckpointPickle:
    """:class:`CheckpointUnpickler` in the place of a module, as torch takes it."""
    Unpickler = CheckpointUnpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return CheckpointUnpickler(file, **options).load()


def refuse_other_formats(path: str) -> None:
    """Raise an error for files that torch before 2.6 reads by more than a restricted pickle.

    Even with ``weights_only=True`` it loads TorchScript and unpacks tar files
    (CVE-2025-32434, GHSA-53q9-r3pm-6pq6). Can go with torch 2.5.

    Raises:
        pickle.UnpicklingError: For such a file.
    """
    with open(path, 'rb') as file:
        # By torch's own reader: two readers may differ on what an archive contains.
        if torch.serialization._is_zipfile(file):
            foreign = torch.serialization._is_torchscript_zip(torch._C.PyTorchFileReader(path))
        else:
            foreign = tarfile.is_tarfile(path)
    if foreign:
        raise pickle.UnpicklingError('a TorchScript or tar archive')


def _statistic_of_history(owner: object, name: str) -> object:
    """Replaces ``getattr`` in a checkpoint: it gives HistoryBuffer's statistics, nothing else.

    A HistoryBuffer is pickled with its methods ``min``, ``max``, ``mean`` and ``current``, each as
    a call of ``getattr``. ``getattr`` itself could reach anything and is never allowed.
    """
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'getattr of {name!r} on {owner!r} is not allowed')
    return getattr(owner, name)


def is_autocast_enabled(kind: str) -> bool:
    """``torch.is_autocast_enabled`` of a device type, which takes none before torch 2.4."""
    if TORCH >= (2, 4):
        return torch.is_autocast_enabled(kind)
    return torch.is_autocast_cpu_enabled() if kind == 'cpu' else torch.is_autocast_enabled()


def get_autocast_dtype(kind: str) -> torch.dtype:
    """``torch.get_autocast_dtype``, which is not in torch before 2.4."""
    if TORCH >= (2, 4):
        return torch.get_autocast_dtype(kind)
    return torch.get_autocast_cpu_dtype() if kind == 'cpu' else torch.get_autocast_gpu_dtype()


def start_of_event(event: Any) -> int:
    """When an event of torch's profiler began, in its clock's units; torch 2.1 has microseconds."""
    return event.start_ns() if hasattr(event, 'start_ns') else event.start_us()


def has_fused_kernels(kind: type, on_cuda: bool) -> bool:
    """Whether an optimizer of torch takes ``fused=True`` for parameters on CUDA or on a CPU.

    SGD has it from torch 2.3 on; CPUs have it from 2.4 on.
    """
    return 'fused' in inspect.signature(kind).parameters and (on_cuda or TORCH >= (2, 4))


def ignore_pkg_resources() -> None:
    """Leave out setuptools' warning that ``pkg_resources`` is deprecated.

    mmengine 0.10.7 imports it, and again for each base such as ``mmdet::_base_/...``, so that
    loading a config gives the warning up to five times. Can go when mmengine reads versions with
    ``importlib.metadata``.
    """
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated as an API')


def find_forks_by_module() -> None:
    """Let configs inherit ``mmseg::...`` from OneDL's forks.

    mmengine, and OneDL's 0.10.12 too, asks for the distribution mmsegmentation, whose name there is
    onedl-mmsegmentation. By the module's name it is found. Can go when OneDL's mmengine knows
    OneDL's names.
    """
    for module, distribution in list(MODULE2PACKAGE.items()):
        try:
            metadata.distribution(distribution)
        except metadata.PackageNotFoundError:
            if importlib.util.find_spec(module) is not None:
                MODULE2PACKAGE[module] = module


# Not in torch 2.1 and 2.2, where dynamo knows another.
is_compiling: Callable[[], bool] = (
    torch.compiler.is_compiling if hasattr(torch.compiler, 'is_compiling')
    else torch._utils.is_compiling)

ignore_pkg_resources()
find_forks_by_module()
declare_torchvision_ops()
allow_checkpoint_types()
