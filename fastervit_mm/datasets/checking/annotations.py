"""Checks of COCO files and their images."""
import math
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

from ..folders import files_in
from ..images import IMAGES, ReadImage, read_image
from ..pairing import loosely, named_parts
from .coco_files import read_annotations, wrong_ids
from .masks import check_masks
from .problems import Content, Problem, Run, one_by_one, place_of, short_name


class Category(NamedTuple):
    """Boxes of a category.

    Attributes:
        name: Its name.
        boxes: Their number.
        size: Median width and height in pixels; None without boxes.
    """
    name: str
    boxes: int
    size: Optional[Tuple[float, float]]


class CheckedAnnotations(NamedTuple):
    """Problems and content of an annotation file.

    Attributes:
        problems: (kind, where) of each problem and note (:func:`is_note`).
        images: Number of images that the file lists.
        empty: Number of images without an annotation.
        annotations: Number of annotations.
        masks: Number of annotations with a segmentation.
        categories: In the order of the file.
        files: Listed images that exist, by ``file_name``.
    """
    problems: List[Problem]
    images: int = 0
    empty: int = 0
    annotations: int = 0
    masks: int = 0
    categories: Tuple[Category, ...] = ()
    files: Mapping[str, Path] = {}


def check_annotations(ann_file: Union[str, Path], images: Union[str, Path], run: Run = one_by_one
                      ) -> CheckedAnnotations:
    """Check an annotation file and all its images.

    Args:
        ann_file: COCO's JSON: images, annotations and categories.
        images: Folder that ``file_name`` is relative to; it may have subfolders.
        run: How images are read, such as by :func:`reading`; by default one by one.

    Raises:
        FileNotFoundError: For a file or folder that does not exist.
    """
    folder, name = Path(images), short_name(ann_file, 2)
    if not Path(ann_file).is_file():
        raise FileNotFoundError(f'ann_file={str(ann_file)!r}: no such file')
    if not folder.is_dir():
        raise FileNotFoundError(f'images={str(images)!r}: no such folder')
    try:
        read = read_annotations(ann_file)
    except (ValueError, RecursionError) as error:
        unreadable = ('unreadable annotation file', f'{name}: {error}')
        # Report damaged images now, not only after the file is corrected.
        found = sorted(_images_below(folder))
        return CheckedAnnotations([unreadable, *_read(folder, found, name, run)[1]])
    checked = check_content(read.content, folder, name, run)
    problems = [*read.problems, *checked.problems]
    if read.encoding != 'utf-8':
        problems.append(('encoding that mmdet does not read',
                         f'{name}: {read.encoding}; save it as UTF-8 without a byte order mark'))
    return checked._replace(problems=problems)


def check_content(content: Content, folder: Path, name: str, run: Run = one_by_one
                  ) -> CheckedAnnotations:
    """Check annotations and all their images.

    Args:
        content: Entries with all keys, from :func:`read_annotations`.
        folder: Folder that ``file_name`` is relative to.
        name: What they were read from, for messages.
        run: As in :func:`check_annotations`.
    """
    listed = list(dict.fromkeys(image['file_name'] for image in content['images']))
    there = [file for file in listed if os.path.isfile(folder / file)]
    read, problems = _read(folder, there, name, run)
    sizes: Dict[str, Any] = {file: image.size for file, image in read.items()}
    sizes.update(dict.fromkeys(_unlisted(folder, listed)))
    for image in content['images']:  # a missing size is reported; the rest can be checked
        known = sizes.get(image['file_name'])
        width, height = known if isinstance(known, tuple) else (math.inf, math.inf)
        image.setdefault('width', width)
        image.setdefault('height', height)
    turned = {file: image.orientation for file, image in read.items() if image.orientation > 1}
    problems += check_coco(content, sizes, name, turned=turned)
    problems += _check_more(content, name)
    problems += check_masks(content, name)
    annotated = {a['image_id'] for a in content['annotations']}
    return CheckedAnnotations(
        problems, len(content['images']),
        sum(image['id'] not in annotated for image in content['images']),
        len(content['annotations']),
        sum(bool(a.get('segmentation')) for a in content['annotations']),
        _categories(content), {file: folder / file for file in there})


def check_coco(content: Content, sizes: Mapping[str, Any], ann_file: str,
               num_classes: Optional[int] = None, turned: Mapping[str, int] = {}
               ) -> Iterator[Problem]:
    """Find problems of a COCO file, except of masks.

    Args:
        content: Content of the file.
        sizes: (width, height) of each image by file name, or a str for an unreadable one.
        ann_file: Name of the file, for messages.
        num_classes: Expected number of categories; None for any.
        turned: EXIF orientation of turned images, which explains other sizes.
    """
    yield from wrong_ids(content, ann_file)
    images = {image['id']: image for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    if num_classes not in (None, len(categories)):
        yield ('number of categories differs from the published',
               f'{ann_file}: {len(categories)}, published {num_classes}')
    alike = {loosely(named_parts(name))[:1]: name for name in sizes}
    for image in content['images']:
        name, said = image['file_name'], (image['width'], image['height'])
        if name not in sizes:
            end = loosely(named_parts(name))
            other = alike.get(end[:1])
            found = other and (end == loosely(named_parts(other))
                               or re.match(r'/|\.\.|.*\\|\w+:', name))
            yield ('annotated image that is missing',
                   f'{ann_file}: {name}' + (f'; there is {other}' if other else '') + (
                       ', for which tools/new_config.py det writes a corrected copy'
                       if found else ''))
        elif not isinstance(sizes[name], str) and sizes[name] != said:
            yield ('image of another size than annotated',
                   f'{name}: {sizes[name]}, {ann_file} says {said}' + (
                       '; mmcv turns it by its EXIF tag' if name in turned else ''))
        elif name in turned:  # only a person can see whether boxes fit the turned image
            yield 'image turned by its EXIF tag', f'{name}: orientation {turned[name]}'
    listed = {image['file_name'] for image in content['images']}
    yield from (('not annotated', f'{name} is not in {ann_file}')
                for name in sizes if name not in listed)
    yield from (('image id given twice', f'{ann_file}: {id_}')
                for id_, n in Counter(i['id'] for i in content['images']).items() if n > 1)
    for annotation in content['annotations']:
        place = place_of(annotation, ann_file)
        if annotation['image_id'] not in images:
            yield 'annotation without an image', f'{place}: image {annotation["image_id"]!r}'
            continue
        if annotation['category_id'] not in categories:
            yield ('annotation without a category',
                   f'{place}: category {annotation["category_id"]!r}')
        image = images[annotation['image_id']]
        x, y, width, height = annotation['bbox']
        # Published boxes are rounded to hundredths of a pixel, so an edge may lie just outside.
        if min(x, y) < -1 or x + width > image['width'] + 1 or y + height > image['height'] + 1:
            yield ('box outside its image', f'{place}: {annotation["bbox"]} in '
                   f'{image["width"]} x {image["height"]} ({image["file_name"]})')
        elif width < 0 or height < 0:
            yield 'box of negative size', f'{place}: {annotation["bbox"]} ({image["file_name"]})'
        elif width <= 0 or height <= 0:
            yield 'no area', f'{place}: {annotation["bbox"]} ({image["file_name"]})'


def _read(folder: Path, names: List[str], title: str, run: Run
          ) -> Tuple[Dict[str, ReadImage], List[Problem]]:
    """Images by name, and problems of unreadable ones."""
    read = dict(zip(names, run(read_image, [(str(folder / n),) for n in names],
                               f'{title}: images')))
    return read, [('unreadable image', f'{short_name(folder / name, 2)}: {image.size}')
                  for name, image in read.items() if isinstance(image.size, str)]


def _images_below(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in files_in(folder, IMAGES))


def _unlisted(folder: Path, listed: List[str]) -> List[str]:
    """Images beside those that a file lists."""
    normal = {Path(name).as_posix() for name in listed}
    beside = {Path(name).parent for name in listed}
    missing = any(not os.path.isfile(folder / name) for name in listed)
    # A missing image may be elsewhere; the message then says where.
    return sorted(name for name in _images_below(folder) if name not in normal
                  and (missing or not beside or Path(name).parent in beside))


def _check_more(content: Content, ann_file: str) -> Iterator[Problem]:
    """Find problems that published files do not have."""
    if not content['annotations']:
        yield 'annotation file without any annotation', ann_file
    for kind, values in (('image listed twice', (i['file_name'] for i in content['images'])),
                         ('category id given twice', (c['id'] for c in content['categories'])),
                         ('category name given twice',
                          (c['name'] for c in content['categories']))):
        yield from ((kind, f'{ann_file}: {value}') for value, n in Counter(values).items() if n > 1)
    used = {annotation['category_id'] for annotation in content['annotations']}
    if used:
        yield from (('category without any annotation', f'{ann_file}: {category["name"]}')
                    for category in content['categories'] if category['id'] not in used)
    if used and all(annotation.get('iscrowd') for annotation in content['annotations']):
        yield 'only ignored objects', (f'{ann_file}: every annotation has iscrowd=1, so nothing '
                                       'trains or counts; objects have iscrowd=0')
    boxes = [annotation['bbox'] for annotation in content['annotations']]
    if boxes and all(0 <= value <= 1 for box in boxes for value in box):
        yield ('boxes in parts of the image, not in pixels', f'{ann_file}: such as {boxes[0]}')
        return
    images = {image['id']: image for image in content['images']}
    outside = any(
        box[0] + box[2] > images[a['image_id']]['width'] + 1
        or box[1] + box[3] > images[a['image_id']]['height'] + 1
        for a, box in zip(content['annotations'], boxes) if a['image_id'] in images)
    # If every width exceeds its x, the widths are right edges.
    if outside and len(boxes) >= 5 and all(w > x and h > y for x, y, w, h in boxes):
        yield ('boxes that may be [left, top, right, bottom]',
               f'{ann_file}: COCO has [left, top, width, height]; such as {boxes[0]}')
    seen: Dict[tuple, str] = {}
    for annotation in content['annotations']:
        place = place_of(annotation, ann_file)
        first = seen.setdefault(
            (annotation['image_id'], annotation['category_id'], *annotation['bbox']), place)
        if first != place:
            yield 'same box twice', f'{place}: {annotation["bbox"]}, as {first}'
        width, height = annotation['bbox'][2:]
        if 0 < min(width, height) < 1:
            yield 'box smaller than a pixel', f'{place}: {annotation["bbox"]}; mmdet leaves it out'
        elif min(width, height) > 0 and annotation.get('area', 1) <= 0:
            yield ('area of 0, though the box has one',
                   f'{place}: {annotation["bbox"]}; mmdet leaves it out')


def _categories(content: Content) -> Tuple[Category, ...]:
    boxes = defaultdict(list)
    for annotation in content['annotations']:
        boxes[annotation['category_id']].append(annotation['bbox'][2:])
    return tuple(Category(
        category['name'], len(found := boxes[category['id']]),
        (median(w for w, _ in found), median(h for _, h in found)) if found else None)
        for category in content['categories'])
