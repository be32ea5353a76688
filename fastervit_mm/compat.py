"""Work-arounds for versions of other libraries: each with its reason, and when it can go.

Importing the package applies them.
"""
import argparse
import importlib.util
import pickle
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

try:
    from mmengine.logging import HistoryBuffer
except ModuleNotFoundError as error:  # two distributions provide it, so neither is a requirement
    raise ImportError("fastervit_mm needs mmengine: pip install 'fastervit_mm[openmmlab]', or "
                      "'fastervit_mm[onedl]' for OneDL's forks") from error

_torchvision_schemas = None


def declare_torchvision_ops() -> None:
    """Let torchvision's Python parts import where its compiled ops do not load.

    torchvision from a package registry is built for CUDA. Beside a CPU build of torch its library
    does not load, and ``import torchvision``, hence ``import timm``, fails with "operator
    torchvision::nms does not exist" when it gives these two operators their shape rules. Their
    schemas are enough; calling them still fails, and nothing here calls them (mmcv has its own
    NMS). Can go when torchvision registers those rules only with its ops.
    """
    global _torchvision_schemas
    spec = importlib.util.find_spec('torchvision')
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, 'nms'):
        return
    for library in Path(spec.origin).parent.glob('_C.*'):
        try:
            torch.ops.load_library(library)
            return
        except OSError:
            continue
    _torchvision_schemas = torch.library.Library('torchvision', 'FRAGMENT')
    _torchvision_schemas.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _torchvision_schemas.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


def allow_checkpoint_types() -> None:
    """Let ``torch.load(weights_only=True)`` read the harmless types that real checkpoints hold.

    From 2.6 on torch reads weights only by default, and mmengine 0.10.7 then cannot read its own
    checkpoints: they hold HistoryBuffers of numpy arrays, so ``--resume`` and ``tools/test.py``
    fail. The authors' files hold an ``argparse.Namespace``. None of these runs code on loading.
    Can go when mmengine allows them itself; ``Namespace`` stays for the authors' files.
    """
    try:
        from numpy._core import multiarray
    except ImportError:  # numpy 1
        from numpy.core import multiarray
    types = [argparse.Namespace, OrderedDict, HistoryBuffer, np.ndarray, np.dtype]
    # torch pickles with protocol 2, where numpy's bytes are stored as text, for codecs.encode.
    types.append((__import__('_codecs').encode, '_codecs.encode'))
    types += [type(np.dtype(name)) for name in
              ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64',
               'float16', 'float32', 'float64')]
    types.append((_statistic_of_history, 'builtins.getattr'))
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as numpy 1 and 2 write
        types += [(getattr(multiarray, name), f'{module}.{name}')
                  for name in ('_reconstruct', 'scalar')]
    torch.serialization.add_safe_globals(types)


def _statistic_of_history(owner: object, name: str) -> object:
    """Replaces ``getattr`` in a checkpoint: it gives HistoryBuffer's statistics, nothing else.

    A HistoryBuffer is pickled with its methods ``min``, ``max``, ``mean`` and ``current``, each as
    a call of ``getattr``. ``getattr`` itself could reach anything and is never allowed.
    """
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'getattr of {name!r} on {owner!r} is not allowed')
    return getattr(owner, name)


def ignore_pkg_resources() -> None:
    """Leave out setuptools' warning that ``pkg_resources`` is deprecated.

    mmengine 0.10.7 imports it, and again for each base such as ``mmdet::_base_/...``, so that
    loading a config gives the warning up to five times. Can go when mmengine reads versions with
    ``importlib.metadata``.
    """
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated as an API')


ignore_pkg_resources()
declare_torchvision_ops()
allow_checkpoint_types()
