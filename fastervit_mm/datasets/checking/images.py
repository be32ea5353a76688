"""Images that two splits share."""
import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Tuple

from .problems import Problem, Run, one_by_one


def images_in_both(first: Mapping[str, Path], second: Mapping[str, Path], run: Run = one_by_one
                   ) -> Iterator[Problem]:
    """Images of two splits with the same bytes, whatever they are called.

    Args:
        first, second: Files by the names that messages have, such as
            :attr:`CheckedAnnotations.files`.
        run: How files are read; by default one by one.
    """
    by_bytes: Tuple[Dict[int, List[str]], ...] = (defaultdict(list), defaultdict(list))
    for found, split in zip(by_bytes, (first, second)):
        for name, path in split.items():
            found[os.path.getsize(path)].append(name)
    # Only files of the same length can be equal; reading those is enough.
    names = [[name for size in found if size in other for name in found[size]]
             for found, other in (by_bytes, by_bytes[::-1])]
    hashes = [dict(zip(wanted, run(_digest, [(str(split[name]),) for name in wanted],
                                   'images in both splits')))
              for wanted, split in zip(names, (first, second))]
    known = {digest: name for name, digest in hashes[0].items()}
    for name, digest in hashes[1].items():
        if digest in known:
            yield 'image in both splits', f'{first[known[digest]]} = {second[name]}'


def _digest(path: str) -> bytes:
    return hashlib.sha1(Path(path).read_bytes(), usedforsecurity=False).digest()
