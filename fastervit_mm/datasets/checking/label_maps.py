"""Checks of label maps and their images."""
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from ..folders import few
from ..images import ReadImage, read_image
from ..label_maps import MapSplit, pair_folders
from ..labels import VOID, LabelMap, colours_of, read_label_map, renumbered
from .problems import Problem, Run, one_by_one, short_name

Palette = Dict[int, Tuple[str, Tuple[int, ...]]]  # by label: a map's name, and the colour

class Label(NamedTuple):
    """How often a label occurs.

    Attributes:
        label: Its number.
        share: Its share of all pixels, 0 to 1.
        images: Number of label maps that have it.
    """
    label: int
    share: float
    images: int


class CheckedLabelMaps(NamedTuple):
    """Problems and content of label maps.

    Attributes:
        problems: (kind, where) of each problem and note (:func:`is_note`).
        images: Number of images.
        maps: Number of label maps.
        labels: Every label that occurs, void too, ascending.
        files: The images by name.
        ends: Endings of image and map names, the most frequent first.
        palette: First palette colour of each label, and its map.
    """
    problems: List[Problem]
    images: int
    maps: int
    labels: Tuple[Label, ...]
    files: Mapping[str, Path]
    ends: Sequence[Tuple[str, str]]
    palette: Palette


@dataclass
class ReadSplit:
    """Label maps and images of a split, as read.

    Attributes:
        name: Name of the split, for messages.
        split: Paths of images and maps.
        images, maps: Contents, in the order of pairs.
    """
    name: str
    split: MapSplit
    images: List[ReadImage]
    maps: List[LabelMap]

    @property
    def pixels(self) -> Counter:
        """Number of pixels by label, or by colour."""
        return sum((Counter(found.pixels) for found in self.maps), Counter())


class _Meaning(NamedTuple):
    """Meaning of labels, from arguments of :func:`check_label_maps`."""
    num_classes: Optional[int]
    void: int
    reduce_zero_label: bool

    @property
    def first(self) -> int:
        return int(self.reduce_zero_label)

    @property
    def last(self) -> int:
        return VOID if self.num_classes is None else self.num_classes - 1 + self.first

    def is_void(self, label: int) -> bool:
        return label == self.void or 0 <= label < self.first

    def is_possible(self, label: int) -> bool:
        return label == self.void or 0 <= label <= self.last


def read_split(split: MapSplit, name: str, run: Run = one_by_one) -> ReadSplit:
    """Decode every image and label map of a split fully.

    Args:
        split: Paths of images and maps.
        name: Name of the split, for messages and progress.
        run: How files are read, such as by :func:`reading`; by default one by one.
    """
    read = [*run(_read, split.pairs, f'{name}: images and label maps')]
    return ReadSplit(name, split, [image for image, _ in read], [found for _, found in read])


def check_label_maps(label_maps: Union[str, Path], images: Union[str, Path],
                     num_classes: Optional[int] = None, void: int = VOID,
                     img_suffix: Optional[str] = None, map_suffix: Optional[str] = None,
                     reduce_zero_label: bool = False, run: Run = one_by_one) -> CheckedLabelMaps:
    """Check label maps and images, decoded fully.

    Within the two folders, which may have subfolders, a label map and its image have the same path
    except for the ending.

    Args:
        label_maps: Folder of label maps: images of one channel, with class numbers.
        images: Folder of their images.
        num_classes: Number of classes, without void. By default every label is in range.
        void: Label of no class, which training and evaluation ignore; mmseg's is 255.
        img_suffix: Ending of images' names, such as ``_leftImg8bit.png``. Default any.
        map_suffix: Ending of label maps' names. Default any.
        reduce_zero_label: As in mmseg: 0 is void too, and classes are 1 to ``num_classes``.
        run: How files are read, such as by :func:`reading`; by default one by one.

    Raises:
        DataError: If no image has a label map, or one has several.
        FileNotFoundError: For a folder that does not exist or has no image or label map.
        ValueError: For an impossible number of classes or label.
    """
    if num_classes is not None and not 1 <= num_classes <= VOID:
        raise ValueError(f'num_classes={num_classes}: give 1 to {VOID}')
    if not 0 <= void <= VOID:
        raise ValueError(f'void={void}: give 0 to {VOID}')
    found = pair_folders(Path(images), Path(label_maps), img_suffix, map_suffix)
    return check_split(read_split(found, short_name(label_maps, 2), run), num_classes, void,
                       reduce_zero_label)


def check_split(read: ReadSplit, num_classes: Optional[int] = None, void: int = VOID,
                reduce_zero_label: bool = False, numbers: Optional[Mapping[int, int]] = None,
                copied: bool = False, whole: bool = True) -> CheckedLabelMaps:
    """Find problems of a split's label maps.

    Args:
        read: From :func:`read_split`.
        num_classes, void, reduce_zero_label: As in :func:`check_label_maps`.
        numbers: Label or colour -> label in training. Default unchanged.
        copied: Whether training reads one-channel copies, so that forms and endings do not matter.
        whole: Whether to report labels that do not occur.
    """
    meaning, split = _Meaning(num_classes, void, reduce_zero_label), read.split
    problems = [('image without a label map', short_name(path, 3)) for path in split.no_map]
    problems += [('label map without an image', short_name(path, 3)) for path in split.no_image]
    pixels: Counter = Counter()
    having: Counter = Counter()
    palette: Palette = {}
    for (image, path), image_read, found in zip(split.pairs, read.images, read.maps):
        name = short_name(path, 3)
        problems += _damages(short_name(image, 2), image_read, name, found)
        problems += _misread_forms(name, found, copied, palette)
        if found.coloured and numbers is None:
            continue
        labels = renumbered(found.pixels, numbers)
        wrong = sorted(label for label in labels if not meaning.is_possible(label))
        if wrong:
            problems.append(('label out of range', f'{name}: {wrong[:5]}, ' + (
                f'mmseg keeps labels in 8 bits, 0 to {VOID}' if num_classes is None else
                f'labels are 0 to {meaning.last} and {void}')
                + ('; if 0 is unlabelled and classes count from 1, reduce_zero_label is needed'
                   if wrong == [num_classes] and not reduce_zero_label else '')))
        if labels and all(map(meaning.is_void, labels)):
            problems.append(('label map that is all void', name))
        pixels.update(labels)
        having.update(labels.keys())
    if len(split.ends) > 1 and not copied:
        problems.append(('names with several endings', f'{read.name}: ' + ', '.join(
            f'{count} of {ends[0]} and {ends[1]}' for ends, count in split.ends.most_common())
            + '; mmseg reads one. tools/new_config.py seg takes all'))
    if whole:
        problems += _joint_problems(pixels, read.name, meaning)
    total = sum(pixels.values())
    return CheckedLabelMaps(
        problems, len(split.pairs) + len(split.no_map), len(split.pairs) + len(split.no_image),
        tuple(Label(label, pixels[label] / total, having[label]) for label in sorted(pixels)),
        {str(path): path for path, _ in split.pairs},
        [ends for ends, _ in split.ends.most_common()], palette)


def _read(image: Path, label_map: Path) -> Tuple[ReadImage, LabelMap]:
    return read_image(image), read_label_map(label_map)


def _damages(image_name: str, image: ReadImage, name: str, found: LabelMap) -> Iterator[Problem]:
    """Find problems of an image and its label map."""
    if isinstance(image.size, str):
        yield 'unreadable image', f'{image_name}: {image.size}'
    elif image.orientation > 1:
        yield ('image turned by its EXIF tag', f'{image_name}: orientation {image.orientation}; '
               'its label map is not turned')
    if isinstance(found.size, str):
        yield 'unreadable label map', f'{name}: {found.size}'
    elif not isinstance(image.size, str) and found.size != tuple(image.size):
        yield ('label map of another size than its image',
               f'{name}: {found.size}, the image {image.size}')


def _misread_forms(name: str, found: LabelMap, copied: bool, palette: Palette) -> Iterator[Problem]:
    """Find forms that mmseg misreads; ``palette`` has other maps' colours."""
    if found.format == 'JPEG':
        yield ('label map saved as JPEG', f'{name}: compression changes labels; save it as PNG '
               'from where it was drawn')
    if found.coloured and not copied:
        yield ('label map that is a colour image', f'{name}: {colours_of(found.pixels)}; a label '
               'map has one channel, with class numbers')
    elif found.channels > 1 and not copied:
        yield ('label map with several channels', f'{name}: {found.channels}, mmseg reads one. '
               'tools/new_config.py seg writes copies of one')
    if found.mode == 'P':
        yield 'palette label map', f'{name}: mmseg reads the numbers, not the colours'
    yield from recoloured(name, found.palette, palette)


def recoloured(name: str, own: Mapping[int, Tuple[int, ...]], palette: Palette
                ) -> Iterator[Problem]:
    """Find labels whose colour differs from ``palette``, and extend it."""
    for label, colour in own.items():
        other, known = palette.setdefault(label, (name, colour))
        if known != colour:
            anew = known in own.values() or colour in [c for _, c in palette.values()]
            yield ('colours that are numbered anew' if anew else 'label of several colours',
                   f'{name}: {label} is {colour}, in {other} {known}; mmseg reads the numbers, '
                   'which have to mean the same')
            break


def _joint_problems(pixels: Mapping[int, int], folder: str, meaning: _Meaning) -> Iterator[Problem]:
    """Find problems that show only in all label maps together."""
    if not pixels:
        return
    labels = sorted(label for label in pixels if not meaning.is_void(label))
    if labels == [0] and meaning.void in pixels:
        yield ('mask whose object is void', f'{folder}: labels are 0 and {meaning.void} only, and '
               f'{meaning.void} is ignored in training. Write 1 for the object, as '
               'tools/new_config.py seg does in copies')
        return
    if len(labels) < 2:
        yield ('fewer than two labels', f'{folder}: ' + (
            f'only {labels[0]}' if labels else 'void only'))
        return
    last = min(labels[-1], VOID) if meaning.num_classes is None else meaning.last
    never = sorted(set(range(meaning.first, last + 1)) - {*labels, meaning.void})
    if never and never[0] == 0:
        never.pop(0)
        yield ('labels start at 1' if 1 in labels else 'label that never occurs',
               f'{folder}: 0 never occurs. If classes are numbered from 1, reduce_zero_label makes '
               '1 the first class')
    if never:
        yield ('label that never occurs',
               f'{folder}: {few(never)} of {meaning.first} to {last}')
