"""Reading images as the pipelines read them, but to their end."""
import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Tuple, Union

from PIL import Image

from .problems import Problem, Run, one_by_one

_ORIENTATION = 0x0112  # EXIF's number for it


class ReadImage(NamedTuple):
    """An image that was read.

    Attributes:
        size: (width, height) in pixels, as mmcv reads it; a str, the reason, if it cannot be read.
        orientation: Of its EXIF tag; 1 for none, from 5 on width and height are exchanged.
    """
    size: Union[Tuple[int, int], str]
    orientation: int = 1


def image_size(path: str) -> Union[Tuple[int, int], str]:
    """(width, height) of an image that can be read completely; else the reason, a str.

    As in mmcv, an EXIF tag turns the image.
    """
    return read_image(path).size


def read_image(path: str) -> ReadImage:
    """Read an image completely; OpenCV would fill what a truncated JPEG lacks with grey."""
    try:
        with Image.open(path) as image:
            image.load()
            orientation = _orientation(image)
            return ReadImage(image.size[::-1] if orientation >= 5 else image.size, orientation)
    except Exception as error:  # noqa: BLE001  a decoder may raise anything for a damaged file
        return ReadImage(f'{type(error).__name__}: {error}')


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  damaged EXIF is ignored by OpenCV too
        return 1
    return found if found in range(1, 9) else 1


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
