"""Config of a detector for a user's data."""
import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, Collection, Dict, List, Sequence, Set, Tuple

import numpy as np

from ..datasets.boxes import BoxData
from ..datasets.checking.problems import Run, one_by_one
from ..datasets.folders import DataError, few
from .images import choose_reading
from .writing import SMALL, count, fill, inside

_KEPT = 100  # detections of an image that the bases keep


@dataclass(frozen=True)
class _Recipe:
    """Sizes and schedule that suit a network."""
    wanted: int  # size of the smallest objects after resizing, in pixels
    sides: Tuple[int, int]  # limits of the longer side
    multiple: int  # sides are multiples of it
    batch: int
    iterations: int
    least_image: int  # side of the smallest image that the base's filter_cfg keeps


# Small: what half an hour on two cores allows. Published: the sides of the COCO recipe.
_SMALL = _Recipe(16, (256, 640), 32, 4, 2000, 8)
_PUBLISHED = _Recipe(24, (640, 1333), 8, 2, 12000, 32)


def det_config(data: BoxData, root: Path, out: Path, classes: Sequence[str] = (),
               arch: str = SMALL, boxes_only: bool = False, balanced: bool = False,
               run: Run = one_by_one
               ) -> Tuple[str, List[str], Dict[str, Any]]:
    """Choose the config of a detector for a user's data.

    Annotations that are not yet in a COCO file (VOC, YOLO, a validation split taken from the
    training images) are written to ``<OUT's name>_data/`` beside the config.

    Args:
        data: From :func:`fastervit_mm.datasets.boxes.find_boxes`.
        root: The data's folder.
        out: The config's file.
        classes: Categories to detect. Default all that have an object.
        arch: ``'small'``, trained from scratch, or a published variant such as ``'0'``, which
            starts from its ImageNet weights.
        boxes_only: Leave out the data's masks.
        balanced: Show training images of rare classes several times in an epoch.
        run: How images are read; by default one by one.

    Returns:
        The config's text; decisions, one sentence each; and values that the config must have when
        read, by dotted name.

    Raises:
        DataError: For an unknown class, data without an object, or images that cannot be trained
            on together.
    """
    said = list(data.notes)
    names = _choose_classes(data, root, classes, said)
    masks = data.has_masks and not boxes_only
    if not data.has_masks and not boxes_only:
        some = any(a.get('segmentation') for s in data.splits.values()
                   for a in s.content['annotations'])
        said.append(f'{"some" if some else "the"} objects have no mask{"" if some else "s"}, so '
                    'the detector predicts boxes alone')
    train, *others = (found.paths for found in data.splits.values())
    reading = choose_reading(train, [*chain(*others)], arch, said, any_means=False, run=run)
    choice = _choose(data, root, names, masks, balanced, _SMALL if arch == SMALL else _PUBLISHED)
    if choice.empty:
        said.append(f'{choice.empty} of {choice.images + choice.empty} training images have no '
                    'object and are left out; to train on them as background, set '
                    'filter_empty_gt=True to False in the config')
    if balanced:
        said.append(f'{few(choice.rare)}: rare, so that their images come several times, and an '
                    f'epoch has {choice.shown} images instead of {choice.images}' if choice.rare
                    else 'no class is rare: no image comes more than once in an epoch')
    said.append(f'images with a longer side of {choice.side} pixels (most are '
                f'{choice.usual[0]} x {choice.usual[1]}), anchors from {4 * choice.anchors} '
                f'pixels, {choice.epochs} epochs of {choice.steps} iterations')
    _same_order(data, names, said)
    files = _write(data, root, out)
    meant = dict(data_root=root.as_posix() + '/', classes=tuple(names))
    for split, (ann_file, prefix) in files.items():
        place = f'{split}_dataloader.dataset' + '.dataset' * bool(split == 'train' and choice.rare)
        meant.update({f'{place}.ann_file': ann_file, f'{place}.data_prefix.img': prefix})
    kept = math.ceil(choice.busiest * 1.5 / 100) * 100 if choice.busiest > 0.75 * _KEPT else 0
    text = fill('det', arch, root, {name: len(split.content['images'])
                                    for name, split in data.splits.items()}, choice.epochs,
                form=data.form, choice=choice, reading=reading, files=files, kept=kept,
                of_base=_KEPT)
    return text, said, meant


def _choose_classes(data: BoxData, root: Path, classes: Sequence[str], said: List[str]
                    ) -> List[str]:
    """Choose classes, in the order of mmdet's numbers."""
    counts = Counter(name for split in data.splits for name, *_ in data.objects(split))
    if not counts:
        raise DataError(f'data={str(root)!r}: the {data.form} files have no object')
    unknown = [c for c in classes if c not in counts]
    if unknown:
        raise DataError(f'classes={unknown}: no object has this name. The data have '
                        + ', '.join(f'{name} ({n})' for name, n in counts.most_common()))
    unused = [c for c in data.categories if c not in counts]
    if unused and not classes:
        said.append(f'{count(len(unused), "category", "categories")} without an object left out: '
                    f'{few(unused)}')
    names = [c for c in data.categories if c in (classes or counts)]
    if classes and names != list(classes):
        said.append(f'the classes are in the order of the annotations, {few(names)}: mmdet numbers '
                    'them so')
    alike = Counter(name.strip().casefold() for name in names)
    for kind in [kind for kind, n in alike.items() if n > 1]:
        said.append('classes that differ only by capitals or spaces stay separate: ' + ', '.join(
            repr(name) for name in names if name.strip().casefold() == kind))
    return names


def _same_order(data: BoxData, names: List[str], said: List[str]) -> None:
    """Give all splits' categories one order, by which mmdet numbers."""
    for found in data.splits.values():
        categories = {c['name']: c for c in found.content['categories']}
        own = [name for name in categories if name in names]
        if own == names:
            continue
        ids = {c['id'] for c in categories.values()}
        free = iter(sorted(set(range(1, len(ids) + len(names) + 1)) - ids))
        found.content['categories'] = [
            categories.get(name) or dict(id=next(free), name=name) for name in names
        ] + [c for name, c in categories.items() if name not in names]
        found.ann_file = None
        said.append(f'{found.source} has the classes in the order {few(own)}, and the config '
                    f'{few(names)}, by which mmdet numbers them: a copy in this order is beside '
                    'the config')


def _choose(data: BoxData, root: Path, classes: List[str], masks: bool, balanced: bool,
            recipe: _Recipe) -> SimpleNamespace:
    """Choose sizes and schedule from the training split."""
    # As in mmdet, these are left out: images that are too small or have no annotation of the
    # classes; objects that are ignored or have no area.
    content = data.splits['train'].content
    wanted = {c['id'] for c in content['categories'] if c['name'] in classes}
    annotated = {a['image_id'] for a in content['annotations'] if a['category_id'] in wanted}
    large = [i for i in content['images'] if min(i['width'], i['height']) >= recipe.least_image]
    sizes = {i['id']: (i['width'], i['height']) for i in large if i['id'] in annotated}
    objects = [(name, *size, image) for name, size, annotation, image in data.objects('train')
               if name in classes and image['id'] in sizes and not annotation.get('iscrowd')
               and not annotation.get('ignore') and min(size) >= 1]
    if not objects:
        raise DataError(
            f'data={str(root)!r}: the training split has no object of {few(classes)} that counts '
            f'(of at least a pixel, not iscrowd or difficult, in an image of {recipe.least_image} '
            'pixels or more)')
    # Sizes relative to the image's longer side, so that they scale with it.
    sides = defaultdict(list)
    for name, width, height, image in objects:
        side = math.sqrt(width * height)
        sides[name].append(side / max(image['width'], image['height']))
    # A class with few objects says little.
    known = {n: s for n, s in sides.items() if len(s) >= max(5, 0.01 * len(objects))} or sides
    tenths = {name: float(np.quantile(values, 0.1)) for name, values in known.items()}
    smallest = min(tenths, key=tenths.get)
    least, most = recipe.sides
    longest = float(np.median([max(size) for size in sizes.values()]))
    side = min(max(recipe.wanted / tenths[smallest], least), most, max(2 * longest, least))
    side = math.ceil(side / recipe.multiple) * recipe.multiple
    tenth = tenths[smallest] * side
    seen = defaultdict(set)
    for name, *_, image in objects:
        seen[image['id']].add(name)
    unbalanced = 0., [], len(sizes)
    threshold, rare, shown = _balance(seen.values(), len(sizes)) if balanced else unbalanced
    epochs = min(max(math.ceil(recipe.iterations * recipe.batch / shown), 12), 300)
    return SimpleNamespace(
        classes=classes, masks=masks, images=len(sizes), empty=len(large) - len(sizes),
        objects=len(objects), usual=Counter(sizes.values()).most_common(1)[0][0], side=side,
        smallest=smallest, tenth=tenth,  # first decile of its sides, in pixels after resizing
        anchors=next((s for s in (8, 4) if 4 * s <= 1.25 * tenth), 2),  # 4 pixels each
        busiest=max(Counter(image['id'] for *_, image in objects).values()), batch=recipe.batch,
        steps=math.ceil(shown / recipe.batch), epochs=epochs, threshold=threshold, rare=rare,
        shown=shown)


def _balance(seen: Collection[Set[str]], images: int) -> Tuple[float, List[str], int]:
    """Choose the threshold of mmengine's ClassBalancedDataset.

    Args:
        seen: Classes of each image with an object that counts.
        images: Number of all training images.

    Returns:
        The threshold, half the middle class's share of the images; the classes below it; and the
        images of an epoch.
    """
    numbers = Counter(chain.from_iterable(seen))
    threshold = float(f'{median(numbers.values()) / 2 / images:.3g}')
    times = {name: math.ceil(max(1., math.sqrt(threshold * images / number)))
             for name, number in numbers.items()}
    shown = images + sum(max(map(times.get, names)) - 1 for names in seen)
    return threshold, sorted((n for n in times if times[n] > 1), key=numbers.get), shown


def _write(data: BoxData, root: Path, out: Path) -> Dict[str, Tuple[str, str]]:
    """Write missing files; return (annotation file, folder) by split."""
    files = {}
    for split, found in data.splits.items():
        if found.ann_file is None:
            found.ann_file = out.with_name(f'{out.stem}_data') / f'{split}.json'
            found.ann_file.parent.mkdir(parents=True, exist_ok=True)
            found.ann_file.write_text(json.dumps(found.content), encoding='utf-8')
        files[split] = (inside(found.ann_file, root), inside(found.images, root, folder=True))
    return files
