"""Boxes and masks in a folder of somebody's own data: COCO, Pascal VOC or YOLO."""
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import yaml

from .folders import (
    DataError,
    files_in,
    image_folder,
    is_finite,
    share_out,
    split_of,
    text_of,
)
from .images import IMAGES, image_size

_ID = (int, str)
_KEYS = dict(images=dict(id=_ID, file_name=str, width=float, height=float),
             categories=dict(id=_ID, name=str),
             annotations=dict(id=_ID, image_id=_ID, category_id=_ID, bbox=list))
_MOST_CLASSES = 10_000  # that may have no name
_SHARES = dict(train=0.8, val=0.2)


@dataclass
class BoxSplit:
    """A split with its annotations as COCO has them.

    Attributes:
        content: ``images``, ``annotations`` and ``categories``.
        images: The folder to which the images' names are relative.
        ann_file: The file that has the content; None if none has, and one is to be written.
    """
    content: dict
    images: Path
    ann_file: Optional[Path] = None


@dataclass
class BoxData:
    """What was found.

    Attributes:
        form: ``'COCO'``, ``'Pascal VOC'`` or ``'YOLO'``.
        splits: By name; ``'train'`` and ``'val'`` are always there.
        notes: What was done that one would want to know.
    """
    form: str
    splits: Dict[str, BoxSplit]
    notes: List[str] = field(default_factory=list)

    @property
    def categories(self) -> List[str]:
        """Names, in the order of the training split's file, then those of others."""
        return list(dict.fromkeys(c['name'] for split in self.splits.values()
                                  for c in split.content['categories']))

    def objects(self, split: str) -> Iterator[Tuple[str, Tuple[float, float], dict, dict]]:
        """Every object of a split: category, (width, height), its annotation, its image."""
        content = self.splits[split].content
        names = {c['id']: c['name'] for c in content['categories']}
        images = {i['id']: i for i in content['images']}
        for annotation in content['annotations']:
            if annotation['image_id'] in images and annotation['category_id'] in names:
                yield (names[annotation['category_id']], tuple(annotation['bbox'][2:]), annotation,
                       images[annotation['image_id']])

    @property
    def has_masks(self) -> bool:
        """Whether every object has a mask; YOLO's polygons count."""
        annotations = [a for s in self.splits.values() for a in s.content['annotations']]
        return bool(annotations) and all(a.get('segmentation') for a in annotations)


def find_boxes(folder: Path, ann_files: Sequence[Path] = ()) -> BoxData:
    """Look for boxes and masks below a folder.

    Splits are told by the names of files and folders (``train``, ``val``, ``valid``, ``test``, …),
    for VOC by ``ImageSets/Main`` and for YOLO by its ``data.yaml`` first. Without a validation
    split, a fifth of the training images becomes one.

    Args:
        folder: Annotations and images, in any arrangement.
        ann_files: COCO files to take, in place of looking for some.

    Raises:
        DataError: For a folder that has none of the three, or leaves open what is meant.
    """
    if not folder.is_dir():
        raise DataError(f'data={str(folder)!r}: no such folder ({folder.absolute()})')
    images = files_in(folder, IMAGES)
    if not images:
        raise DataError(f'data={str(folder)!r}: no image is in it')
    for find in (_find_coco, _find_voc, _find_yolo):
        data = find(folder, images, ann_files)
        if data is not None:
            _share_out(data)
            return data
    raise DataError(
        f'data={str(folder)!r}: {len(images)} images, but no boxes. Looked for: COCO (a .json with '
        'images, annotations with bbox, and categories), Pascal VOC (an .xml for each image), YOLO '
        '(a .txt for each image, in labels/ beside images/ or next to the image)')


def _find_coco(folder: Path, images: List[Path], ann_files: Sequence[Path]) -> Optional[BoxData]:
    found: Dict[Optional[str], List[Tuple[Path, dict]]] = {}
    for path in ann_files or files_in(folder, ['.json']):
        content = _coco_content(path)
        if content is not None:
            root = folder if path.is_relative_to(folder) else path.parent
            found.setdefault(split_of(path, root), []).append((path, content))
        elif ann_files:
            raise DataError(f'ann={str(path)!r}: no COCO file with boxes; it needs images, '
                            'annotations with bbox, and categories')
    if not found:
        return None
    data = BoxData('COCO', {})
    for split, files in found.items():
        # Beside COCO's instances lie captions and keypoints of the same images.
        files = [f for f in files if f[0].name.startswith('instances')] or files
        if len(files) > 1:
            which = f'name the split {split!r}' if split else 'name no split'
            raise DataError(f'data={str(folder)!r}: several annotation files {which}: '
                            f'{", ".join(str(f) for f, _ in files)}. Name those to take: --ann '
                            'TRAIN.json VAL.json')
        path, content = files[0]
        # A file that names no split is for training, if no other file is.
        split = split or ('train' if 'train' not in found else None)
        if split is None:
            data.notes.append(f'{path.relative_to(folder)} names no split and was left out')
            continue
        place = image_folder([i['file_name'] for i in content['images']], images, split, folder)
        data.splits[split] = BoxSplit(content, place, path)
    return data


def _coco_content(path: Path) -> Optional[dict]:
    try:
        content = json.loads(text_of(path))
    except (ValueError, OSError, RecursionError):
        return None
    if not isinstance(content, dict) or not all(
            isinstance(content.get(kind), list) for kind in _KEYS):
        return None
    if not all(isinstance(a, dict) and 'bbox' in a for a in content['annotations']):
        return None
    # The rest is read without asking; tools/prepare_data.py check lists all that is wrong.
    for kind, keys in _KEYS.items():
        for number, entry in enumerate(content[kind]):
            place = f'{path}: {kind}[{number}]'
            if not isinstance(entry, dict):
                raise DataError(f'{place}={entry!r:.40}: give a dict')
            lacking = [key for key in keys if key not in entry]
            if lacking:
                raise DataError(f'{place} has no {" and no ".join(lacking)}')
            for key, type_ in keys.items():
                if not _is(entry[key], type_):
                    raise DataError(
                        f'{place}: {key}={entry[key]!r:.40}: give '
                        + ('four numbers, [left, top, width, height]' if type_ is list else
                           'a number' if type_ is float else 'a name' if type_ is str else
                           'a whole number or a name'))
    return content


def _is(value: object, type_: Any) -> bool:
    if type_ is list:
        return isinstance(value, list) and len(value) == 4 and all(map(is_finite, value))
    return is_finite(value) if type_ is float else isinstance(value, type_)


def _find_voc(folder: Path, images: List[Path], _) -> Optional[BoxData]:
    files = {}
    for path in files_in(folder, ['.xml']):
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise DataError(f'{path}: no XML that can be read ({error})') from None
        if root.tag == 'annotation':
            files[path] = root
    if not files:
        return None
    listed = {stem: split for split in ('test', 'val', 'train')
              for path in files_in(folder, ['.txt'])
              if path.parent.name == 'Main' and path.stem == split
              for stem in text_of(path).split()}
    names = sorted({o.findtext('name', '').strip() for r in files.values()
                    for o in r.iter('object')})
    by_stem = {path.stem: path for path in images}
    data = BoxData('Pascal VOC', {})
    splits: Dict[str, List] = {}
    unlisted, absent = [], []
    for path, root in files.items():
        image = by_stem.get(path.stem) or by_stem.get(Path(root.findtext('filename', '')).stem)
        if image is None:
            absent.append(path.name)
            continue
        split = listed.get(path.stem) if listed else split_of(path, folder) or 'train'
        if split is None:
            unlisted.append(path.name)
            continue
        boxes = [(o.findtext('name', '').strip(), _voc_box(o, path),
                  None, o.findtext('difficult', '0').strip() == '1') for o in root.iter('object')]
        splits.setdefault(split, []).append((image, boxes))
    for what, which in (('have no image', absent), ('are in no list of ImageSets/Main', unlisted)):
        if which:
            data.notes.append(f'{len(which)} of {len(files)} .xml files {what} and were left out, '
                              f'such as {which[0]}')
    for split, pairs in splits.items():
        data.splits[split] = _as_coco(pairs, names)
    return data


def _voc_box(found: ElementTree.Element, path: Path) -> Tuple[float, float, float, float]:
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


def _find_yolo(folder: Path, images: List[Path], _) -> Optional[BoxData]:
    labels = {path.with_suffix(''): path for path in files_in(folder, ['.txt'])
              if path.stem not in ('classes', 'labels', 'README')}
    pairs = []
    for image in images:
        stem = image.with_suffix('')
        parts = stem.relative_to(folder).parts
        beside = folder.joinpath(*('labels' if part == 'images' else part for part in parts))
        for place in (beside, stem):
            if place in labels:
                pairs.append((image, labels[place]))
                break
    if not pairs:
        return None
    names, settings = _yolo_names(folder)
    data = BoxData('YOLO', {})
    splits: Dict[str, List] = {}
    labelled = {image for image, _ in pairs}
    # An image without a file has no object, where YOLO lists it with the others.
    alone = [i for i in images if i not in labelled and i.parent in {p.parent for p in labelled}]
    for image, path in [*pairs, *((i, None) for i in alone)]:
        boxes = list(_yolo_boxes(image, path, names)) if path else []
        splits.setdefault(_yolo_split(image, folder, settings), []).append((image, boxes))
    if not names:
        highest = max((int(b[0]) for pairs in splits.values() for _, bs in pairs for b in bs),
                      default=-1)
        if not 0 <= highest < _MOST_CLASSES:
            raise DataError(f'{folder}: no data.yaml or classes.txt names the classes, and the '
                            f'labels name {highest + 1} of them; write their names into one')
        names += [f'class_{i}' for i in range(highest + 1)]
        data.notes.append('no data.yaml or classes.txt names the classes; they are called '
                          f'{names[0]} to {names[-1]}: rename them in the config and in the '
                          'annotation files')
        splits = {s: [(i, [(names[int(b[0])], *b[1:]) for b in bs]) for i, bs in pairs]
                  for s, pairs in splits.items()}
    if alone:
        data.notes.append(f'{len(alone)} images have no .txt and count as images without objects')
    for split, found in splits.items():
        data.splits[split] = _as_coco(found, names)
    return data


def _yolo_names(folder: Path) -> Tuple[List[str], dict]:
    for path in files_in(folder, ['.yaml', '.yml']):
        try:
            settings = yaml.safe_load(text_of(path))
        except yaml.YAMLError:
            continue
        names = settings.get('names') if isinstance(settings, dict) else None
        if names:
            names = [names[k] for k in sorted(names)] if isinstance(names, dict) else list(names)
            return list(map(str, names)), settings
    for path in files_in(folder, ['classes.txt', 'obj.names']):
        return [line.strip() for line in text_of(path).splitlines() if line.strip()], {}
    return [], {}


def _yolo_split(image: Path, folder: Path, settings: dict) -> str:
    for split in ('train', 'val', 'test'):
        places = settings.get(split) or []
        for place in [places] if isinstance(places, str) else places:
            parts = [p for p in Path(place).parts if p not in ('.', '..')]
            own = image.relative_to(folder).parts[:-1]
            if parts and any(own[i:i + len(parts)] == tuple(parts) for i in range(len(own))):
                return split
    return split_of(image.parent, folder) or 'train'


def _yolo_boxes(image: Path, path: Path, names: List[str]) -> Iterator[tuple]:
    width, height = image_size(image)
    for number, line in enumerate(text_of(path).splitlines(), 1):
        try:
            kind, *values = line.split() or [None]
            values = [float(v) for v in values]
            if kind is None:
                continue
            name = names[int(kind)] if names else str(int(kind))
            if len(values) < 4 or (len(values) > 5 and len(values) % 2) or not all(
                    map(is_finite, values)):
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(
                f'{path}: line {number}: {line!r}; expected a class from 0 to '
                f'{len(names) - 1 if names else "n"}, then x, y, width and height, or a polygon, '
                'all relative to the image') from None
        if len(values) > 5:
            xs, ys = [v * width for v in values[::2]], [v * height for v in values[1::2]]
            polygon = [round(v, 2) for pair in zip(xs, ys) for v in pair]
            box = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
            yield name, box, [polygon], False
        else:
            x, y, w, h = (v * side for v, side in zip(values, (width, height, width, height)))
            yield name, (x - w / 2, y - h / 2, w, h), None, False


def _as_coco(pairs: Sequence[Tuple[Path, Sequence[tuple]]], names: Sequence[str]) -> BoxSplit:
    """Images with (name, box, polygons or None, ignored) as a COCO split."""
    folder = Path(*_common([image.parent.parts for image, _ in pairs]))
    content = dict(images=[], annotations=[],
                   categories=[dict(id=i, name=n) for i, n in enumerate(names, 1)])
    ids = {name: i for i, name in enumerate(names, 1)}
    for number, (image, boxes) in enumerate(pairs, 1):
        width, height = image_size(image)
        content['images'].append(dict(id=number, file_name=image.relative_to(folder).as_posix(),
                                      width=width, height=height))
        for name, box, polygons, ignored in boxes:
            annotation = dict(id=len(content['annotations']) + 1, image_id=number,
                              category_id=ids[name], bbox=[round(v, 2) for v in box],
                              area=round(box[2] * box[3], 2), iscrowd=int(ignored))
            if polygons:
                annotation['segmentation'] = polygons
            content['annotations'].append(annotation)
    return BoxSplit(content, folder)


def _common(paths: Sequence[Tuple[str, ...]]) -> Tuple[str, ...]:
    first, *others = paths
    length = len(first)
    for other in others:
        length = next((i for i, (a, b) in enumerate(zip(first[:length], other)) if a != b),
                      min(length, len(other)))
    return first[:length]


def _share_out(data: BoxData) -> None:
    """Make a validation split of a fifth of the training images, where there is none."""
    if 'train' not in data.splits:
        raise DataError(f'the {data.form} data have no training split, only '
                        f'{", ".join(map(repr, data.splits))}')
    if 'val' in data.splits:
        return
    whole = data.splits['train']
    shares = share_out([i['file_name'] for i in whole.content['images']], _SHARES)
    for split, names in shares.items():
        names = set(names)
        images = [i for i in whole.content['images'] if i['file_name'] in names]
        ids = {i['id'] for i in images}
        data.splits[split] = BoxSplit(dict(
            whole.content, images=images,
            annotations=[a for a in whole.content['annotations'] if a['image_id'] in ids]),
            whole.images)
    data.notes.append(
        f'no validation split: {len(shares["val"])} of {len(whole.content["images"])} training '
        'images, chosen by the checksum of their names, became one')
