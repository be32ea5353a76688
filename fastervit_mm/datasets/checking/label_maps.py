"""Checks of label maps, and of their images."""
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np
from PIL import Image

from ..folders import files_in
from ..images import IMAGES, read_image
from .problems import Problem, Run, one_by_one, short_name

_LIMIT = 255  # mmseg keeps a label in 8 bits


class Label(NamedTuple):
    """A label that occurs.

    Attributes:
        label: Its number.
        share: Its share of all pixels, 0 to 1.
        images: Number of label maps that have it.
    """
    label: int
    share: float
    images: int


class CheckedLabelMaps(NamedTuple):
    """What is wrong with a folder of label maps, and what is in it.

    Attributes:
        problems: (kind, where) of each problem and note; :func:`is_note` tells them apart.
        images: Number of images.
        maps: Number of label maps.
        labels: Every label that occurs, void too, in their order.
        files: The images by name.
    """
    problems: List[Problem]
    images: int
    maps: int
    labels: Tuple[Label, ...]
    files: Mapping[str, Path]


class _Meaning(NamedTuple):
    """What labels mean; the fields are arguments of :func:`check_label_maps`."""
    num_classes: Optional[int]
    void: int
    reduce_zero_label: bool

    @property
    def first(self) -> int:
        return int(self.reduce_zero_label)

    @property
    def last(self) -> int:
        return _LIMIT if self.num_classes is None else self.num_classes - 1 + self.first

    def is_void(self, label: int) -> bool:
        return label == self.void or 0 <= label < self.first

    def is_possible(self, label: int) -> bool:
        return label == self.void or 0 <= label <= self.last


class _LabelMap(NamedTuple):
    problems: List[Problem]
    pixels: Mapping[int, int] = {}  # of each label
    mode: str = ''
    format: Optional[str] = None


def check_label_maps(label_maps: Union[str, Path], images: Union[str, Path],
                     num_classes: Optional[int] = None, void: int = 255,
                     img_suffix: Optional[str] = None, map_suffix: str = '.png',
                     reduce_zero_label: bool = False, run: Run = one_by_one) -> CheckedLabelMaps:
    """Check label maps, and read every image and label map completely.

    A label map has the path of its image in its own folder, but for the suffix; both folders may
    have subfolders.

    Args:
        label_maps: Folder of label maps: images with one channel that has class numbers.
        images: Folder of their images.
        num_classes: Number of classes, void not counted. By default whatever occurs is in range.
        void: Label that is no class and that training and evaluation ignore; mmseg's is 255.
        img_suffix: How images' names end, such as ``_leftImg8bit.png``; default any image.
        map_suffix: How label maps' names end.
        reduce_zero_label: As in mmseg: 0 is void too, and classes are 1 to ``num_classes``.
        run: How files are read, such as by :func:`reading`; by default one by one.

    Raises:
        FileNotFoundError: If there is no such folder, or no image or label map in it.
        ValueError: For a number of classes or a label that is not possible.
    """
    if num_classes is not None and not 1 <= num_classes <= _LIMIT:
        raise ValueError(f'num_classes={num_classes}: give 1 to {_LIMIT}')
    if not 0 <= void <= _LIMIT:
        raise ValueError(f'void={void}: give 0 to {_LIMIT}')
    files, maps = _find(Path(images), Path(label_maps), img_suffix, map_suffix)
    name = short_name(label_maps, 2)
    problems = list(_wrong_names(files, maps, short_name(images, 2), name, map_suffix))
    # mmseg would take the label map for each image of the name.
    chosen = {stem: paths[0] for stem, paths in files.items()}
    read = dict(zip(chosen, run(read_image, [(str(path),) for path in chosen.values()],
                                f'{name}: images')))
    for stem, image in read.items():
        place = short_name(chosen[stem], 2)
        if isinstance(image.size, str):
            problems.append(('unreadable image', f'{place}: {image.size}'))
        elif image.orientation > 1:
            problems.append(('image turned by its EXIF tag', f'{place}: orientation '
                             f'{image.orientation}; its label map is not turned'))
    work = [(str(maps[stem][0]), None if isinstance(read[stem].size, str) else read[stem].size)
            for stem in chosen if stem in maps]
    found = {short_name(path, 3): label_map for (path, _), label_map in
             zip(work, run(_read_label_map, work, f'{name}: label maps'))}
    pixels: Counter = Counter()
    having: Counter = Counter()
    for label_map in found.values():
        problems += label_map.problems
        pixels.update(label_map.pixels)
        having.update(label_map.pixels.keys())
    meaning = _Meaning(num_classes, void, reduce_zero_label)
    problems += _odd_maps(found, meaning)
    problems += _out_of_range(found, name, meaning)
    problems += _traps(pixels, name, meaning)
    total = sum(pixels.values())
    return CheckedLabelMaps(
        problems, sum(map(len, files.values())), sum(map(len, maps.values())),
        tuple(Label(label, pixels[label] / total, having[label]) for label in sorted(pixels)),
        {str(path): path for path in chosen.values()})


def check_label_map(path: str, size: Tuple[int, int], num_classes: int) -> List[Problem]:
    """What is wrong with a label map.

    Args:
        path: PNG with one channel.
        size: (width, height) of its image.
        num_classes: The highest label.
    """
    found = _read_label_map(path, size)
    wrong = sorted(label for label in found.pixels if not 0 <= label <= num_classes)
    return found.problems + ([('label out of range', f'{short_name(path, 3)}: {wrong[:5]}, labels '
                               f'are 0 to {num_classes}')] if wrong else [])


def _read_label_map(path: str, size: Optional[Tuple[int, int]]) -> _LabelMap:
    """Read a label map as mmseg does, but to its end."""
    name = short_name(path, 3)
    if not os.path.isfile(path):
        return _LabelMap([('image without a label map', name)])
    try:
        with Image.open(path) as image:
            image.load()
            labels = np.asarray(image)
            found, mode, file_format = image.size, image.mode, image.format
    except Exception as error:  # noqa: BLE001  a decoder may raise anything for a damaged file
        return _LabelMap([('unreadable label map', f'{name}: {type(error).__name__}: {error}')])
    if labels.ndim != 2:
        return _LabelMap([('label map that is a colour image',
                           f'{name}: {labels.shape[-1]} channels; a label map has one, with class '
                           'numbers')])
    problems = []
    if size is not None and found != tuple(size):
        problems.append(('label map of another size than its image',
                         f'{name}: {found}, the image {tuple(size)}'))
    if labels.dtype in (np.uint8, np.bool_):
        counts = np.bincount(labels.astype(np.uint8).ravel(), minlength=256)
        pixels = {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    else:
        pixels = {int(v): int(n) for v, n in zip(*np.unique(labels, return_counts=True))}
    return _LabelMap(problems, pixels, mode, file_format)


_Stems = Dict[str, List[Path]]  # files by their relative paths without the suffix


def _find(images: Path, label_maps: Path, img_suffix: Optional[str], map_suffix: str
          ) -> Tuple[_Stems, _Stems]:
    """The images and the label maps, by stem."""
    for argument, folder in (('label_maps', label_maps), ('images', images)):
        if not folder.is_dir():
            raise FileNotFoundError(f'{argument}={str(folder)!r}: no such folder')
    maps = _by_stem(label_maps, (map_suffix,))
    files = _by_stem(images, IMAGES if img_suffix is None else (img_suffix,))
    if images.resolve() in (own := label_maps.resolve(), *own.parents):
        # Label maps beside the images or below them are no images.
        known = {path.resolve() for paths in maps.values() for path in paths}
        files = {stem: kept for stem, paths in files.items()
                 if (kept := [path for path in paths if path.resolve() not in known])}
    if not maps:
        raise FileNotFoundError(f'label_maps={str(label_maps)!r}: no file in it ends in '
                                f'{map_suffix} (map_suffix)')
    if not files:
        raise FileNotFoundError(f'images={str(images)!r}: no file in it ends in ' + (
            ', '.join(IMAGES) if img_suffix is None else img_suffix) + ' (img_suffix)')
    return files, maps


def _by_stem(folder: Path, suffixes: Tuple[str, ...]) -> _Stems:
    found = defaultdict(list)
    for path in files_in(folder, [suffix.lower() for suffix in suffixes]):
        relative = path.relative_to(folder).as_posix()
        # One suffix is mmseg's, which minds capitals.
        known = relative if len(suffixes) == 1 else relative.lower()
        ending = next((s for s in suffixes if known.endswith(s)), None)
        if ending is not None:
            found[relative[:-len(ending)]].append(path)
    return dict(found)


def _wrong_names(files: _Stems, maps: _Stems, images: str, label_maps: str, map_suffix: str
                 ) -> Iterator[Problem]:
    without = [stem for stem in files if stem not in maps]
    hint = ''
    if len(without) == len(files):
        # Nothing fits, so it is not files that lack but the suffix that is another.
        first = sorted(files)[0]
        rest = next((m[len(first):] for m in sorted(maps) if m.startswith(first)), None)
        hint = '' if rest is None else (
            f'; there is {first}{rest}{map_suffix}, for which the suffix of label maps is '
            f'{rest}{map_suffix}')
    yield from (('image without a label map', f'{label_maps}/{stem}{map_suffix}{hint}')
                for stem in without)
    yield from (('label map without an image', f'{label_maps}/{stem}{map_suffix}')
                for stem in maps if stem not in files)
    yield from (('images of one name', f'{images}: {", ".join(p.name for p in paths)}')
                for paths in files.values() if len(paths) > 1)
    suffixes = Counter(path.name[len(Path(stem).name):]
                       for stem, paths in files.items() for path in paths)
    if len(suffixes) > 1:
        yield ('images with several suffixes', f'{images}: ' + ', '.join(
            f'{count} {suffix}' for suffix, count in suffixes.most_common())
            + '; mmseg reads one suffix')


def _odd_maps(found: Mapping[str, _LabelMap], meaning: _Meaning) -> Iterator[Problem]:
    for name, label_map in found.items():
        if label_map.mode == 'P':
            yield 'palette label map', f'{name}: mmseg reads the numbers, not the colours'
        if label_map.format == 'JPEG':
            yield 'label map saved as JPEG', f'{name}: compression changes labels; save it as PNG'
        if label_map.pixels and all(map(meaning.is_void, label_map.pixels)):
            yield 'label map that is all void', name


def _out_of_range(found: Mapping[str, _LabelMap], folder: str, meaning: _Meaning
                  ) -> Iterator[Problem]:
    wrong = {name: labels for name, label_map in found.items()
             if (labels := [v for v in label_map.pixels if not meaning.is_possible(v)])}
    if not meaning.reduce_zero_label and {v for labels in wrong.values() for v in labels} == {
            meaning.num_classes}:
        yield ('label out of range', f'{folder}: {meaning.num_classes} in {len(wrong)} label '
               f'maps; {meaning.num_classes} classes are 0 to {meaning.last}. If 0 is unlabelled '
               f'and classes are 1 to {meaning.num_classes}, reduce_zero_label is needed')
        return
    possible = (f'mmseg keeps labels in 8 bits, 0 to {_LIMIT}' if meaning.num_classes is None
                else f'labels are 0 to {meaning.last} and {meaning.void}')
    for name, labels in wrong.items():
        yield 'label out of range', f'{name}: {sorted(labels)[:5]}, {possible}'


def _traps(pixels: Mapping[int, int], folder: str, meaning: _Meaning) -> Iterator[Problem]:
    """What only all label maps together show."""
    if not pixels:
        return
    labels = sorted(label for label in pixels if not meaning.is_void(label))
    if labels == [0] and meaning.void in pixels:
        yield ('mask whose object is void', f'{folder}: labels are 0 and {meaning.void} only, and '
               f'{meaning.void} is ignored in training. Write 1 for the object')
        return
    if len(labels) < 2:
        yield ('fewer than two labels', f'{folder}: ' + (
            f'only {labels[0]}' if labels else 'void only'))
        return
    last = labels[-1] if meaning.num_classes is None else meaning.last
    never = sorted(set(range(meaning.first, last + 1)) - {*labels, meaning.void})
    if never and never[0] == 0:
        never.pop(0)
        yield ('labels start at 1' if 1 in labels else 'label that never occurs',
               f'{folder}: 0 never occurs. If classes are numbered from 1, reduce_zero_label makes '
               '1 the first class')
    if never:
        yield ('label that never occurs',
               f'{folder}: {_ranges(never)} of {meaning.first} to {last}')


def _ranges(numbers: Iterable[int]) -> str:
    """Such as ``3, 7 to 9``."""
    found: List[List[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ', '.join(str(a) if a == b else f'{a} to {b}' for a, b in found)
