"""Pascal VOC's boxes: an .xml for each image."""
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from ..checking.problems import Problem, Run
from ..folders import DataError, files_in, is_finite, split_of
from ..images import read_image
from ..lists import listed_splits
from ..pairing import pair
from .data import Box, BoxData, as_coco, sizes_of


def find_voc(folder: Path, images: Sequence[Path], run: Run) -> Optional[BoxData]:
    """Find VOC files below a folder; None without any.

    A file belongs to the image of the same name whose folders are most like its own. Splits are
    those of ``ImageSets/Main`` beside the annotations (VOC2007 and VOC2012 each have their own), or
    those named by folders.

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
    listed = listed_splits({path: (path, image) for path, image in paired.items()}, folder, 'Main')
    splits: Dict[Optional[str], List[Path]] = {}
    for path, image in paired.items():
        split = listed[path] if path in listed else (
            split_of(path.parent, folder) or split_of(image.parent, folder))
        splits.setdefault(split, []).append(path)
    unlisted = splits.pop(None, [])
    if 'train' not in splits and not listed and unlisted:
        splits['train'], unlisted = unlisted, []
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
        except ValueError:  # a multi-byte encoding, which expat leaves to Python
            declared = re.search(rb'encoding=["\']([\w.-]+)', raw)
            return ElementTree.fromstring(raw.decode(declared.group(1).decode()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f'{path}: not readable as XML ({error})') from None


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
    """Box in pixels, from VOC's inclusive ones, counted from 1."""
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
    """Problem if a file states a wrong image size, except 0."""
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
