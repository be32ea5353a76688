"""Meaning of labels: classes, void, numbers in training."""
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..datasets.checking.label_maps import ReadSplit
from ..datasets.folders import DataError, few, files_in, lines_of
from ..datasets.labels import GREY, VOID, colours_of
from .writing import count

_FILES = ('classes.txt', 'labels.txt', 'label_names.txt', 'class_names.txt', 'label_colors.txt',
          'labelmap.txt', 'class_dict.csv', '_classes.csv')
_COLOUR = re.compile(r'(?:(?P<name>.*?)[\s,:;]*\b)?' + r'[\s,;]+'.join([r'(\d{1,3})'] * 3)
                     + r'(?:[\s,:;]+(?P<after>.*?))?[\s,:;]*')
_NUMBERED = re.compile(r'(\d+)(\s*[:,;=)\t]\s*|[.-]?\s+)(\S.*)')
_NOTHING = ('void', 'unlabeled', 'unlabelled', 'ignore', 'ignored')
# Published datasets: paths of label maps, name in mmseg, and label of no class.
_PUBLISHED = (('_labelTrainIds.png$', 'cityscapes', VOID), ('ADEChallengeData2016/', 'ade', 0),
              (r'/\d{12}_labelTrainIds.png$', 'cocostuff', VOID),
              (r'VOC20\d\d/SegmentationClass/', 'voc', VOID))


@dataclass
class Labels:
    """Meaning of labels.

    Attributes:
        names: Names of the classes.
        first: Label of the first class; with 1, label 0 is not a class.
        numbers: Label or colour -> label in training, if maps have to be rewritten.
        palette: A colour for each class, if known.
        said: Decisions, one sentence each.
    """
    names: List[str]
    first: int = 0
    numbers: Optional[Dict[int, int]] = None
    palette: Sequence[Tuple[int, ...]] = ()
    said: List[str] = field(default_factory=list)


def choose_labels(reads: Mapping[str, ReadSplit], root: Path, classes: Sequence[str] = (),
                  void: Optional[int] = None) -> Labels:
    """Find the meaning of the labels of all splits.

    Args:
        reads: Label maps of each split; grey ones are changed if others are coloured.
        root: The data's folder.
        classes: Names of the labels, from the lowest on. Default from a file such as
            ``classes.txt``, else ``class_0``, ``class_1``, …
        void: The label of no class. Default 255, or a published dataset's.

    Raises:
        DataError: For label maps that cannot be used, or fewer names than labels.
    """
    _check_forms(reads, VOID if void is None else void)
    names, colours = _read_names(root)
    if any(found.coloured for read in reads.values() for found in read.maps):
        return _by_colour(reads, root, list(classes), colours)
    pixels = sum((read.pixels for read in reads.values()), Counter())
    path = next(iter(reads.values())).split.pairs[0][1].as_posix()
    for pattern, dataset, no_class in () if classes or names else _PUBLISHED:
        if re.search(pattern, path) and void in (None, no_class):
            from mmseg.utils import get_classes, get_palette
            first, known = int(no_class == 0), get_classes(dataset)
            if max(set(pixels) - {VOID}, default=0) - first < len(known):
                return Labels(known, first, None, get_palette(dataset), [
                    f'the label maps are those of {dataset}, whose {len(known)} classes are taken'
                    + (', and 0 for no class' if first else '')])
    palette = dict(chain.from_iterable(found.palette.items() for read in reads.values()
                                       for found in read.maps))
    return _by_number(pixels, root, list(classes) or names, VOID if void is None else void, palette)


def _check_forms(reads: Mapping[str, ReadSplit], void: int) -> None:
    """Refuse label maps whose labels cannot be known."""
    pairs = [(path, found) for read in reads.values()
             for (_, path), found in zip(read.split.pairs, read.maps)]
    if not any(found.area for _, found in pairs):
        raise DataError(f'{pairs[0][0]}: no label map can be read ({pairs[0][1].size})')
    for path, found in pairs:
        if found.format == 'JPEG':
            raise DataError(
                f'{path}: a label map saved as JPEG, whose compression changes labels: it holds '
                f'{few(sorted(found.pixels))}. Save the label maps as PNG from where they were '
                'drawn')
        lowest = min({*found.pixels} - {void}, default=0)
        if lowest < 0:
            raise DataError(f'{path}: holds label {lowest}. If it is not a class: --void {lowest}')
        if found.coloured and len(found.pixels) > VOID:  # a photograph, or numbers of segments
            raise DataError(f'{path}: {len(found.pixels)} colours, such as '
                            f'{colours_of(found.pixels)}: not a label map, whose pixels have the '
                            'numbers or colours of classes')


def _by_colour(reads: Mapping[str, ReadSplit], root: Path, classes: List[str],
               known: Mapping[str, int]) -> Labels:
    """Labels for colours, in the order of the naming file."""
    path = next(path for read in reads.values()
                for (_, path), found in zip(read.split.pairs, read.maps) if found.coloured)
    for read in reads.values():
        read.maps = [one._replace(pixels={label * GREY: n for label, n in one.pixels.items()})
                     if one.channels > 2 and not one.coloured else one for one in read.maps]
    pixels = sum((read.pixels for read in reads.values()), Counter())
    panoptic = [file for file in files_in(root, ['.json']) if 'panoptic' in file.name]
    if panoptic and not known:
        raise DataError(
            f'{path}: its colours are numbers of segments, as in COCO\'s panoptic format, and '
            f'their classes are in {panoptic[0]}. Convert them to label maps with a class in each '
            'pixel, such as by panoptic2semantic_segmentation.py of panopticapi')
    unknown = {colour: n for colour, n in pixels.items() if colour not in known.values()}
    if unknown:
        raise DataError(
            f'{path}: a colour image, and {colours_of(unknown)} '
            + (f'are not in {root}\'s list of colours' if known else 'are named nowhere')
            + f'. Write a line for each colour into {root / "label_colors.txt"}, such as "128 64 '
            '128 road", in the order of the classes; "void" for pixels of none')
    void = {name: colour for name, colour in known.items() if name.strip('_').lower() in _NOTHING}
    names = [name for name in known if name not in void]
    numbers = {known[name]: i for i, name in enumerate(names)}
    numbers.update(dict.fromkeys(void.values(), VOID))
    if classes and len(classes) != len(names):
        raise DataError(f'classes={classes}: {count(len(classes), "name", "names")}, but '
                        f'{len(names)} colours are classes: {", ".join(names)}')
    return Labels(classes or names, 0, numbers, [
        (known[name] >> 16, known[name] >> 8 & 255, known[name] & 255) for name in names],
        ['colours became class numbers, in the order of the file that names them'
         + (f'; {", ".join(void)} became 255, which is ignored' if void else '')])


def _by_number(pixels: Mapping[int, int], root: Path, names: Sequence[str], void: int,
               palette: Mapping[int, Tuple[int, ...]]) -> Labels:
    labels = sorted(set(pixels) - {void, VOID})
    found = Labels([], int(void == 0))
    both = set(pixels) == {0, VOID} and void == VOID
    if both:
        labels = [0, VOID]
        found.said.append(
            'the label maps hold two labels, 0 and 255: both are taken for classes, and 255 became '
            '1, because mmseg ignores 255. If it is void, 0 is the only class: there is nothing to '
            'tell apart')
    elif void not in pixels and void not in (0, VOID):
        found.said.append(f'no pixel has label {void} (--void)')
    if not labels:
        raise DataError(f'data={str(root)!r}: the label maps hold only {sorted(pixels)}, '
                        'not a class')
    named, sparse = _by_label(list(names.values()) if both and isinstance(names, dict) else names,
                              labels, found.first)
    if both or sparse or void not in (0, VOID) or labels[-1] > VOID:
        labels = labels if both else sorted({*labels, *named} - {void, VOID})
        found.first, found.numbers = 0, {void: VOID, VOID: VOID}
        found.numbers.update((label, i) for i, label in enumerate(labels))
        if not both:
            found.said.append(
                'mmseg keeps labels of 8 bits and ignores 255' + (
                    '' if void == VOID else f', and not {void}')
                + f': {few(labels, 10)} became 0 to {len(labels) - 1}')
    else:
        labels = list(range(found.first, max([labels[-1], *named]) + 1))
    if len(labels) > VOID:
        raise DataError(f'data={str(root)!r}: the label maps hold {few(labels)}: {len(labels)} '
                        f'labels, and mmseg takes {VOID} classes. Are they numbers of objects?')
    lacking = [f'class_{label}' for label in labels if label not in named]
    if lacking and names and not isinstance(names, dict):
        raise DataError(
            f'classes={names}: {count(len(names), "name", "names")}, but the labels are '
            f'{few(sorted(pixels), 30)}: with {labels[0]} as the first, {len(labels)} classes'
            + ('' if found.first else '. If 0 is not a class: --void 0'))
    if lacking:
        found.said.append(
            ('classes without a name are' if named else 'nothing names the classes; they are')
            + f' called {few(lacking)}: give --classes, or rename them in the config')
    if labels[0] == 0 and found.numbers is None and 0 not in pixels:
        found.said.append('no pixel has label 0; if the labels count from 1, give --void 0')
    found.names = [named.get(label, f'class_{label}') for label in labels]
    if all(label in palette for label in labels):
        found.palette = [palette[label] for label in labels]
    return found


def _by_label(names: Sequence[str], labels: List[int], first: int) -> Tuple[Dict[int, str], bool]:
    """Names by label, and whether they follow sparse labels' order."""
    if isinstance(names, dict):
        return names, False
    if len(names) == len(labels) < labels[-1] + 1 - first:
        return dict(zip(labels, names)), True
    if len(names) > labels[-1] and names[0].strip('_').lower() in (
            *_NOTHING, 'background', 'other'):
        first = 0  # the name of label 0, which may be void
    return dict(enumerate(names, first)), False


def _read_names(root: Path) -> Tuple[Sequence[str], Dict[str, int]]:
    """Names of classes and their colours, from the data's files."""
    names, colours = [], {}
    for file in _FILES:
        for path in [root / file, *sorted(root.glob(f'*/{file}'))]:
            if path.is_file():
                found, coloured = _parse([row for row in lines_of(path)
                                          if not row.startswith('# ')])
                names, colours = names or found, colours or coloured
    return names, colours


def _parse(rows: List[str]) -> Tuple[Sequence[str], Dict[str, int]]:
    colours: Dict[str, int] = {}
    if fits := _fits(_COLOUR, rows):
        rows = [fit['name'] or fit['after'] or '' for fit in fits]
        colours = {row: int(fit[2]) << 16 | int(fit[3]) << 8 | int(fit[4])
                   for row, fit in zip(rows, fits)}
    fits = _fits(_NUMBERED, rows)
    named = {int(fit[1]): fit[3] for fit in fits}
    counted = list(named) in (list(range(len(fits))), list(range(1, len(fits) + 1)))
    if fits and len(set(named.values())) == len(fits) and (
            counted or all(fit[2].strip(' .-') for fit in fits)):
        return named, {named[int(fit[1])]: colours[fit[0]] for fit in fits if colours}
    return rows, colours


def _fits(pattern: re.Pattern, rows: List[str]) -> List[re.Match]:
    """Matches of all rows, except a heading; else empty."""
    fits = [pattern.fullmatch(row) for row in rows]
    return next((those for those in (fits, fits[1:]) if all(those)), [])
