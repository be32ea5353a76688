"""COCO files: finding them, and correcting them for mmdet."""
import json
import os
import shlex
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

from ...config_files import typed
from ..checking.coco_files import ReadAnnotations, entries_of, read_annotations, wrong_ids
from ..checking.problems import Content, short_name
from ..folders import SPLITS, DataError, files_in, split_of
from ..images import image_size
from ..pairing import locate
from .data import BoxData, BoxSplit


def find_coco(folder: Path, images: Sequence[Path], ann_files: Sequence[Path], rejected: List[str]
              ) -> Optional[BoxData]:
    """Find COCO files below a folder; None without any.

    The content of a file that mmdet or pycocotools cannot use is corrected, to be written.

    Args:
        folder: The data's folder.
        images: All images in it.
        ann_files: Files to take, in the order train, val, test; empty to search.
        rejected: Extended by reasons why other ``.json`` files are not annotation files.

    Raises:
        DataError: For a wrong file, or several files for one split.
    """
    if len(ann_files) > len(SPLITS):
        raise DataError(f'ann: {len(ann_files)} files; give at most three, in the order TRAIN.json '
                        'VAL.json TEST.json')
    found: Dict[Optional[str], List[Path]] = {}
    read: Dict[Path, ReadAnnotations] = {}
    for path in ann_files or files_in(folder, ['.json']):
        try:
            one = read_annotations(path)
            if not one.content['annotations'] and one.unusable:
                one = _of_panoptic(path)
        except (ValueError, OSError, RecursionError) as error:
            if ann_files:
                raise DataError(f'ann={str(path)!r}: not a COCO file with boxes ({error})'
                                ) from None
            rejected.append(f'{path.relative_to(folder)}: {error}')
            continue
        read[path] = one
        found.setdefault(split_of(path, path.parent if ann_files else folder), []).append(path)
    if not read:
        return None
    data = BoxData('COCO', {})
    for split, path in (_in_order(ann_files) if ann_files else _by_name(folder, found, data.notes)):
        data.splits[split] = _as_split(path, read[path], images, split, folder, data.notes)
    if list(found) == [None] and len(data.splits) == 1:
        _divide(data, folder)
    return data


def _of_panoptic(path: Path) -> ReadAnnotations:
    """Boxes of things in a panoptic segmentation file.

    Raises:
        ValueError: For any other file.
    """
    content = json.loads(path.read_bytes())
    things = [c for c in content['categories'] if isinstance(c, dict) and c.get('isthing')]
    ids = {category.get('id') for category in things}
    boxes = [dict(segment, image_id=annotation.get('image_id'), id=number)
             for number, (annotation, segment) in enumerate((
                 (a, s) for a in content['annotations'] if isinstance(a, dict)
                 for s in a.get('segments_info') or () if isinstance(s, dict)
                 and s.get('category_id') in ids), 1)]
    read = entries_of(dict(content, annotations=boxes, categories=things), short_name(path, 2))
    if not read.content['annotations']:
        raise ValueError(': '.join(read_annotations(path).unusable[0]))
    return read._replace(encoding='for panoptic segmentation; the boxes of its things are '
                         'taken, without masks')


def _divide(data: BoxData, folder: Path) -> None:
    """Divide one file into splits by its images' folders."""
    whole = data.splits['train']
    names: Dict[Optional[str], Set[str]] = {}
    for image in whole.content['images']:
        split = split_of((whole.images / image['file_name']).parent, folder)
        names.setdefault(split, set()).add(image['file_name'])
    if set(names) <= {None, 'train'}:
        return
    without = names.pop(None, set())
    if without and 'train' in names:
        data.notes.append(f'{len(without)} images are in no folder of a split and were left out, '
                          f'such as {min(without)}')
    elif without:
        names['train'] = without
    data.notes.append(f'{whole.source}: its images are divided among {", ".join(sorted(names))}, '
                      'by their folders')
    data.splits = {split: whole.part(part) for split, part in names.items()}


def _in_order(ann_files: Sequence[Path]) -> List[Tuple[str, Path]]:
    """Files with their splits, unless their names contradict the order."""
    named = [split_of(path, path.parent) for path in ann_files]
    order = list(SPLITS[:len(named)])
    if named != order and sorted(map(str, named)) == sorted(order):
        files = shlex.join(str(ann_files[named.index(split)]) for split in order)
        raise DataError(f'ann: {", ".join(map(str, ann_files))}: the names say '
                        f'{", ".join(named)}, the order {", ".join(order)}. Give --ann {files}')
    return list(zip(order, ann_files))


def _by_name(folder: Path, found: Dict[Optional[str], List[Path]], notes: List[str]
             ) -> List[Tuple[str, Path]]:
    """One file for each split; the others are noted."""
    chosen = []
    for split, files in found.items():
        # COCO has captions and keypoints of the same images beside its instances.
        files = [path for path in files if path.name.startswith('instances')] or files
        if split is None and 'train' in found:
            notes.append(f'{", ".join(str(path.relative_to(folder)) for path in files)}: names no '
                         'split, and was left out')
            continue
        if len(files) > 1:
            which = f'name the split {split!r}' if split else 'name no split'
            raise DataError(f'data={str(folder)!r}: several annotation files {which}: '
                            f'{", ".join(map(str, files))}. Name those to take, in this order: '
                            '--ann TRAIN.json VAL.json TEST.json')
        chosen.append((split or 'train', files[0]))
    return chosen


def _as_split(path: Path, read: ReadAnnotations, images: Sequence[Path], split: str, folder: Path,
              notes: List[str]) -> BoxSplit:
    """Split of a file, corrected for mmdet."""
    content = read.content
    names = [image['file_name'] for image in content['images']]
    found = locate(names, images, path, split, folder)
    if not any(found):
        raise DataError(f'{folder}: none of the {len(names)} annotated images exists, such as '
                        f'{names[0]!r}' if names else f'{path}: lists no image')
    place, changes = _renamed(content, found)
    if read.unusable:
        kind, where = read.unusable[0]
        command = shlex.join(['--ann', str(path), '--images', str(place)])
        raise DataError(f'{path}: {kind}: {where.partition(": ")[2]}' + (
            f' (and {len(read.unusable) - 1} more)' if read.unusable[1:] else '')
            + f'. "{typed("prepare_data.py")} check {command}" lists all that is wrong')
    changes += _mended(content, short_name(path, 2), found)
    if read.encoding != 'utf-8':
        changes.append(f'it is {read.encoding}')
    if changes:
        notes.append(f'mmdet cannot use {path} as it is: {"; ".join(changes)}. A corrected copy is '
                     'beside the config')
    return BoxSplit(content, place, path, None if changes else path)


def _renamed(content: Content, found: Sequence[Optional[Path]]) -> Tuple[Path, List[str]]:
    """Folder of all images; other names become relative to it."""
    images = [(image, path) for image, path in zip(content['images'], found) if path]
    name, path = images[0][0]['file_name'], images[0][1]
    place = Path(*path.parts[:-len(Path(name).parts)])
    wrong = next((one for one in images if place / one[0]['file_name'] != one[1]), None)
    if not wrong:
        return place, []
    name = wrong[0]['file_name']
    place = Path(os.path.commonpath([path.parent for _, path in images]))
    for image, path in images:
        image['file_name'] = path.relative_to(place).as_posix()
    return place, [f'images have names such as {name!r}, for {wrong[0]["file_name"]!r}']


def _mended(content: Content, name: str, found: Sequence[Optional[Path]]) -> List[str]:
    """Correct what mmdet or pycocotools cannot use; list the changes."""
    names = list(dict.fromkeys(category['name'] for category in content['categories']))
    changes = [': '.join(problem) for problem in islice(wrong_ids(content, name), 1)]
    if len(names) < len(content['categories']):
        twice = Counter(category['name'] for category in content['categories']).most_common(1)
        changes.append(f'several categories have the name {twice[0][0]!r}')
    numbers = dict(
        image={_key(image['id']): i for i, image in enumerate(content['images'], 1)},
        category={_key(c['id']): names.index(c['name']) + 1 for c in content['categories']})
    # A repeated id is ambiguous: the check reports it.
    if changes and len(numbers['image']) == len(content['images']) and (
            len(numbers['category']) == len(content['categories'])):
        for number, annotation in enumerate(content['annotations'], 1):
            annotation.update({'from': f'{name}: annotation {annotation["id"]}', 'id': number})
            for part, of_id in numbers.items():
                annotation[f'{part}_id'] = of_id.get(_key(annotation[f'{part}_id']), -1)
        for number, image in enumerate(content['images'], 1):
            image['id'] = number
        content['categories'] = [dict(id=i, name=one) for i, one in enumerate(names, 1)]
    lacks = set()
    for image, path in zip(content['images'], found):
        if path and not image.keys() >= {'width', 'height'}:
            lacks.add('width or height of an image')
            image['width'], image['height'] = image_size(path)
    for annotation in content['annotations']:
        lacks.update(f'{key} of an annotation' for key in {'area', 'iscrowd'} - annotation.keys())
        annotation.setdefault('area', annotation['bbox'][2] * annotation['bbox'][3])
        annotation.setdefault('iscrowd', 0)
    return changes + [f'it lacks {", ".join(sorted(lacks))}'] * bool(lacks)


def _key(identity: Any) -> str:
    """Id as text, equal for 1, 1.0 and '1'."""
    return str(int(identity) if isinstance(identity, float) and identity.is_integer() else identity)
