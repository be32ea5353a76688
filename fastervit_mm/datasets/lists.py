"""Splits by lists of files, such as VOC's ``ImageSets``."""
import os
import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from .folders import DataError, files_in, lines_of, parts_of
from .images import IMAGES

# The later split counts, so that no test image is trained on.
_SPLIT_OF = dict(trainval='train', train='train', val='val', test='test')
_Keys = Dict[Tuple[str, ...], List[Path]]  # files by parts of their paths


def listed_splits(files: Mapping[Path, Sequence[Path]], folder: Path, task: str,
                  endings: Iterable[str] = ()) -> Dict[Path, Optional[str]]:
    """Splits of files by lists such as ``ImageSets/Main/train.txt``.

    A list is for the files in the innermost folder above it that has any. An entry is the end of a
    path, with or without extension, or a folder.

    Args:
        files: Files, each with the paths that lists may name.
        folder: Folder of all of them, and of the lists.
        task: Folder of lists to prefer if several differ, such as ``'Main'``.
        endings: Endings of names, besides extensions.

    Returns:
        The split of each file that has lists; None if they do not name it.

    Raises:
        DataError: For differing lists for the same files, unless one is in a folder of the task.
    """
    keys: Tuple[_Keys, _Keys] = defaultdict(list), defaultdict(list)  # of files, of folders
    for file in files:
        for path in files[file]:
            *parts, name = Path(os.path.relpath(path, folder)).parts
            stems = {name, path.stem, *(name.removesuffix(end) for end in endings)}
            for i in range(len(parts) + 1):
                for stem in stems:
                    keys[0][(*parts[i:], stem)].append(file)
            for i, j in combinations(range(len(parts) + 1), 2):
                keys[1][tuple(parts[i:j])].append(file)
    above: Dict[Path, Set[Path]] = defaultdict(set)
    for file in files:
        for place in file.parents:
            above[place].add(file)
    lists: Dict[Path, Dict[Path, Dict[Path, str]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted(files_in(folder, ['.txt']), key=lambda path: [*_SPLIT_OF].index(path.stem)
                       if path.stem in _SPLIT_OF else -1):
        if path.stem in _SPLIT_OF:
            place = next(place for place in path.parents if place in above or place == folder)
            named = {file for line in lines_of(path) for file in _named(line, keys)}
            if named & above[place]:
                lists[place][path.parent].update(
                    dict.fromkeys(named & above[place], _SPLIT_OF[path.stem]))
    splits: Dict[Path, Optional[str]] = {}
    for place, found in sorted(lists.items()):  # inner folders last
        chosen = [at for at in found if at.name == task] or list(found)
        for other in chosen[1:]:
            if found[other] != found[chosen[0]]:
                raise DataError(f'data={str(folder)!r}: the lists in {chosen[0]} and in {other} '
                                'differ. Leave one of them out of the folder')
        splits.update({file: found[chosen[0]].get(file) for file in above[place]})
    return splits


def _named(line: str, keys: Tuple[_Keys, _Keys]) -> List[Path]:
    """Files that a line names.

    After the name, some lines have 1 or -1, others the annotation's path.
    """
    for entry in (line, re.sub(r'\s+\S+$', '', line)):
        *parts, name = parts_of(entry) or ['']
        if name.lower().endswith((*IMAGES, '.xml')):
            known = keys[0].get((*parts, name)) or keys[0].get((*parts, Path(name).stem))
        else:
            known = keys[0].get((*parts, name)) or keys[1].get((*parts, name))
        if known:
            return known
    return []
