"""Pascal VOC's boxes: an .xml for each image."""
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ..checking.problems import Problem, Run
from ..folders import DataError, files_in, is_finite, lines_of, parts_of, split_of
from ..images import IMAGES, read_image
from ..pairing import pair
from .data import Box, BoxData, as_coco, sizes_of

_LISTS = dict(train='train', trainval='train', val='val', test='test')
_OTHER_TASKS = ('Segmentation', 'Layout', 'Action')  # of ImageSets
# By the folder above lists and an entry of theirs: the files of those that have it, by name.
_Lists = Dict[Tuple[Path, Tuple[str, ...]], Dict[str, Path]]


def find_voc(folder: Path, images: Sequence[Path], run: Run) -> Optional[BoxData]:
    """Find VOC files below a folder; None without any.

    Each file belongs to the image of its name in the folders most like its own. Splits are those of
    ``ImageSets/Main`` beside the annotations (as in VOC2007 and VOC2012, each its own), or those
    that folders name.

    Raises:
        DataError: For a file that cannot be read or could belong to several images.
    """
    roots = {path: _root(path) for path in files_in(folder, ['.xml'])}
    files = {path: root for path, root in roots.items() if root.tag == 'annotation'}
    if not files:
        return None
    given = {path: root.findtext('path', '').strip() or '/'.join(
        root.findtext(tag, '').strip() for tag in ('folder', 'filename'))
        for path, root in files.items()}
    paired = pair(files, images, folder, given)
    data = BoxData('Pascal VOC', {})
    listed = _lists(folder)
    splits, unlisted = _splits(paired, listed, folder)
    for what, which in (('have no image', [p for p in files if p not in paired]),
                        ('are in no list of ImageSets/Main' if listed else
                         'name no split, while others name the training split', unlisted)):
        if which:
            data.notes.append(f'{len(which)} of {len(files)} .xml files {what} and were left out, '
                              f'such as {which[0].relative_to(folder)}')
    sizes = sizes_of([paired[p] for paths in splits.values() for p in paths], run)
    objects = {p: _objects(p, root, folder) for p, root in files.items()}
    names = sorted({one.name for boxes in objects.values() for one in boxes})
    for split, paths in splits.items():
        pairs = [(paired[p], objects[p]) for p in paths]
        data.splits[split] = as_coco(pairs, names, sizes, folder)
        data.splits[split].problems = [problem for p in paths for problem in _other_size(
            p.relative_to(folder), files[p], paired[p], sizes[paired[p]])]
    return data


def _root(path: Path) -> ElementTree.Element:
    raw = path.read_bytes()
    try:
        try:
            return ElementTree.fromstring(raw)
        except ValueError:  # of several bytes a character, which expat leaves to Python
            declared = re.search(rb'encoding=["\']([\w.-]+)', raw)
            return ElementTree.fromstring(raw.decode(declared.group(1).decode()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f'{path}: not readable as XML ({error})') from None


def _lists(folder: Path) -> _Lists:
    """Entries of all lists of splits."""
    found: _Lists = {}
    for path in files_in(folder, ['.txt']):
        if path.stem not in _LISTS or path.parent.name in _OTHER_TASKS:
            continue
        place = path.parent
        while place.name in ('Main', 'ImageSets') and place != folder:
            place = place.parent
        for line in lines_of(path):
            # Lists of a class have 1 or -1 after the name, those of other programs the annotation.
            parts = parts_of(re.sub(r'\s+(-?[01]|\S+\.xml)$', '', line))
            if parts and parts[-1].lower().endswith(IMAGES):
                parts = [*parts[:-1], Path(parts[-1]).stem]
            if parts:
                found.setdefault((place, tuple(parts)), {})[path.stem] = path
    return found


def _splits(paired: Dict[Path, Path], listed: _Lists, folder: Path
            ) -> Tuple[Dict[str, List[Path]], List[Path]]:
    """Files of each split, and files without one."""
    splits: Dict[Optional[str], List[Path]] = {}
    places = {place for place, _ in listed}
    for path, image in paired.items():
        place = next((parent for parent in path.parents if parent in places), None)
        lists = {name: file for parts in (path.with_suffix('').parts, image.with_suffix('').parts)
                 for first in range(len(parts))
                 for name, file in listed.get((place, parts[first:]), {}).items()}
        found = {_LISTS[name] for name in lists if name != 'trainval' or len(lists) == 1}
        if len(found) > 1:
            raise DataError(f'{path}: in several lists of splits: '
                            f'{", ".join(map(str, lists.values()))}. Leave it in one')
        split = found.pop() if found else None if place else (
            split_of(path.parent, folder) or split_of(image.parent, folder))
        splits.setdefault(split, []).append(path)
    without = splits.pop(None, [])
    if without and 'train' not in splits and not listed:
        splits['train'], without = without, []
    return splits, without


def _objects(path: Path, root: ElementTree.Element, folder: Path) -> List[Box]:
    boxes = []
    for number, one in enumerate(root.iter('object'), 1):
        name = one.findtext('name', '').strip()
        if not name:
            raise DataError(f'{path}: object {number} has no name')
        boxes.append(Box(name, _box(one, path), f'{path.relative_to(folder)}: object {number}',
                         ignored=one.findtext('difficult', '0').strip() == '1'))
    return boxes


def _box(found: ElementTree.Element, path: Path) -> Tuple[float, float, float, float]:
    """(x, y, width, height) in pixels; VOC counts pixels from 1 and includes the last."""
    box = found.find('bndbox')
    try:
        left, top, right, bottom = (
            float(box.findtext(name)) for name in ('xmin', 'ymin', 'xmax', 'ymax'))
        if not all(map(is_finite, (left, top, right, bottom))):
            raise ValueError
    except (AttributeError, TypeError, ValueError):
        raise DataError(f'{path}: an object without xmin, ymin, xmax and ymax as numbers'
                        ) from None
    left, top = max(left - 1, 0), max(top - 1, 0)
    return left, top, right - left, bottom - top


def _other_size(name: Path, root: ElementTree.Element, image: Path, size: Tuple[int, int]
                ) -> List[Problem]:
    """A problem where a file gives another size than its image has; 0 stands for unknown."""
    try:
        said = tuple(int(float(root.findtext(f'size/{side}', '0'))) for side in ('width', 'height'))
    except ValueError:
        return []
    if 0 in said or said == size:
        return []
    turned = said == size[::-1] and read_image(image, whole=False).orientation > 4
    return [('image of another size than annotated', f'{image.name}: {size}, {name} says {said}' + (
        ', its size before its EXIF tag turns it: the boxes were drawn on the unturned image. '
        'Remove the tag from the image, or turn the boxes' if turned else ''))]
