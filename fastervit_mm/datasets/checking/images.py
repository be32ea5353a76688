"""Images shared by splits."""
import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Tuple

from .problems import Problem, Run, one_by_one


def images_in_both(splits: Iterable[Mapping[str, Path]], run: Run = one_by_one
                   ) -> Iterator[Problem]:
    """Find images with the same bytes in two splits.

    Args:
        splits: Files of each split, such as :attr:`CheckedAnnotations.files`.
        run: How files are read; by default one by one.
    """
    by_size: Dict[int, List[Tuple[int, Path]]] = defaultdict(list)
    for number, split in enumerate(splits):
        for path in split.values():
            by_size[os.path.getsize(path)].append((number, path))
    # Only files of equal length can be equal, so only those are read.
    wanted = [one for found in by_size.values() if len(dict(found)) > 1 for one in found]
    known: Dict[Tuple[int, bytes], Path] = {}
    for (number, path), digest in zip(wanted, run(
            _digest, [(path,) for _, path in wanted], 'images in both splits')):
        yield from (('image in both splits', f'{known[other, digest]} = {path}')
                    for other in range(number) if (other, digest) in known)
        known[number, digest] = path


def _digest(path: Path) -> bytes:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).digest()
