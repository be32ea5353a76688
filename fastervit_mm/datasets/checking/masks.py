"""Checks of the masks in COCO files."""
import math
import re
from typing import Any, Dict, Iterator, List, Tuple

from pycocotools import mask as mask_utils

from ..folders import is_finite
from .problems import Content, Problem, place_of

_BEYOND = 3  # pixels by which a polygon may exceed its image: tools round, or allow a far edge


def check_masks(content: Content, ann_file: str) -> Iterator[Problem]:
    """Find problems of the masks in a COCO file.

    Args:
        content: Content of the file.
        ann_file: Name of the file, for messages.
    """
    images = {image['id']: image for image in content['images']}
    if not any(annotation.get('segmentation') for annotation in content['annotations']):
        return
    for annotation in content['annotations']:
        image = images.get(annotation['image_id'])
        if image is None:
            continue
        place = place_of(annotation, ann_file)
        segmentation, size = annotation.get('segmentation'), (image['height'], image['width'])
        if segmentation is None:
            yield 'segmentation missing, others have one', f'{place} ({image["file_name"]})'
        elif not segmentation:
            yield 'empty segmentation', f'{place} ({image["file_name"]})'
        elif not isinstance(segmentation, (list, dict)):
            yield 'malformed segmentation', f'{place}: a {type(segmentation).__name__}'
        else:
            check = _check_polygons if isinstance(segmentation, list) else _check_run_lengths
            for kind, what in check(segmentation, size):
                yield kind, f'{place}: {what} ({image["file_name"]})'


def _check_polygons(polygons: List[Any], size: Tuple[float, float]) -> Iterator[Problem]:
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(map(is_finite, polygon)):
            yield ('malformed segmentation', 'a list of polygons of finite numbers is expected, '
                   '[[x1, y1, x2, y2, ...], ...]')
            return  # report a list of numbers once
        if len(polygon) % 2:
            yield 'polygon with an odd count of numbers', f'{len(polygon)} numbers'
        elif len(polygon) < 6:
            yield 'polygon with fewer than 6 numbers', str(polygon)
        else:
            height, width = size
            left, right, top, bottom = (end(polygon[i::2]) for i in (0, 1) for end in (min, max))
            if max(-left, -top, right - width, bottom - height) > _BEYOND:
                yield ('polygon outside its image', f'x from {left:g} to {right:g}, y from '
                       f'{top:g} to {bottom:g} in {width} x {height}')


def _check_run_lengths(rle: Dict[str, Any], size: Tuple[float, float]) -> Iterator[Problem]:
    said, counts = rle.get('size'), rle.get('counts')
    if (not isinstance(said, list) or not all(isinstance(v, int) for v in said)
            or not isinstance(counts, (list, str))):
        yield ('malformed segmentation', 'run lengths have a size, [height, width], and counts, '
               'a list or a str')
        return
    if tuple(said) != size and math.inf not in size:
        yield ('run lengths of another size than the image',
               f'{said} (height, width), the image {list(size)}')
        return
    try:
        # From run lengths that are too short pycocotools decodes uninitialised memory.
        runs = counts if isinstance(counts, list) else _decompressed(counts)
        if sum(runs) != said[0] * said[1] or min(runs) < 0:
            raise ValueError
        if isinstance(counts, list):
            rle = mask_utils.frPyObjects(rle, *said)
        if mask_utils.area(rle) == 0:
            yield 'empty segmentation', 'run lengths of a mask without a pixel'
    except (ValueError, TypeError, OverflowError):
        yield 'run lengths that cannot be decoded', (
            'they do not add up to height x width of the image')


def _decompressed(counts: str) -> List[int]:
    """Decompress COCO's run lengths, as ``rleFrString`` of pycocotools does.

    Each character holds five bits of a number. From the fourth on, a number is the difference from
    the one two places earlier.
    """
    numbers = re.findall('[P-o]{0,12}[0-O]', counts)  # the last character of each is below P
    if ''.join(numbers) != counts:
        raise ValueError('not compressed run lengths')
    runs: List[int] = []
    for number in numbers:
        bits = [ord(character) - 48 & 31 for character in number]
        value = sum(five << 5 * i for i, five in enumerate(bits))
        if bits[-1] & 16:
            value -= 1 << 5 * len(bits)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
