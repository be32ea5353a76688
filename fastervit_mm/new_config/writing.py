"""Filling a config's template and writing the file."""
import os
import pprint
import textwrap
from pathlib import Path
from typing import Any, Mapping, Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..config_files import read_config
from ..datasets.folders import DataError

SMALL = 'small'


def fill(task: str, arch: str, root: Path, images: Mapping[str, int], length: int, **values) -> str:
    """Text of a config, from its template.

    Args:
        task: ``'det'`` or ``'seg'``, whose template is ``<task>.py.jinja``.
        arch: ``'small'`` or a published variant.
        root: The data's folder.
        images: Number of images of each split.
        length: Epochs of a detector's training, iterations of a segmentor's.
        **values: Other variables of the template.
    """
    name = dict(det='cascade_fvit', seg='upernet_fvit')[task]
    return _TEMPLATES.get_template(f'{task}.py.jinja').render(
        small=arch == SMALL, root=root, data_root=f'{root.as_posix()}/',
        base=name if arch == '2' else f'{name}_{arch}'.replace('-', '_'),
        network='small, trained from scratch' if arch == SMALL else f'FasterViT-{arch}',
        counts=', '.join(f'{number} {split}' for split, number in images.items()),
        interval=max(1, length // 8), **values)


def inside(path: Path, root: Path, folder: bool = False) -> str:
    """Path as in a config with ``data_root``."""
    path = path.absolute()
    if path == root:
        return ''
    end = '/' if folder else ''
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix() + end


def write_config(out: Path, text: str, meant: Mapping[str, Any]) -> None:
    """Save a config, if reading it gives the intended values.

    Args:
        out: The file to write.
        text: Its text.
        meant: Values that it must have, by dotted name.

    Raises:
        DataError: For a value that reads differently; nothing is written then.
    """
    trial = out.with_name(f'.{out.stem}.trial.py')
    try:
        trial.write_text(text, encoding='utf-8')
        cfg = read_config(trial)
        for name, value in meant.items():
            found = cfg
            for part in name.split('.'):
                found = found[part]
            if found != value:
                raise DataError(f'{name}={value!r}: a config cannot hold it, {found!r} would be '
                                'read. Use another name')
        os.replace(trial, out)
    finally:
        trial.unlink(missing_ok=True)


def count(number: int, one: str, many: str) -> str:
    """Number with its noun."""
    return f'{number} {one if number == 1 else many}'


def _quoted(value: Any) -> str:
    """Literal for a config, protected from mmengine's substitutions."""
    return repr(value).replace('{{', '{\\x7b')


def names_of(names: Sequence[str]) -> str:
    """Tuple of names as text, broken only between names."""
    text = _quoted(tuple(names))
    if len(text) <= 88:
        return text
    text = pprint.pformat(list(names), width=95, compact=True)[1:-1].replace('{{', '{\\x7b')
    return '(\n    ' + text.replace('\n', '\n   ') + ',\n)'


def _comment(text: str, indent: int = 0) -> str:
    """Text as a comment, wrapped at 100 characters."""
    start = ' ' * indent + '# '
    text = text.strip().replace('{{', '{ {').encode(errors='backslashreplace').decode()
    return textwrap.fill(text, 100, initial_indent=start, subsequent_indent=start,
                         break_on_hyphens=False, break_long_words=False) + '\n'


_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True,
                         lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
_TEMPLATES.filters.update(comment=_comment, quoted=_quoted, names=names_of, repr=repr, count=count)
_TEMPLATES.globals.update(isabs=os.path.isabs)
