"""What belongs to what: images and the files that describe them, by their paths."""
from collections import defaultdict
from itertools import groupby
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from .folders import DataError, parts_of, split_of


def pair(files: Iterable[Path], images: Iterable[Path], root: Path,
         given: Optional[Mapping[Path, str]] = None) -> Dict[Path, Path]:
    """Pair files with images of the same stem, one to one.

    Of several images, that is taken whose folders are most like those of the file: the outer ones
    are the same (``train/annotations/0.xml`` and ``train/images/0.jpg``) or the inner ones are
    (``annotations/a/0.xml`` and ``images/a/0.jpg``). Different splits never pair.

    Args:
        files: One for each image, below ``root``.
        images: Images below ``root``.
        root: The folder from which on names count.
        given: Paths of images that files name, which decide where folders do not.

    Returns:
        The image of each file that has one.

    Raises:
        DataError: For a file or an image that could belong to several.
    """
    given = given or {}
    at = defaultdict(list)
    for image in images:
        for stem in {image.stem, image.name}:  # also 0.jpg.xml
            at[image.parent, stem].append(image)
    folders = {folder for folder, _ in at}
    ranked: Dict[Path, List[Tuple[tuple, List[Path]]]] = {}
    claims: Dict[Path, List[Tuple[tuple, Path]]] = defaultdict(list)
    for file in files:
        if file.parent not in ranked:
            ranked[file.parent] = _ranked(file.parent, folders, root)
        stems = dict.fromkeys((file.stem, Path(given.get(file, '')).stem))
        hits = ((score, [image for place in places for image in at.get((place, stem), ())])
                for stem in stems if stem for score, places in ranked[file.parent])
        score, found = next(filter(lambda hit: hit[1], hits), (None, []))
        if len(found) > 1:
            parts = parts_of(given.get(file, ''))
            found = _most(found, lambda image, ends=parts[::-1]: _common(ends, image.parts[::-1]))
        if len(found) > 1:
            raise DataError(f'{file}: may belong to {_both(found, root)}, which are equally near. '
                            'Leave one of them out of --data')
        if found:
            claims[found[0]].append((score, file))
    paired = {}
    for image, claim in claims.items():
        best = max(score for score, _ in claim)
        nearest = [file for score, file in claim if score == best]
        if len(nearest) > 1:
            raise DataError(f'{image}: may belong to {_both(nearest, root)}, which are equally '
                            'near. Leave one of them out of --data')
        paired[nearest[0]] = image
    return paired


def locate(names: Sequence[str], images: Iterable[Path], ann_file: Path, split: Optional[str],
           root: Path) -> List[Optional[Path]]:
    """The images that an annotation file names, wherever the names come from.

    A path that is right as it is, from the annotation file or from ``root``, is taken first; else
    the image whose path ends most like the name, of the split's own folder, nearest to the file.

    Args:
        names: Such as ``0.jpg``, ``a/0.jpg``, ``C:\\data\\a\\0.jpg`` or a URL.
        images: All images below ``root``.
        ann_file: The file that has the names.
        split: The split that it is for, if known.
        root: The data's folder.

    Returns:
        The path of each; None for one that is not there.

    Raises:
        DataError: For a name that fits several images equally well.
    """
    images = set(images)
    by_end = defaultdict(list)
    for image in images:
        by_end[image.name].append(image)
        by_end[image.parts[-2:]].append(image)
    splits = {folder: split_of(folder, root) for folder in {image.parent for image in images}}
    found: List[Tuple[int, Optional[Path]]] = []
    for name in names:
        parts = tuple(parts_of(name)) or ('',)
        literal = [path for place in (ann_file.parent, root)
                   if (path := place.joinpath(*parts)) in images]
        best = literal[:1] or by_end.get(parts[-2:]) or by_end.get(parts[-1], [])
        for liking in (lambda image, ends=parts[::-1]: _common(ends, image.parts[::-1]),
                       lambda image: splits[image.parent] == split,
                       lambda image: _common(ann_file.parts, image.parts)):
            best = _most(best, liking) if len(best) > 1 else best
        if len(best) > 1:
            raise DataError(f'{ann_file}: {name!r} may be {_both(best, root)}. Leave one of them '
                            'out of --data')
        found.append((_common(parts[::-1], best[0].parts[::-1]), best[0]) if best else (0, None))
    # An image that is missing must not be replaced by one of another split or folder.
    most = max((length for length, _ in found), default=0)
    own = any(image and splits[image.parent] == split for _, image in found)
    kept = []
    for name, (length, image) in zip(names, found):
        whole = len(parts_of(name))
        other = image and split and splits[image.parent] not in (split, None)
        kept.append(None if length < min(most, whole) or (other and (own or length < whole))
                    else image)
    return kept


def common_parts(paths: Iterable[Path]) -> Path:
    """The innermost folder that all folders have in common."""
    first, *others = {path.parts for path in paths}
    return Path(*first[:min((_common(first, other) for other in others), default=len(first))])


def _ranked(folder: Path, others: Iterable[Path], root: Path) -> List[Tuple[tuple, List[Path]]]:
    """Folders that are not of another split, from the most alike on, with how alike they are."""
    own, split, alike = folder.relative_to(root).parts, split_of(folder, root), {}
    for other in others:
        if split is None or split_of(other, root) in (split, None):
            parts = other.relative_to(root).parts
            outer = _common(own, parts)
            inner = _common(own[outer:][::-1], parts[outer:][::-1])
            alike[other] = outer + inner, -len(parts)
    order = sorted(alike, key=alike.get, reverse=True)
    return [(score, list(places)) for score, places in groupby(order, key=alike.get)]


def _most(items: Sequence[Path], liking) -> List[Path]:
    best = max(map(liking, items))
    return [item for item in items if liking(item) == best]


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(first, second)) if a != b),
                min(len(first), len(second)))


def _both(paths: Iterable[Path], root: Path) -> str:
    return ' or '.join(str(path.relative_to(root)) for path in sorted(paths)[:3])
