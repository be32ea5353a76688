"""What is in a folder of somebody's own data: images by name, and the split that a name means."""
import os
import re
import zlib
from pathlib import Path, PureWindowsPath
from typing import Dict, Iterable, List, Optional, Sequence

SPLITS = ('train', 'val', 'test')
# trainset, valImages, test_data, train2017, trainannot (CamVid's); but not trains or valves.
_WORD = re.compile('(?:(?P<train>train(?:ing)?|trainval)|(?P<val>val|valid|validation|dev)'
                   '|(?P<test>test|testing))'
                   '(?:s?sets?|data|splits?|images?|imgs?|labels?|masks?|annot|annotations?|anns?)?')


class DataError(ValueError):
    """Data in which nothing to train on was found; the message says what was looked for."""


def is_finite(value: object) -> bool:
    """Whether a value of a JSON file is a number that can be computed with."""
    return isinstance(value, (int, float)) and -1e15 < value < 1e15


def text_of(path: Path) -> str:
    """A file's text, without the mark that Windows programs put before it.

    Raises:
        DataError: For a file that is not text in UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not a text in UTF-8 ({error})') from None


def files_in(folder: Path, suffixes: Sequence[str]) -> List[Path]:
    """All files below a folder with one of the suffixes, sorted, each folder once.

    Hidden folders are left out, as are results (``work_dirs``) and what ``new_config.py`` wrote
    beside a config (``mine_data`` beside ``mine.py``); of links to folders that were seen, none is
    followed.
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
    """The split that a path names, such as ``annotations/instances_train2017.json``.

    The file's own name counts before those of the folders, and an inner folder before an outer one.

    Args:
        path: A file or folder.
        root: The folder from which on names count.

    Returns:
        ``'train'``, ``'val'`` or ``'test'``; None if no part of the path names one.
    """
    for part in reversed(path.relative_to(root).parts):
        words = re.findall('[A-Z]?[a-z]+|[A-Z]+(?![a-z])', part)  # ImagesTrain are two
        splits = {found.lastgroup for word in words if (found := _WORD.fullmatch(word.lower()))}
        if len(splits) == 1:
            return splits.pop()
    return None


def parts_of(name: str) -> Sequence[str]:
    """The parts of a path that a file gives, as Windows or Unix write it.

    Drive, root, ``.`` and leading ``..`` are left out: they are of another machine or folder.
    """
    parts = PureWindowsPath(name.replace('/', '\\')).parts
    return [p for p in parts if p not in ('.', '..') and not p.endswith(('\\', ':'))]


def share_out(names: Iterable[str], into: Dict[str, float]) -> Dict[str, List[str]]:
    """Divide names among splits, the same way on every machine and each time.

    Args:
        names: Such as file names; each is put in its place by its checksum, in order, so that the
            shares are exact.
        into: The share of each split; together 1.

    Returns:
        The names of each split, in their given order.
    """
    names = list(names)
    order = sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    place, end, total = {}, 0, 0.
    for split, share in into.items():
        begin, total = end, total + share
        end = round(total * len(order))
        place.update((name, split) for name in order[begin:end])
    return {split: [n for n in names if place[n] == split] for split in into}
