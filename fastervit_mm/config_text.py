"""Configs as text of plain values, read without running code.

A config in Python is a program. In a folder for the Hub (:mod:`fastervit_mm.apis.sharing`) it is
one dict of literals, and only such values are taken from it as cannot make a library run code.
"""
import ast
import os
import re
from importlib import import_module
from pathlib import Path
from pprint import pformat
from typing import Any, Union

from mmengine.config import Config

CONFIG_TEXT = 'openmmlab_config.txt'
_PACKAGES = ('fastervit_mm', 'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg')
# Of one machine, not of the network.
_LEFT_OUT = ('work_dir', 'launcher', 'load_from', 'resume')
# What mmcv's nms and mmpretrain's transforms evaluate, and what mmengine unpickles.
_UNSAFE = re.compile(r'\(|\.(?:pkl|pickle)$')


def config_to_text(cfg: Config) -> str:
    """Text of a config's values.

    Args:
        cfg: A config; paths of one run, such as ``work_dir``, are left out.

    Raises:
        ValueError: For a config that :func:`read_config_text` would refuse.
    """
    values = {key: value for key, value in cfg.to_dict().items() if key not in _LEFT_OUT}
    text = pformat(values, width=100, sort_dicts=False)
    _parse(text, f'config={cfg.filename}')
    return text + '\n'


def read_config_text(folder: Union[str, os.PathLike]) -> Config:
    """Read the config of a folder for the Hub; no code in it is run.

    Args:
        folder: Written by ``tools/share.py``, or downloaded.

    Raises:
        FileNotFoundError: For a folder without a config.
        ValueError: For text that is not one dict of literals, and for values by which a library
            would import, evaluate or unpickle something; the message names the place.
    """
    path = Path(folder, CONFIG_TEXT)
    if not path.is_file():
        raise FileNotFoundError(f'config={os.fspath(folder)!r}: a folder without {CONFIG_TEXT}; '
                                'give a config file, or a folder of tools/share.py')
    text = path.read_text(encoding='utf-8')
    return Config(_parse(text, str(path)), cfg_text=text, filename=f'{path.parent.absolute()}.py')


def _parse(text: str, name: str) -> dict:
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(f'{name}: holds more than plain values: {error}') from None
    if not isinstance(values, dict):
        raise ValueError(f'{name}: holds a {type(values).__name__}, not a dict')
    imports = (values.get('custom_imports') or {}).get('imports') or []
    for module in [imports] if isinstance(imports, str) else imports:
        if module.partition('.')[0] not in _PACKAGES:
            raise ValueError(f'{name}: custom_imports={module!r}: code that a folder does not '
                             f'hold; only modules of {", ".join(_PACKAGES)} can be imported')
    _check(values, name, '')
    return values


def _check(value: Any, name: str, place: str, words: bool = False) -> None:
    """Raise a ValueError for values that can make a library run code.

    Args:
        value: A part of the config.
        name: The config's name, for the message.
        place: The part's dotted name.
        words: Whether texts in it are names of classes, which nothing evaluates.
    """
    if isinstance(value, dict):
        for key, one in value.items():
            if key == 'type' and isinstance(one, str) and not _registrable(one):
                raise ValueError(f'{name}: {place}type={one!r}: give the name of a registered '
                                 'class, such as Resize or mmdet.Resize')
            if key == 'trust_remote_code':
                raise ValueError(f'{name}: {place}trust_remote_code: not allowed')
            _check(one, name, f'{place}{key}.', words or key in ('metainfo', 'classes'))
    elif isinstance(value, (list, tuple, set)):
        for number, one in enumerate(value):
            _check(one, name, f'{place}{number}.', words)
    elif isinstance(value, str) and not words and _UNSAFE.search(value):
        raise ValueError(f'{name}: {place.rstrip(".")}={value!r}: not allowed, since a library may '
                         'evaluate text with a bracket, and unpickle .pkl files')


def _registrable(kind: str) -> bool:
    """Whether a registry can only find a registered class by this name.

    For a name that no registry has, mmengine takes any module's attribute of that name.
    """
    scope, _, name = kind.rpartition('.')
    plain = all(part.isidentifier() for part in name.split('/'))  # as in torchvision/Resize
    return plain and (not scope or scope in _PACKAGES and not hasattr(
        import_module(scope), name))
