"""Images that several splits share."""
import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Sequence, Tuple

from .problems import Problem, Run, one_by_one


def images_in_both(splits: Sequence[Mapping[str, Path]], run: Run = one_by_one
                   ) -> Iterator[Problem]:
    """Images of two splits with the same bytes, whatever they are called.

    Args:
        splits: Files of each, by name, such as :attr:`CheckedAnnotations.files`.
        run: How files are read; by default one by one.
    """
    by_size: Dict[int, List[Tuple[int, Path]]] = defaultdict(list)
    for i, split in enumerate(splits):
        for path in split.values():
            by_size[os.path.getsize(path)].append((i, path))
    # Only files of the same length can be equal; reading those is enough.
    alike = [one for found in by_size.values() if len({i for i, _ in found}) > 1 for one in found]
    known: Dict[bytes, Dict[int, Path]] = defaultdict(dict)
    for (i, path), digest in zip(alike, run(_digest, [(str(path),) for _, path in alike],
                                            'images in both splits')):
        for j, other in known[digest].items():
            if j != i:
                yield 'image in both splits', f'{other} = {path}'
        known[digest].setdefault(i, path)


def _digest(path: str) -> bytes:
    return hashlib.sha1(Path(path).read_bytes(), usedforsecurity=False).digest()
