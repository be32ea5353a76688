"""mmcv's operators where mmcv has none compiled, and one line for what is missing or broken.

Imported before everything else; needs Python's standard library alone.
"""
import functools
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.metadata import Distribution, version
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, List, Optional

_NAME = 'mmcv._ext'
_LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')


def provide_operators() -> None:
    """Serve mmcv's operators by torchvision's where none are compiled.

    A compiled mmcv is always used where it is.
    """
    sys.meta_path.insert(0, _Operators())
    sys.meta_path.append(_Missing())


class _Operators(MetaPathFinder):
    """Finds ``mmcv._ext``: the compiled one where there is one, else ``ext.py``."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        if name not in ('mmcv', _NAME):
            return None
        spec = PathFinder.find_spec(name, path)
        if name == 'mmcv':
            if spec is not None and spec.origin is None:
                raise ImportError(f'{list(spec.submodule_search_locations)[0]}: what is left of an '
                                  f'mmcv, without its __init__.py. {_remedy()}')
            return spec
        if spec is None:
            _check_torchvision()
            return spec_from_file_location(name, Path(__file__).with_name('ext.py'))
        spec.loader = _Compiled(name, spec.origin)
        return spec


def _check_torchvision() -> None:
    try:
        from torchvision.extension import _has_ops
        if _has_ops():
            return
        found = f'the operators of torchvision {version("torchvision")} do not load beside'
    except ModuleNotFoundError:
        found = 'torchvision is missing beside'
    raise ImportError(
        f'{found} torch {version("torch")}, and without a compiled mmcv torchvision\'s serve. Do: '
        'pip install --upgrade --force-reinstall torch torchvision, both from the same index')


class _Compiled(ExtensionFileLoader):

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        try:
            return super().create_module(spec)
        except ImportError as error:  # such as an undefined symbol
            raise ImportError(f'mmcv\'s compiled operators do not load beside torch '
                              f'{version("torch")} ({error}). {_remedy()}') from None


class _Missing(MetaPathFinder):
    """Says how to install a library that a module of this package imports; it is asked last."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name not in _LIBRARIES:
            return
        frame = sys._getframe(1)
        while (asker := frame.f_globals['__name__']).startswith('importlib.'):
            frame = frame.f_back
        if asker.partition('.')[0] == 'fastervit_mm':  # others may try, and do without
            raise ModuleNotFoundError(
                f"{asker} needs {name}, which is not installed. In a clone of fastervit_mm: pip "
                "install '.[openmmlab]', or '.[onedl]' for OneDL's forks", name=name)


@functools.cache
def say_which_serve(logger: Any) -> None:
    """Log whether mmcv's operators are compiled or torchvision's, if something uses them."""
    module = sys.modules.get(_NAME)
    if module is None:
        return
    there = ' and '.join(f'{name} {version(name)}' for name in _installed())
    ours = 'torchvision' in vars(module)
    logger.info('mmcv\'s operators: ' + (
        f'torchvision {version("torchvision")}\'s, as {there} has none compiled' if ours else
        f'compiled ones, of {there}'))


def _installed() -> List[str]:
    """Distributions that are installed and bring a folder mmcv."""
    return [name for name in ('mmcv', 'mmcv-lite', 'onedl-mmcv')
            if any(Distribution.discover(name=name))]


def _remedy() -> str:
    """The command that puts mmcv right."""
    found = _installed()
    wanted = 'onedl-mmcv' if 'onedl-mmcv' in found else 'mmcv-lite==2.1.0'
    remove = f'pip uninstall --yes {" ".join(found)}; ' if found else ''
    return f'Do: {remove}pip install --force-reinstall --no-deps {wanted}'


provide_operators()
