"""Pairing images with files that describe them."""
import os
from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple
from unicodedata import normalize
from urllib.parse import unquote

from .folders import DataError, parts_of, split_of


def pair(files: Iterable[Path], images: Iterable[Path], root: Path,
         given: Optional[Mapping[Path, str]] = None) -> Dict[Path, Path]:
    """Pair files and images of equal stems, one to one.

    Of several images, the one whose folders are most like the file's is taken: they share outer
    folders (``train/annotations/0.xml`` and ``train/images/0.jpg``) or inner ones
    (``annotations/a/0.xml`` and ``images/a/0.jpg``). Different splits never pair.

    Args:
        files: Files below ``root``, one for each image.
        images: Images below ``root``.
        root: Folder below which names count.
        given: Paths of images named in files, which decide if folders do not.

    Returns:
        The images by file; a file may have none.

    Raises:
        DataError: For a file or an image that could belong to several.
    """
    given = given or {}
    at = defaultdict(list)
    for image in images:
        for stem in {image.stem, image.name}:  # also 0.jpg.xml
            at[image.parent, normalize('NFC', stem)].append(image)
    folders = {folder for folder, _ in at}
    ranked: Dict[Path, List[Tuple[tuple, List[Path]]]] = {}
    hits = []
    for file in files:
        if file.parent not in ranked:
            ranked[file.parent] = _ranked(file.parent, folders, root)
        stems = [normalize('NFC', path.stem) for path in (file, Path(given.get(file, '')))]
        hits.append(next(((score, file, found) for stem in stems
                          for score, places in ranked[file.parent]
                          if (found := [i for place in places for i in at.get((place, stem), ())])),
                         ((), file, [])))
    paired: Dict[Path, Path] = {}
    # Most alike first: a nearer file takes its image from the others.
    hits.sort(key=lambda hit: hit[0], reverse=True)
    for _, group in groupby(hits, key=lambda hit: hit[0]):
        taken, owners = set(paired.values()), {}
        for _, file, found in group:
            found = [image for image in found if image not in taken]
            if len(found) > 1:
                parts = parts_of(given.get(file, ''))[::-1]
                found = _most(found, lambda image, end=parts: _common(end, image.parts[::-1]))
            if len(found) > 1:
                raise DataError(f'{file}: may belong to {_both(found, root)}, which are equally '
                                'near. Leave one of them out of --data')
            if found and owners.setdefault(found[0], file) != file:
                raise DataError(f'{found[0]}: may belong to {_both([file, owners[found[0]]], root)}'
                                ', which are equally near. Leave one of them out of --data')
            if found:
                paired[file] = found[0]
    return paired


def locate(names: Sequence[str], images: Iterable[Path], ann_file: Path, split: Optional[str],
           root: Path) -> List[Optional[Path]]:
    """Find the images that an annotation file names.

    Preferred is a path relative to the annotation file or ``root``; else, in the split's own
    folder, the image whose path ends most like the name (:func:`loosely`), nearest to the file.

    Args:
        names: Such as ``0.jpg``, ``a/0.jpg``, ``C:\\data\\a\\0.jpg``, ``a%200.jpg`` or a URL.
        images: All images below ``root``.
        ann_file: The file with the names.
        split: Its split, if known.
        root: The data's folder.

    Returns:
        The path of each; None for a missing image.

    Raises:
        DataError: For a name that fits several images equally well.
    """
    images = set(images)
    ends = {image: loosely(image.parts) for image in images}
    by_end = defaultdict(list)
    for image, end in ends.items():
        for last in {end[:1], end[:2]}:
            by_end[last].append(image)
    splits = {folder: split_of(folder, root) for folder in {image.parent for image in images}}
    found: List[Tuple[str, int, Optional[Path]]] = []
    for name in names:
        literal = [path for place in (ann_file.parent, root)
                   if (path := place.joinpath(*parts_of(name))) in images]
        own = loosely(named_parts(name))
        best = literal[:1] or by_end.get(own[:2]) or by_end.get(own[:1], [])
        for liking in (lambda image, own=own: _common(own, ends[image]),
                       lambda image, name=name: name.endswith(image.name),
                       lambda image: splits[image.parent] == split,
                       lambda image: _common(ann_file.parts, image.parts)):
            best = _most(best, liking) if len(best) > 1 else best
        if len(best) > 1:
            raise DataError(f'{ann_file}: {name!r} may be {_both(best, root)}. Leave one of them '
                            'out of --data')
        found += [(name, _common(own, ends[image]), image) for image in best] or [(name, 0, None)]
    # A missing image must not be replaced by one of another split or folder,
    longest = max((length for _, length, _ in found), default=0)
    some = any(image and splits[image.parent] == split for *_, image in found)
    kept = []
    for name, length, image in found:
        parts = named_parts(name)
        whole = len(parts)
        other = image and split and splits[image.parent] not in (split, None) and not split_of(
            Path(*parts[whole - length:-1]), Path())  # unless the name itself says so
        kept.append(None if length < min(longest, whole) or (other and (some or length < whole))
                    else image)
    return kept


def loosely(parts: Sequence[str]) -> Tuple[str, ...]:
    """Reversed parts of a path, without differences between systems.

    These are capitals, URLs' percent-encoding, and composed or decomposed accents.
    """
    return tuple(normalize('NFC', unquote(part)).lower() for part in reversed(parts))


def named_parts(name: str) -> Sequence[str]:
    """Parts of a path or URL, Label Studio's included."""
    if '://' in name or '?d=' in name:
        name = unquote(name.partition('?d=')[2] or name.partition('?')[0])
    return parts_of(name)


def _ranked(folder: Path, others: Iterable[Path], root: Path) -> List[Tuple[tuple, List[Path]]]:
    """Folders of the same or no split, by similarity."""
    own, split, alike = folder.relative_to(root).parts, split_of(folder, root), {}
    for other in others:
        if split is None or split_of(other, root) in (split, None):
            parts = other.relative_to(root).parts
            outer = _common(own, parts)
            inner = _common(own[outer:][::-1], parts[outer:][::-1])
            alike[other] = outer + inner, -len(parts)
    order = sorted(alike, key=alike.get, reverse=True)
    return [(score, list(places)) for score, places in groupby(order, key=alike.get)]


def _most(items: Sequence[Path], liking: Callable) -> List[Path]:
    best = max(map(liking, items))
    return [item for item in items if liking(item) == best]


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    return len(os.path.commonprefix([tuple(first), tuple(second)]))


def _both(paths: Iterable[Path], root: Path) -> str:
    return ' or '.join(str(path.relative_to(root)) for path in sorted(paths)[:3])
