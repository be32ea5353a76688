"""Stand-ins for mmcv's compiled operators; advice on missing libraries.

Imported first; needs only Python's standard library.
"""
import functools
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, version
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any, List, Optional

_NAME = 'mmcv._ext'
_LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
_IMPORT = ('importlib', 'importlib._bootstrap', 'importlib._bootstrap_external')


class LastFinder(MetaPathFinder):
    """Last finder in ``sys.meta_path``, for imports that would fail.

    It serves ``mmcv._ext`` (``ext.py``). When a module of this package imports a missing library,
    it says what to install.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        if name == _NAME:
            _check_torchvision()
            return spec_from_file_location(name, Path(__file__).with_name('ext.py'))
        if name not in _LIBRARIES:
            return None
        frame = sys._getframe(1)
        while (asker := frame.f_globals['__name__']) in _IMPORT:
            frame = frame.f_back
        if asker.partition('.')[0] == 'fastervit_mm':  # other modules may handle it
            raise ModuleNotFoundError(
                f"{asker} needs {name}, which is not installed. In a clone of fastervit_mm: pip "
                "install '.[openmmlab]', or '.[onedl]' for OneDL's forks", name=name)
        return None


def _check_torchvision() -> None:
    try:
        from torchvision.extension import _has_ops
        if _has_ops():
            return
        found = f'the operators of torchvision {version("torchvision")} do not load beside'
    except ModuleNotFoundError:
        found = 'torchvision is missing beside'
    raise ModuleNotFoundError(
        f'{found} torch {version("torch")}, and without a compiled mmcv they are needed. Do: '
        'pip install --upgrade --force-reinstall torch torchvision, both from the same index',
        name=_NAME)


def broken_mmcv(error: Optional[BaseException]) -> Optional[str]:
    """Diagnosis and remedy if a broken mmcv caused an error."""
    file = Path(getattr(error, 'path', None) or '.')
    if isinstance(error, ImportError) and file.match('mmcv/_ext.*'):
        return (f'mmcv\'s compiled operators do not load beside torch {version("torch")} '
                f'({error}). {_remedy()}')
    mmcv = sys.modules.get('mmcv')
    if isinstance(error, (ImportError, AttributeError)) and mmcv and mmcv.__file__ is None:
        return (f'{list(mmcv.__path__)[0]}: an incomplete mmcv, without its __init__.py. '
                f'{_remedy()}')
    return None


@functools.cache
def say_which_serve(logger: Any) -> None:
    """Log, once, whether mmcv's or torchvision's operators serve."""
    module = sys.modules.get(_NAME)
    if module is None:
        return
    there = ' and '.join(f'{name} {version(name)}' for name in _installed())
    ours = 'torchvision' in vars(module)
    logger.info('mmcv\'s operators: ' + (
        f'torchvision {version("torchvision")}\'s, as {there} has none compiled' if ours else
        f'compiled ones, of {there}'))


def _installed() -> List[str]:
    """Installed distributions that own a folder mmcv."""
    return [name for name in ('mmcv', 'mmcv-lite', 'onedl-mmcv')
            if any(Distribution.discover(name=name))]


def _remedy() -> str:
    """The command that repairs mmcv."""
    found = _installed()
    wanted = 'onedl-mmcv' if 'onedl-mmcv' in found else 'mmcv-lite==2.1.0'
    remove = f'pip uninstall --yes {" ".join(found)}; ' if found else ''
    return f'Do: {remove}pip install --force-reinstall --no-deps {wanted}'
