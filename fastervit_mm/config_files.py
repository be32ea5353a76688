"""Finding and reading configs.

This package's own are in a clone, an editable install or an installed wheel. A wheel has them in
``fastervit_mm/.mim``, OpenMMLab's convention, where ``mim`` looks too.
"""
import ast
import difflib
import os
import shlex
import traceback
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath
from typing import Callable, Iterator, List, Optional, Tuple, Union

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from .config_text import read_config_text
from .operators import broken_mmcv

_PACKAGE = Path(__file__).resolve().parent
_PREFIX = f'{__package__}::'  # of a config of this package in another's `_base_`
_LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')


class ConfigError(ValueError):
    """Unusable config; the message names the remedy."""


def typed(program: str) -> str:
    """Command that runs a tool, such as ``python tools/train.py``."""
    clone = _PACKAGE.parent / 'tools' / program
    path = clone if clone.is_file() else _PACKAGE / '.mim' / 'tools' / program
    near = os.path.relpath(path)
    return f'python {shlex.quote(str(path) if near.startswith("..") else near)}'


def config_folder() -> Path:
    """The folder that holds ``mmdet/``, ``mmseg/`` and ``_base_/``.

    Raises:
        FileNotFoundError: For an installation without the configs.
    """
    clone = _PACKAGE.parent
    # Only beside setup.py: some other package may have left a configs/ in site-packages.
    if (clone / 'setup.py').is_file() and (clone / 'configs' / 'mmdet').is_dir():
        return clone / 'configs'
    folder = _PACKAGE / '.mim' / 'configs'
    if not folder.is_dir():
        raise FileNotFoundError(f'fastervit_mm in {_PACKAGE} came without its configs ({folder} is '
                                'missing). Install it again: pip install --force-reinstall '
                                '--no-deps, then the wheel or the clone')
    return folder


def config_names() -> List[str]:
    """Names that :func:`get_config` knows, such as ``'mmdet/cascade_fvit'``."""
    folder = config_folder()
    names = (path.relative_to(folder).with_suffix('').as_posix() for path in folder.glob('*/*.py'))
    return sorted(name for name in names if not name.startswith('_base_/'))


def config_path(name: Union[str, os.PathLike]) -> Path:
    """The file of one of this package's configs.

    Args:
        name: As in :func:`get_config`.

    Raises:
        ValueError: For an unknown name.
    """
    names = config_names()
    wanted = os.fspath(name).replace(os.sep, '/').rpartition('::')[2].removesuffix('.py')
    wanted = wanted.removeprefix('./').removeprefix('configs/')
    found = [n for n in names if wanted in (n, n.partition('/')[2])]
    if len(found) == 1:
        return config_folder() / f'{found[0]}.py'
    near = _similar(wanted)
    raise ValueError(f'name={os.fspath(name)!r}: no config of fastervit_mm has this name; '
                     + (f'similar: {", ".join(near)}' if near
                        else f'give one of {", ".join(names)}'))


def _similar(wanted: str) -> List[str]:
    names = config_names()
    stems = {n.partition('/')[2]: n for n in names}
    alike = difflib.get_close_matches(wanted.rpartition('/')[2], stems, n=4)
    return list(dict.fromkeys([*difflib.get_close_matches(wanted, names, n=4),
                               *(stems[stem] for stem in alike)]))


def get_config(name: Union[str, os.PathLike]) -> Config:
    """One of this package's configs, from any folder.

    Args:
        name: ``'mmdet/cascade_fvit'``, or the part after the slash. A ``.py`` at the end, and
            a ``configs/`` or ``fastervit_mm::`` at the start, are ignored.

    Returns:
        The config, its bases merged. Some bases are mmdet's or mmseg's own, so the library that the
        config is for must be installed.

    Raises:
        ValueError: For an unknown name; the message lists similar ones.
    """
    return Config.fromfile(config_path(name))


def find_config(config: Union[str, os.PathLike]) -> str:
    """Path of a config, given as file or by name.

    Args:
        config: A path, a name as in :func:`get_config`, or a name in another installed package such
            as ``'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'``.

    Raises:
        FileNotFoundError: For a config that does not exist.
    """
    if os.path.isfile(config):
        return os.fspath(config)
    if '::' in os.fspath(config) and not os.fspath(config).startswith(_PREFIX):
        return _installed_config(os.fspath(config))
    try:
        return str(config_path(config))
    except ValueError as error:
        reason = str(error).partition(': ')[2]
        raise FileNotFoundError(f'config={os.fspath(config)!r}: no such file '
                                f'({os.path.abspath(config)}), and {reason}') from None


def _installed_config(name: str) -> str:
    try:
        path = Config._get_cfg_path(name.removesuffix('.py') + '.py', '')[0]
        if os.path.isfile(path):
            return path
    except (ImportError, OSError, ValueError):  # no such package, no such file, no folder
        pass
    raise FileNotFoundError(f'config={name!r}: no such config of an installed package; they are '
                            'named like mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')


def read_config(config: Union[str, os.PathLike]) -> Config:
    """Read a config with its bases and custom imports.

    Args:
        config: As in :func:`find_config`, or a folder of ``tools/share.py``, in which no code is
            run (:func:`~fastervit_mm.config_text.read_config_text`).

    Raises:
        FileNotFoundError: For a config, or a ``_base_``, that does not exist.
        ConfigError: For an error in a config's code, or an import that fails. The message has the
            file and the line.
        ValueError: For a folder's config that is not of plain values.
    """
    if os.path.isdir(config):
        return _imported(read_config_text(config))
    path = find_config(config)
    try:
        _check_syntax(path)
        with _own_bases():
            cfg = Config.fromfile(path, import_custom_modules=False)
    except SyntaxError as error:
        raise ConfigError(f'{error.filename}, line {error.lineno}: {error.msg}: '
                          f'{(error.text or "").strip()}') from error
    except _AbsentBase:
        raise
    except Exception as error:  # a config is a program: it can fail in any way
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ConfigError(f'{_place(error, path)}: {type(error).__name__}: {reason}') from error
    return _imported(cfg)


def _imported(cfg: Config) -> Config:
    """A config with its imports done and its scope set."""
    try:
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
    except ImportError as error:
        raise ConfigError(broken_mmcv(error.__context__) or (
            f'{cfg.filename}: custom_imports: {error} ({error.__context__}). Install it, or add '
            'its folder to PYTHONPATH')) from error
    if cfg.get('default_scope') is None and isinstance(cfg.get('model'), dict):
        cfg.default_scope = _library(cfg.model.get('type'))
    return cfg


def _library(kind: Union[str, type, None]) -> str:
    """Library of a model's class, in place of a default scope."""
    names = [base.__module__ for base in kind.__mro__] if isinstance(kind, type) else [str(kind)]
    found = (name.partition('.')[0] for name in names)
    return next((name for name in found if name in _LIBRARIES), 'mmengine')


class _AbsentBase(FileNotFoundError):
    """Missing ``_base_``; the message names base, config and remedy."""


def _place(error: Exception, path: str) -> str:
    """Config or base that raised an error, and its line."""
    place = path
    for frame, line in traceback.walk_tb(error.__traceback__):
        if '__name__' not in frame.f_globals:  # mmengine runs a config's code outside of modules
            place = f'{frame.f_code.co_filename}, line {line}'
        elif frame.f_code is Config._file2dict.__code__:  # runs once for each base
            place = frame.f_locals['filename']
    return place


def _check_syntax(path: str) -> None:
    """Raise a SyntaxError with the file's name, which mmengine's lacks."""
    if path.endswith('.py'):
        ast.parse(Path(path).read_text(encoding='utf-8'), path)


@contextmanager
def _own_bases() -> Iterator[None]:
    """Context in which mmengine finds bases by :func:`_base_path`."""
    mmengines = Config._get_cfg_path
    Config._get_cfg_path = staticmethod(partial(_base_path, mmengines))
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(mmengines)


def _base_path(mmengines: Callable[[str, str], Tuple[str, Optional[str]]], base: str, config: str
               ) -> Tuple[str, Optional[str]]:
    """File of a ``_base_`` and the scope of its registries.

    This package's own bases get no scope, so a run saves its config without it.

    Args:
        mmengines: mmengine's function.
        base: As it is written in the config.
        config: Path of the config.

    Raises:
        FileNotFoundError: For a missing file; the message names base and config.
        SyntaxError: For a file that is not Python.
    """
    try:
        if base.startswith(_PREFIX):
            path, scope = _own_base(base), None
        else:
            path, scope = mmengines(base, config)
            path = os.path.abspath(os.path.expanduser(path))
            if not os.path.isfile(path):
                raise FileNotFoundError(f'no such file ({path})')
    except FileNotFoundError as error:
        raise _AbsentBase(f'{config}: _base_={base!r}: {error}{_advice(base)}') from None
    _check_syntax(path)
    return path, scope


def _own_base(base: str) -> str:
    name = base.removeprefix(_PREFIX)
    if (config_folder() / name).is_file():  # _base_/ too, which config_path() does not know
        return str(config_folder() / name)
    try:
        return str(config_path(name))
    except ValueError as error:
        raise FileNotFoundError(str(error).partition(': ')[2]) from None


def _advice(base: str) -> str:
    """Hint at a similar config of this package."""
    if '::' in base:
        return ''
    name = '/'.join(PurePath(base).parts[-2:])
    right = config_folder() / name
    try:
        if not right.is_file():
            right = config_path(PurePath(base).name)
    except ValueError:
        near = [repr(f'{_PREFIX}{n}.py') for n in _similar(name)]
        return f'. Similar in fastervit_mm: {", ".join(near)}' if near else ''
    return (f'. A path is relative to the config\'s folder; from any folder, write '
            f'_base_ = {_PREFIX + right.relative_to(config_folder()).as_posix()!r}')
