"""Files in a user's folder, and splits named by paths."""
import os
import re
import zlib
from pathlib import Path, PureWindowsPath
from typing import Iterable, List, Optional, Sequence, Set

SPLITS = ('train', 'val', 'test')
# trainset, valImages, test_data, train2017, trainannot (CamVid's); but not trains or valves.
_WORD = re.compile('(?:(?P<train>train(?:ing)?|trainval)|(?P<val>val|valid|validation|dev)'
                   '|(?P<test>test|testing))'
                   '(?:s?sets?|data|splits?|images?|imgs?|labels?|masks?|annot|annotations?|anns?)?')


class DataError(ValueError):
    """Data that cannot be trained on."""


def is_finite(value: object) -> bool:
    """Whether a JSON value is a usable number."""
    return isinstance(value, (int, float)) and -1e15 < value < 1e15


def text_of(path: Path) -> str:
    """Text of a file, without a byte order mark.

    Raises:
        DataError: For anything but UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not UTF-8 text ({error})') from None


def lines_of(path: Path) -> List[str]:
    """Stripped, non-empty lines of a text file."""
    return [line.strip() for line in text_of(path).split('\n') if line.strip()]


def few(items: Sequence, most: int = 6) -> str:
    """First items of a list, as text."""
    more = f' and {len(items) - most} more' if len(items) > most else ''
    return ', '.join(map(str, items[:most])) + more


def files_in(folder: Path, suffixes: Sequence[str]) -> List[Path]:
    """Sorted files below a folder with given suffixes.

    Left out are hidden files and folders, results (``work_dirs``) and what ``new_config.py`` wrote
    beside a config (``mine_data`` beside ``mine.py``). Links are followed, but each folder is read
    once.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            f for f in folders if not f.startswith('.') and f != 'work_dirs'
            and not (f.endswith('_data') and f'{f[:-len("_data")]}.py' in names))
        found += [Path(place, n) for n in sorted(names)
                  if n.lower().endswith(tuple(suffixes)) and not n.startswith('.')]
    return found


def split_of(path: Path, root: Path) -> Optional[str]:
    """Split named by a path such as ``annotations/instances_train2017.json``.

    The file's own name takes precedence over folders, an inner folder over an outer one.

    Args:
        path: A file or folder.
        root: Folder below which names count.

    Returns:
        ``'train'``, ``'val'`` or ``'test'``; None if no part of the path names one.
    """
    for part in reversed(path.relative_to(root).parts):
        words = re.findall('[A-Z]?[a-z]+|[A-Z]+(?![a-z])', part)  # ImagesTrain is two words
        splits = {found.lastgroup for word in words if (found := _WORD.fullmatch(word.lower()))}
        if len(splits) == 1:
            return splits.pop()
    return None


def parts_of(name: str) -> Sequence[str]:
    """Parts of a Windows or Unix path.

    Drive, root, ``.`` and ``..`` are left out: they belong to another machine or folder.
    """
    parts = PureWindowsPath(name.replace('/', '\\')).parts
    return [p for p in parts if p not in ('.', '..') and not p.endswith(('\\', ':'))]


def validation_share(names: Iterable[str], source: Path, notes: List[str]) -> Set[str]:
    """Choose a fifth of the training images for validation.

    Args:
        names: Names of the training images; their checksums decide.
        source: Origin of the images, for messages.
        notes: Extended by the choice.

    Raises:
        DataError: For fewer than two images.
    """
    order = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    if len(order) < 2:
        raise DataError(f'{source}: one training image, {"".join(order)}; training needs another '
                        'for validation')
    chosen = set(order[min(round(0.8 * len(order)), len(order) - 1):])
    notes.append(f'no validation split: {len(chosen)} of {len(order)} training images, chosen by '
                 'the checksum of their names, became one')
    return chosen
