"""What the labels of label maps mean: names of classes, void, and the numbers to train with."""
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..datasets.checking.label_maps import ReadSplit
from ..datasets.folders import DataError, files_in, text_of
from ..datasets.labels import GREY, VOID, colours_of
from .lines import count, few

_FILES = ('classes.txt', 'labels.txt', 'label_names.txt', 'class_names.txt', 'label_colors.txt',
          'labelmap.txt', 'class_dict.csv', '_classes.csv')
_COLOUR = re.compile(r'(?:(?P<name>.*?)[\s,:;]*\b)?' + r'[\s,;]+'.join([r'(\d{1,3})'] * 3)
                     + r'(?:[\s,:;]+(?P<after>.*?))?[\s,:;]*')
_NUMBERED = re.compile(r'(\d+)(\s*[:,;=)\t]\s*|[.-]?\s+)(\S.*)')
_NOTHING = ('void', 'unlabeled', 'unlabelled', 'ignore', 'ignored')
# Paths of published datasets' label maps, their names in mmseg, and the label that is no class.
_PUBLISHED = (('_labelTrainIds.png$', 'cityscapes', VOID), ('ADEChallengeData2016/', 'ade', 0),
              (r'/\d{12}_labelTrainIds.png$', 'cocostuff', VOID),
              (r'VOC20\d\d/SegmentationClass/', 'voc', VOID))


@dataclass
class Labels:
    """What labels mean.

    Attributes:
        names: Of the classes.
        first: The label of the first class; with 1, label 0 is no class.
        numbers: Label or colour -> the label to train with, where maps have to be written anew.
        palette: A colour for each class, if the data have some.
        said: What was decided, one sentence each.
    """
    names: List[str]
    first: int = 0
    numbers: Optional[Dict[int, int]] = None
    palette: Sequence[Tuple[int, ...]] = ()
    said: List[str] = field(default_factory=list)


def choose_labels(reads: Mapping[str, ReadSplit], root: Path, classes: Sequence[str] = (),
                  void: Optional[int] = None) -> Labels:
    """Find out what the labels that occur in any split mean.

    Args:
        reads: The label maps of each split; those with grey colours are changed where others have
            colours.
        root: The data's folder.
        classes: Names of the labels, from the lowest on. Default from a file such as
            ``classes.txt``, else ``class_0``, ``class_1``, …
        void: The label of pixels that belong to no class. Default 255, or a published dataset's.

    Raises:
        DataError: For label maps that cannot be used, or fewer names than labels.
    """
    _check_forms(reads, VOID if void is None else void)
    names, colours = _read_names(root)
    if any(found.coloured for read in reads.values() for found in read.maps):
        return _by_colour(reads, root, list(classes), colours)
    pixels = sum((read.pixels for read in reads.values()), Counter())
    published = _published(reads)
    if published and void in (None, published[1]) and not classes and not names:
        from mmseg.utils import get_classes, get_palette
        first = int(published[1] == 0)
        known = get_classes(published[0])
        if max(set(pixels) - {VOID}, default=0) - first < len(known):
            return Labels(known, first, None, get_palette(published[0]), [
                f'the label maps are those of {published[0]}, whose {len(known)} classes are taken'
                + (', and 0 for no class' if first else '')])
    return _by_number(pixels, root, list(classes) or names, VOID if void is None else void,
                      _palette(reads))


def _check_forms(reads: Mapping[str, ReadSplit], void: int) -> None:
    """Refuse label maps whose labels nobody can know."""
    pairs = [(path, found) for read in reads.values()
             for (_, path), found in zip(read.split.pairs, read.maps)]
    for path, found in pairs:
        if found.format == 'JPEG':
            raise DataError(
                f'{path}: a label map saved as JPEG, whose compression changes labels: it holds '
                f'{few(sorted(found.pixels))}. Save the label maps as PNG from where they were '
                'drawn')
        lowest = min({*found.pixels} - {void}, default=0)
        if lowest < 0:
            raise DataError(f'{path}: holds label {lowest}. If it is no class: --void {lowest}')
    if all(isinstance(found.size, str) for _, found in pairs):
        raise DataError(f'{pairs[0][0]}: no label map can be read ({pairs[0][1].size})')
    # More colours than classes: a photograph, or segments that are numbered.
    for path, found in pairs:
        if found.coloured and len(found.pixels) > VOID:
            raise DataError(f'{path}: {len(found.pixels)} colours, such as '
                            f'{colours_of(found.pixels)}, so that it is not a label map, in which '
                            'each pixel has the number or the colour of a class')


def _by_colour(reads: Mapping[str, ReadSplit], root: Path, classes: List[str],
               known: Mapping[str, int]) -> Labels:
    """Labels for colours, which are in the order of a file that names them."""
    path, found = next(
        (path, found) for read in reads.values()
        for (_, path), found in zip(read.split.pairs, read.maps) if found.coloured)
    pixels: Counter = Counter()
    for read in reads.values():
        read.maps = [one._replace(pixels={label * GREY: n for label, n in one.pixels.items()})
                     if one.channels > 2 and not one.coloured else one for one in read.maps]
        pixels += read.pixels
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
    if void not in pixels and void not in (0, VOID):
        found.said.append(f'no pixel has label {void} (--void)')
    if set(pixels) == {0, VOID} and void == VOID:
        labels, found.numbers = [0, VOID], {0: 0, VOID: 1}
        found.said.append('the label maps hold 0 and 255, and mmseg ignores 255')
    if not labels:
        raise DataError(f'data={str(root)!r}: the label maps hold {sorted(pixels)}, which is no '
                        'class')
    named = names if isinstance(names, dict) else {}
    sparse = not named and len(names) == len(labels) < labels[-1] + 1 - found.first
    if found.numbers is None and (void not in (0, VOID) or labels[-1] > VOID or sparse):
        if not sparse and not named and len(names) > len(labels):
            named = dict(enumerate(names))
        labels = sorted({*labels, *named} - {void, VOID})
        found.first, found.numbers = 0, {label: i for i, label in enumerate(labels)}
        found.numbers.update({void: VOID, VOID: VOID})
        found.said.append(
            'mmseg keeps labels of 8 bits and ignores 255' + (
                '' if void == VOID else f', and not {void}')
            + f': {few(labels, 10)} became 0 to {len(labels) - 1}')
    if found.numbers is None:
        labels = list(range(found.first, max([labels[-1], *named]) + 1))
    if len(labels) > VOID:
        raise DataError(f'data={str(root)!r}: the label maps hold {few(labels)}: {len(labels)} '
                        f'labels, and mmseg takes {VOID} classes. Are they numbers of objects?')
    found.names = _names(labels, names, named, found, root, pixels)
    if all(label in palette for label in labels):
        found.palette = [palette[label] for label in labels]
    return found


def _names(labels: List[int], names: Sequence[str], named: Mapping[int, str], found: Labels,
           root: Path, pixels: Mapping[int, int]) -> List[str]:
    """A name for each label."""
    if named or not names:
        chosen = [named.get(label, f'class_{label}') for label in labels]
        lacking = [name for label, name in zip(labels, chosen) if label not in named]
        if lacking:
            found.said.append(
                ('nothing names the classes; they are' if not named else 'classes without a name '
                 'are') + f' called {lacking[0]}' + (f' to {lacking[-1]}' if lacking[1:] else '')
                + ': give --classes, or rename them in the config')
        return chosen
    names = list(names)
    if found.first and len(names) > len(labels) and names[0].strip('_').lower() in (
            *_NOTHING, 'background', 'other'):
        names.pop(0)  # the name of label 0
    if len(names) < len(labels):
        raise DataError(
            f'classes={names}: {count(len(names), "name", "names")}, but the labels are '
            f'{few(sorted(pixels), 30)}: with {labels[0]} as the first, {len(labels)} classes'
            + ('' if found.first else '. If 0 is no class: --void 0'))
    if not found.first and found.numbers is None and 0 not in pixels:
        found.said.append('no pixel has label 0; if the labels count from 1, give --void 0')
    return names


def _published(reads: Mapping[str, ReadSplit]) -> Optional[Tuple[str, int]]:
    path = next(iter(reads.values())).split.pairs[0][1].as_posix()
    return next(((name, void) for pattern, name, void in _PUBLISHED if re.search(pattern, path)),
                None)


def _palette(reads: Mapping[str, ReadSplit]) -> Dict[int, Tuple[int, ...]]:
    return dict(chain.from_iterable(found.palette.items() for read in reads.values()
                                    for found in read.maps))


def _read_names(root: Path) -> Tuple[Sequence[str], Dict[str, int]]:
    """Names of classes, a list or by label, and colours by name, from files that have them."""
    names, colours = [], {}
    for file in _FILES:
        for path in [root / file, *sorted(root.glob(f'*/{file}'))]:
            if path.is_file():
                found, coloured = _parse([row.strip() for row in text_of(path).split('\n')
                                          if row.strip() and not row.startswith('# ')])
                names, colours = names or found, colours or coloured
    return names, colours


def _parse(rows: List[str]) -> Tuple[Sequence[str], Dict[str, int]]:
    colours: Dict[str, int] = {}
    for heading in (0, 1):
        fits = [_COLOUR.fullmatch(row) for row in rows[heading:]]
        if fits and all(fits):
            rows = [fit['name'] or fit['after'] or '' for fit in fits]
            rgb = [[int(fit[i]) for i in (2, 3, 4)] for fit in fits]
            colours = {row: r << 16 | g << 8 | b for row, (r, g, b) in zip(rows, rgb)}
            break
    for heading in (0, 1):
        fits = [_NUMBERED.fullmatch(row) for row in rows[heading:]]
        if fits and all(fits):
            named = {int(fit[1]): fit[3] for fit in fits}
            counted = list(named) in (list(range(len(fits))), list(range(1, len(fits) + 1)))
            if len(set(named.values())) == len(fits) and (
                    counted or all(fit[2].strip(' .-') for fit in fits)):
                return named, {named[int(fit[1])]: colours[fit[0]] for fit in fits if colours}
    return rows, colours
