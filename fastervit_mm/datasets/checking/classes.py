"""Checks of ImageNet-1K's images and their classes."""
from collections import Counter
from pathlib import Path
from typing import List, Sequence

from ..folders import lines_of
from .problems import Problem


def check_class_folders(images: Sequence[str], each: int) -> List[Problem]:
    """Check images in folders of ImageNet-1K's classes.

    Args:
        images: Paths from the split's folder, such as ``n01440764/name.JPEG``.
        each: Published number of images of a class.
    """
    from timm.data import ImageNetInfo
    known = ImageNetInfo().label_names()
    counts = Counter(Path(name).parent.as_posix() for name in images)
    problems = [('folder that is not a class of ImageNet-1K', name) for name in sorted(counts)
                if name not in set(known)]
    problems += [('class without a folder of images', name) for name in known
                 if name not in counts]
    return problems + [
        ('number of images of a class differs from the published',
         f'{name}: {counts[name]}, published {each}')
        for name in known if counts[name] not in (0, each)]


def check_class_list(path: Path, images: Sequence[str], num_classes: int, each: int
                     ) -> List[Problem]:
    """Check a list of images and classes, such as ``meta/val.txt``.

    Args:
        path: The list: in each line an image's path from the split's folder, and a number.
        images: Paths of the images that exist.
        num_classes: Classes are numbered from 0.
        each: Published number of images of a class.
    """
    listed: Counter = Counter()
    counts: Counter = Counter()
    problems: List[Problem] = []
    for number, line in enumerate(lines_of(path), 1):
        name, _, label = line.rpartition(' ')
        place = f'{path.name}: line {number}: {line[:60]!r}'
        if not name or not (label.isascii() and label.isdigit()):
            problems.append(('malformed line', f'{place}; expected "image class"'))
            continue
        listed[name] += 1
        if int(label) >= num_classes:
            problems.append(('class out of range', f'{place}; classes are 0 to {num_classes - 1}'))
        else:
            counts[int(label)] += 1
    there = set(images)
    for kind, names in (
            ('listed image that is missing', listed.keys() - there),
            ('image listed more than once', {name for name, n in listed.items() if n > 1}),
            ('image that is not listed', there - listed.keys())):
        problems += [(kind, f'{path.name}: {name}') for name in sorted(names)]
    return problems + [
        ('number of images of a class differs from the published',
         f'{path.name}: class {label}: {counts[label]}, published {each}')
        for label in range(num_classes) if counts[label] != each]
