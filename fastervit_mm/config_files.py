"""Where this package's configs are: in a clone, an editable install or an installed wheel.

A wheel has them in ``fastervit_mm/.mim``, OpenMMLab's convention, where ``mim`` looks too.
"""
import difflib
import os
from pathlib import Path
from typing import List, Union

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

_PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """The folder that holds ``mmdet/``, ``mmseg/`` and ``_base_/``.

    Raises:
        FileNotFoundError: For an install that left the configs out.
    """
    clone = _PACKAGE.parent
    # Only beside setup.py: some other package may have left a configs/ in site-packages.
    if (clone / 'setup.py').is_file() and (clone / 'configs' / 'mmdet').is_dir():
        return clone / 'configs'
    folder = _PACKAGE / '.mim' / 'configs'
    if not folder.is_dir():
        raise FileNotFoundError(f'fastervit_mm in {_PACKAGE} came without its configs ({folder} is '
                                'missing). Install it anew: pip install --force-reinstall '
                                '--no-deps, and the wheel or the clone')
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
        ValueError: For a name that no config has.
    """
    names = config_names()
    wanted = os.fspath(name).replace(os.sep, '/').rpartition('::')[2].removesuffix('.py')
    wanted = wanted.removeprefix('./').removeprefix('configs/')
    found = [n for n in names if wanted in (n, n.partition('/')[2])]
    if len(found) == 1:
        return config_folder() / f'{found[0]}.py'
    stems = {n.partition('/')[2]: n for n in names}
    alike = difflib.get_close_matches(wanted.rpartition('/')[2], stems, n=4)
    near = dict.fromkeys([*difflib.get_close_matches(wanted, names, n=4),
                          *(stems[stem] for stem in alike)])
    raise ValueError(f'name={os.fspath(name)!r}: no config of fastervit_mm has this name; '
                     + (f'similar: {", ".join(near)}' if near
                        else f'give one of {", ".join(names)}'))


def get_config(name: Union[str, os.PathLike]) -> Config:
    """One of this package's configs, from any folder.

    Args:
        name: ``'mmdet/cascade_fvit'``, or the part after the slash. A ``.py`` at the end, and
            a ``configs/`` or ``fastervit_mm::`` at the start, are ignored.

    Returns:
        The config, its bases merged. Some bases are mmdet's or mmseg's own, so the library that the
        config is for must be installed.

    Raises:
        ValueError: For a name that no config has; the message lists near ones.
    """
    return Config.fromfile(config_path(name))


def find_config(config: Union[str, os.PathLike]) -> str:
    """The path of a config that a user named: a file of their own, else one of this package's.

    Args:
        config: A path, or a name as in :func:`get_config`.

    Raises:
        FileNotFoundError: If there is neither.
    """
    if os.path.isfile(config):
        return os.fspath(config)
    try:
        return str(config_path(config))
    except ValueError as error:
        reason = str(error).partition(': ')[2]
        raise FileNotFoundError(f'config={os.fspath(config)!r}: no such file '
                                f'({os.path.abspath(config)}), and {reason}') from None


# mmengine takes `fastervit_mm::mmdet/cascade_fvit.py` (mmengine.hub.get_config, `_base_`) only for
# packages that it lists. It looks for a distribution with the name on the right, and finds none for
# an editable install. A name that is no distribution it looks up in Python's import system.
MODULE2PACKAGE.setdefault('fastervit_mm', f'{__package__}.config_files')
