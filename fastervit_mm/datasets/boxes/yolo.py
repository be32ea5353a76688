"""YOLO labels: a .txt for each image."""
import json
import os
from itertools import chain
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple
from unicodedata import normalize

import yaml

from ..checking.problems import Run
from ..folders import (
    SPLITS,
    DataError,
    files_in,
    is_finite,
    lines_of,
    parts_of,
    split_of,
    text_of,
)
from ..images import IMAGES
from ..pairing import locate, pair
from .data import Box, BoxData, as_coco, sizes_of

_MOST_CLASSES = 10_000  # limit for classes without names
_NO_LABELS = ('classes', 'labels', 'README')  # names of other text files
Line = Tuple[str, str, List[float]]  # place for messages, class, numbers


class _Settings(NamedTuple):
    """Content of a data.yaml, or of darknet's files.

    Attributes:
        names: Class names by number, for labels below each folder; the innermost folder counts.
        splits: Folders, images or lists of images, by split.
        keypoints: Their number, and how many numbers each has; None if not given.
        root: The folder of the splits.
        path: The file.
    """
    names: Dict[Path, Dict[int, str]]
    splits: Dict[str, List[str]]
    keypoints: Optional[Tuple[int, int]]
    root: str
    path: Path


def find_yolo(folder: Path, images: Sequence[Path], ann_files: Sequence[Path], run: Run
              ) -> Optional[BoxData]:
    """Find YOLO labels below a folder; None without any.

    Names and splits come from ``data.yaml`` (for each split a folder, a list of images or several
    of these), or from darknet's ``obj.names`` and ``train.txt``; else folders name the splits, and
    the nearest ``classes.txt`` above the labels the classes. An image without a label file, among
    others with one, has no object.

    Args:
        folder: The data's folder.
        images: All images in it.
        ann_files: The ``data.yaml`` to take; empty to search.
        run: How images are read.

    Raises:
        DataError: For labels that cannot be read, or several settings that differ.
    """
    labels = _labels(folder, images)
    if not labels:
        return None
    data = BoxData('YOLO', {})
    settings = _settings(folder, ann_files, set(labels.values()))
    beside = {image.parent for image in labels}
    there = [image for image in images if image in labels or image.parent in beside]
    splits = _splits(there, folder, settings, data.notes)
    used = list(dict.fromkeys(chain(*splits.values())))
    sizes = sizes_of(used, run)
    numbered = settings.names or {folder: {i: f'class_{i}' for i in range(_MOST_CLASSES)}}
    lines = {image: list(_lines(labels[image], numbered, folder)) for image in used
             if image in labels}
    every = list(chain(*lines.values()))
    keypoints = _keypoints(every, settings, data.notes)
    names = [name for of_folder in numbered.values() for name in of_folder.values()]
    if not settings.names:
        of_objects = {name for _, name, _ in every}
        names = [name for name in names if name in of_objects]
        data.notes.append('no data.yaml or classes.txt names the classes; they are called class_0, '
                          'class_1, …: rename them in the config and in the annotation files')
    elif any(len(set(of_folder.values())) < len(of_folder) for of_folder in numbered.values()):
        data.notes.append('several classes have one name and become one class')
    if len(lines) < len(used):
        data.notes.append(f'{len(used) - len(lines)} images have no .txt and count as images '
                          'without objects')
    for split, paths in splits.items():
        data.splits[split] = as_coco(
            [(image, [_box(line, sizes[image], keypoints) for line in lines.get(image, ())])
             for image in paths], names, sizes, folder)
    return data


def _labels(folder: Path, images: Sequence[Path]) -> Dict[Path, Path]:
    """Label files by image, by Ultralytics' rule or paths."""
    # File systems store accents composed or decomposed.
    files = {normalize('NFC', str(path)): path for path in files_in(folder, ['.txt'])
             if path.stem not in _NO_LABELS}
    labels = {}
    for image in images:
        parts = list(image.relative_to(folder).parts)
        if 'images' in parts[:-1]:
            parts[len(parts) - 2 - parts[-2::-1].index('images')] = 'labels'
        for place in (image, folder.joinpath(*parts)):
            if label := files.get(normalize('NFC', str(place.with_suffix('.txt')))):
                labels[image] = label
    # The rule finds nothing for folders such as img/ and ann/.
    return labels or {image: path for path, image in pair(files.values(), images, folder).items()}


def _settings(folder: Path, ann_files: Sequence[Path], labels: Iterable[Path]) -> _Settings:
    """Settings of a data.yaml, or else of darknet's files."""
    found: List[_Settings] = []
    for path in ann_files or files_in(folder, ['.yaml', '.yml']):
        try:  # every value as text: a class may be called yes, or 1
            content = yaml.BaseLoader(text_of(path)).get_single_data()
        except (yaml.YAMLError, RecursionError):
            content = None
        if isinstance(content, dict) and content.get('names'):
            found.append(_of_yaml(path, content, folder))
        elif ann_files:
            raise DataError(f'ann={str(path)!r}: not a data.yaml with names')
    different = [one.path for one in found if one[:-1] != found[0][:-1]]
    if different:
        raise DataError(f'{found[0].path} and {different[0]}: differ in names or '
                        f'splits. Name the one to take: --ann {found[0].path}')
    return found[0] if found else _of_darknet(folder, labels)


def _of_darknet(folder: Path, labels: Iterable[Path]) -> _Settings:
    """Settings of ``obj.names``, ``classes.txt`` and lists such as ``train.txt``."""
    splits: Dict[str, List[str]] = {}
    for path in sorted(set(files_in(folder, ['.txt'])).difference(labels)):
        split = split_of(path, folder)
        if split and (entries := lines_of(path)) and all(
                entry.lower().endswith(IMAGES) for entry in entries):
            splits.setdefault(split, []).append(path.relative_to(folder).as_posix())
            if len(splits[split]) > 1:
                raise DataError(f'{folder}: {" and ".join(splits[split])} list images of one '
                                'split. Write the right one into a data.yaml, such as train: '
                                f'{splits[split][0]}')
    return _Settings(_class_lists(folder, labels), splits, None, '', folder / 'data.yaml')


def _class_lists(folder: Path, labels: Iterable[Path]) -> Dict[Path, Dict[int, str]]:
    """Class names for labels below each folder with a list."""
    found = {path: names for path in files_in(folder, ['classes.txt', '.names', 'notes.json'])
             if (names := _names_in(path))}
    places = {path.parent for path in found}
    nearest = {next((at for at in label.parents if at in places), None) for label in labels}
    lists: Dict[Path, Path] = {}
    for path, names in found.items():
        for place in nearest.intersection((path.parent, None)):
            other = lists.setdefault(place or folder, path)
            if found[other] != names:
                raise DataError(
                    f'{other} has {", ".join(found[other])}, and {path} has {", ".join(names)}: '
                    'different orders of the classes. Remove the one by which labels are not '
                    'numbered')
    return {place: dict(enumerate(found[path])) for place, path in lists.items()}


def _names_in(path: Path) -> List[str]:
    """Class names in a list or in Label Studio's ``notes.json``."""
    if path.suffix != '.json':
        return lines_of(path)
    try:
        categories = json.loads(text_of(path))['categories']
        return [c['name'] for c in sorted(categories, key=lambda c: int(c['id']))]
    except (KeyError, TypeError, ValueError):
        return []


def _of_yaml(path: Path, content: dict, folder: Path) -> _Settings:
    """Settings of a data.yaml."""
    names = content['names']
    if isinstance(names, str):  # one class, or a file with names
        file = path.parent / names
        names = lines_of(file) if os.path.isfile(file) else [names]
    try:
        names = dict(enumerate(names)) if isinstance(names, list) else {
            int(number): name for number, name in names.items()}
        shape = [int(n) for n in content['kpt_shape']] if 'kpt_shape' in content else None
        if not all(isinstance(name, str) for name in names.values()) or (
                shape and (len(shape) != 2 or shape[1] not in (2, 3))):
            raise ValueError
    except (ValueError, TypeError):
        raise DataError(f'{path}: names are a list, or a dict from 0, 1, … to names, and kpt_shape '
                        'is a number of keypoints and 2 or 3 numbers of each') from None
    splits = {}
    for split in SPLITS:
        entries = content.get(split) or []
        entries = [entries] if isinstance(entries, str) else entries
        if entries and not all(isinstance(entry, str) for entry in entries):
            raise DataError(f'{path}: {split} is a folder, a list of images, or several of these')
        if entries:
            splits[split] = list(entries)
    root = content.get('path')
    return _Settings({folder: dict(sorted(names.items()))}, splits, shape and tuple(shape),
                     root if isinstance(root, str) else '', path)


def _splits(images: Sequence[Path], folder: Path, settings: _Settings, notes: List[str]
            ) -> Dict[str, List[Path]]:
    """Images of each split, by settings or else by folders."""
    listed: Dict[str, List[Path]] = {}
    for split, entries in settings.splits.items():
        chosen = set()
        for entry in entries:
            found = _images_of(entry, split, images, folder, settings)
            chosen |= found - {None}
            if not found or None in found:
                notes.append(f'{"some" if found - {None} else "all"} images of {split}: {entry} '
                             'are not here, or without labels beside them')
        if chosen and chosen in map(set, listed.values()):
            notes.append(f'{split} names the same images as another split and was left out')
        elif chosen:
            listed[split] = [image for image in images if image in chosen]
    if listed and 'train' not in listed and 'train' in settings.splits:
        raise DataError(f'{settings.path}: train={settings.splits["train"]}: none of its images is '
                        f'below {folder}')
    taken, left = set(chain(*listed.values())), []
    for image in images:
        split = split_of(image.parent, folder)
        if image not in taken:  # settings list a split completely
            (left if split is None or split in settings.splits else
             listed.setdefault(split, [])).append(image)
    if 'train' not in listed and left:
        listed['train'], left = left, []
    if left:
        notes.append(f'{len(left)} images are in no split and were left out, such as '
                     f'{left[0].relative_to(folder)}')
    return listed


def _images_of(entry: str, split: str, images: Sequence[Path], folder: Path, settings: _Settings
               ) -> Set[Optional[Path]]:
    """Images that an entry names, None for an absent one."""
    beside = settings.path.parent
    parts = parts_of(entry)
    for first in range(max(len(parts), 1)):
        if first and split_of(Path(*parts[:first]), Path()):
            break  # another folder's name must not stand for that of a split
        for base in (beside.joinpath(*parts_of(settings.root)), beside, folder):
            place = base.joinpath(*parts[first:])
            if place.suffix.lower() == '.txt' and os.path.isfile(place):
                return set(locate(lines_of(place), images, place, split, folder))
            found = {image for image in images if place == image or place in image.parents
                     } if os.path.exists(place) else set()
            if found:
                return found
    return set()


def _lines(path: Path, numbered: Dict[Path, Dict[int, str]], folder: Path) -> Iterator[Line]:
    names = next(numbered[place] for place in path.parents if place in numbered)
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            kind, *values = map(float, line.split())
            if len(values) < 4 or not all(map(is_finite, values)):
                raise ValueError
            name = names[kind]  # 1.0 finds 1
        except (ValueError, KeyError):
            which = (f'from 0 to {len(names) - 1}' if max(names) < len(names) else
                     f'one of {", ".join(map(str, names))}')
            raise DataError(
                f'{path}: line {number}: {line!r}; expected a class {which}, then x, y, width and '
                'height, or a polygon, all relative to the image') from None
        yield f'{path.relative_to(folder)}: line {number}', name, values


def _keypoints(lines: Sequence[Line], settings: _Settings, notes: List[str]) -> bool:
    """Whether labels are poses: a box and keypoints."""
    sixth = sum(len(values) == 5 for *_, values in lines)
    if sixth:
        notes.append(f'{sixth} labels have a sixth number (a confidence or a track), which is left '
                     'out')
    more = [line for line in lines if len(line[2]) > 5]
    points, each = settings.keypoints or (0, 0)
    poses = points > 0 or settings.keypoints is None and bool(more) and (
        len({len(values) for *_, values in more}) == 1
        and (all(map(_has_visibilities, more)) or all(map(_surrounds_points, more))))
    for place, _, values in more:
        if len(values) != 4 + points * each if points else len(values) % 2 and not poses:
            raise DataError(f'{place}: {len(values) + 1} numbers; expected a class, then ' + (
                f'{4 + points * each} numbers, by kpt_shape: [{points}, {each}]' if points else
                'x, y, width and height, or a polygon, or a box and keypoints with kpt_shape in '
                'data.yaml'))
    if poses and more:
        notes.append('the labels are poses, ' + (
            'by kpt_shape' if points else 'whose first four numbers are a box around points (for '
            'polygons, write kpt_shape: [0, 2] into data.yaml)')
            + ': boxes are taken, keypoints left out')
    return poses


def _has_visibilities(line: Line) -> bool:
    values = line[2]
    return (len(values) - 4) % 3 == 0 and all(v in (0, 1, 2) for v in values[6::3])


def _surrounds_points(line: Line) -> bool:
    """Whether four numbers are a box around the other points."""
    x, y, width, height, *points = line[2]
    if len(points) % 2 or len(points) == 4:  # four points are corners of a rotated box
        return False
    return all(half <= centre + 0.01 and centre + half <= 1.01 and all(
        p == 0 or abs(p - centre) <= half + 0.01 for p in values) for centre, half, values in (
        (x, width / 2, points[::2]), (y, height / 2, points[1::2])))


def _box(line: Line, size: Tuple[int, int], keypoints: bool) -> Box:
    place, name, values = line
    width, height = size
    if len(values) > 5 and not keypoints:
        xs, ys = [v * width for v in values[::2]], [v * height for v in values[1::2]]
        return Box(name, (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)), place,
                   [round(v, 2) for pair in zip(xs, ys) for v in pair])
    x, y, w, h = (v * side for v, side in zip(values, (width, height, width, height)))
    return Box(name, (x - w / 2, y - h / 2, w, h), place)
