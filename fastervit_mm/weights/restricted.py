"""Reader of torch files that runs no code.

The same for every version of torch. torch's own list of safe types is global to the process, so an
addition changes what other code may load. Until torch 2.9 its reader sets items of objects that are
not dicts (CVE-2026-24747); until 2.5 it loads TorchScript and unpacks tar files (CVE-2025-32434,
GHSA-53q9-r3pm-6pq6).
"""
import argparse
import os
import pickle
import tarfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Callable, Dict, NoReturn

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler

from ..compat import checkpoint_types


def load_values(path: str, map_location: Any, mapped: bool) -> Any:
    """Read a file of ``torch.save``.

    Args:
        path: The file.
        map_location: Argument of :func:`torch.load`.
        mapped: Whether CPU tensors may be mapped into memory from the file and read on use. False
            reads them all.

    Raises:
        pickle.UnpicklingError: For a file that holds more than values.
        Exception: Of any kind, for a damaged file.
    """
    # torch.load's own parts, with this module's unpickler. torch.load itself refuses an unpickler
    # if TORCH_FORCE_WEIGHTS_ONLY_LOAD is set.
    parts = torch.serialization
    with open(path, 'rb') as file:
        if parts._is_zipfile(file):
            archive = torch._C.PyTorchFileReader(path)
            if parts._is_torchscript_zip(archive):
                raise pickle.UnpicklingError('a TorchScript archive')
            # A mapped tensor cannot reach beyond the file. Otherwise torch 2.1 believes the size
            # that the file gives for a tensor, and returns whatever memory follows the data.
            whole = torch.UntypedStorage.from_file(path, False, os.path.getsize(path))
            return parts._load(archive, map_location if mapped else _in_memory(map_location),
                               CheckpointPickle, overall_storage=whole, encoding='utf-8')
        if tarfile.is_tarfile(path):
            raise pickle.UnpicklingError('a tar archive')
        file.seek(0)
        return parts._legacy_load(file, map_location, CheckpointPickle, encoding='utf-8')


def _in_memory(map_location: Any) -> Callable:
    """Extend a ``map_location`` by a copy of each mapped storage."""
    restore = torch.serialization._get_restore_location(map_location)

    def restored(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
        there = restore(storage, location)
        return there.clone() if there.device.type == 'cpu' else there

    return restored


_FUNCTIONS = [(HistoryBuffer, ('min', 'max', 'mean', 'current')),
              (OneCycleParamScheduler, ('_annealing_cos', '_annealing_linear'))]


def _attribute(owner: object, name: str) -> object:
    """Stand-in for ``getattr`` in a file; gives a few functions.

    A HistoryBuffer is pickled with its methods, and mmengine's OneCycleLR with the function of its
    curve, each as a call of ``getattr``. ``getattr`` itself could reach anything.
    """
    names = next((names for kind, names in _FUNCTIONS if kind is owner), ())
    if name not in names:
        raise pickle.UnpicklingError(f'getattr of {name!r} on {owner!r} is not allowed')
    return getattr(owner, name)


def _empty_dict(factory: Any = None) -> dict:
    return {}


# What a file may call. Plain values stand in for the harmless types of configs, Lightning's
# hyperparameters and paths.
_STAND_INS = {
    'builtins.getattr': _attribute,
    **{f'builtins.{kind.__name__}': kind for kind in (
        bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)},
    'addict.addict.Dict': dict,
    'mmengine.config.config.ConfigDict': dict,
    'collections.defaultdict': _empty_dict,
    **{f'{module}.AttributeDict': dict for module in (
        'lightning_fabric.utilities.data', 'lightning.fabric.utilities.data',
        'pytorch_lightning.utilities.parsing', 'lightning.pytorch.utilities.parsing')},
    **{f'pathlib.{module}{pure}{name}Path': lambda *parts, kind=kind: str(kind(*parts))
       for module in ('', '_local.') for pure in ('', 'Pure')
       for name, kind in (('Posix', PurePosixPath), ('Windows', PureWindowsPath))},
}
# What a file may name, but is never called.
_NAMED = {'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler':
          OneCycleParamScheduler}


class CheckpointUnpickler(pickle._Unpickler):
    """Python's unpickler, restricted to values and the names above.

    What the program itself has declared by ``torch.serialization.add_safe_globals`` is also
    allowed. Nothing else is imported, called, created or changed. It derives from Python's slower
    reader: in the C one only names can be restricted, and a file could still change an allowed
    class through the operation that restores an object's state.
    """

    dispatch = {operation: method for operation, method in pickle._Unpickler.dispatch.items()
                if bytes([operation]) not in (pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX,
                                              pickle.EXT1, pickle.EXT2, pickle.EXT4)}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        torchs = torch._weights_only_unpickler
        # From torch 2.4 on.
        self._declared = getattr(torchs, '_get_user_allowed_globals', dict)()
        newer = [torch.bool, torch.uint8, torch.bfloat16]  # missing in torch 2.1
        self._allowed: Dict[str, Any] = {
            **self._declared,
            # Sparse tensors are made by functions that check them.
            **{name: value for name, value in torchs._get_allowed_globals().items()
               if not name.startswith('torch.sparse.')},
            **{str(kind): kind for kind in newer}, 'torch.device': torch.device,
            **checkpoint_types(), **_STAND_INS}
        self._callable = {id(value) for value in self._allowed.values()}

    def find_class(self, module: str, name: str) -> Any:
        # Protocol 2 has Python 2's names.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        path = f'{module}.{name}'
        return self._allowed.get(path) or _NAMED.get(path) or self._refuse(f'global {path}')

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self._one_of_allowed()
        self.stack[-1] = function(*arguments)

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self._one_of_allowed()
        self.stack[-1] = kind.__new__(kind, *arguments)

    def _one_of_allowed(self) -> Any:
        value = self.stack[-1]
        if id(value) not in self._callable:
            self._refuse(f'call of {type(value).__name__}')
        return value

    def _build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if type(value) in (OrderedDict, HistoryBuffer, argparse.Namespace):
            if type(value) is HistoryBuffer:  # as its __setstate__, without the file's functions
                HistoryBuffer._set_default_statistics(value)
            value.__dict__.update(state)
        elif type(value) is dict:
            value.update(state)
        elif isinstance(value, np.dtype) or type(value) in (
                np.ndarray, torch.Tensor, torch.nn.Parameter):
            value.__setstate__(state)
        elif self._is_declared(value):
            if hasattr(value, '__setstate__'):
                value.__setstate__(state)
            else:
                value.__dict__.update(state)
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
        if type(value) in (dict, OrderedDict) or isinstance(value, dict) and (
                self._is_declared(value)):
            return value
        self._refuse(f'item of {type(value).__name__}')

    def _is_declared(self, value: Any) -> bool:
        return any(type(value) is kind for kind in self._declared.values())

    def _storage(self) -> None:
        place = self.stack.pop()
        # For others, such as modules, torch would look up the source code.
        if type(place) is not tuple or place[:1] not in (('storage',), (b'storage',)):
            self._refuse(f'place of {type(place).__name__}')
        self.append(self.persistent_load(place))

    def _refuse(self, what: str) -> NoReturn:
        raise pickle.UnpicklingError(f'Unsupported {what}')

    dispatch.update({pickle.REDUCE[0]: _call, pickle.NEWOBJ[0]: _new, pickle.BUILD[0]: _build,
                     pickle.SETITEM[0]: _set, pickle.SETITEMS[0]: _set_many,
                     pickle.BINPERSID[0]: _storage})


class CheckpointPickle:
    """:class:`CheckpointUnpickler` as a pickle module for torch."""
    Unpickler = CheckpointUnpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return CheckpointUnpickler(file, **options).load()
