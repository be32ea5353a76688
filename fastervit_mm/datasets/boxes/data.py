"""Boxes and masks of a user's data, of any format."""
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Collection, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..checking.problems import Problem, Run
from ..images import image_size


class Box(NamedTuple):
    """An object of VOC or YOLO.

    Attributes:
        name: Its class.
        box: (left, top, width, height) in pixels.
        place: Where it was found, for messages.
        polygon: (x1, y1, x2, y2, …) in pixels; None without a mask.
        ignored: Whether training and evaluation ignore it.
    """
    name: str
    box: Tuple[float, float, float, float]
    place: str
    polygon: Optional[List[float]] = None
    ignored: bool = False


@dataclass
class BoxSplit:
    """A split, with annotations in COCO's form.

    Attributes:
        content: ``images``, ``annotations`` and ``categories``. An annotation's ``from`` is its
            origin, for messages.
        images: The folder to which the images' names are relative.
        source: The file or folder that it was read from, for messages.
        ann_file: The file with this content; None if it has to be written.
        problems: Problems found while reading.
    """
    content: dict
    images: Path
    source: Path
    ann_file: Optional[Path] = None
    problems: List[Problem] = field(default_factory=list)

    @property
    def paths(self) -> List[Path]:
        """Images that exist."""
        paths = (self.images / image['file_name'] for image in self.content['images'])
        return [path for path in paths if os.path.isfile(path)]

    def part(self, names: Collection[str]) -> 'BoxSplit':
        """Split with only the images of these names."""
        images = [image for image in self.content['images'] if image['file_name'] in names]
        ids = {image['id'] for image in images}
        annotations = [a for a in self.content['annotations'] if a['image_id'] in ids]
        return BoxSplit(dict(self.content, images=images, annotations=annotations), self.images,
                        self.source)


@dataclass
class BoxData:
    """Boxes of all splits.

    Attributes:
        form: ``'COCO'``, ``'Pascal VOC'`` or ``'YOLO'``.
        splits: By name; from :func:`find_boxes` ``'train'``, ``'val'`` and perhaps ``'test'``.
        notes: Decisions, one sentence each.
    """
    form: str
    splits: Dict[str, BoxSplit]
    notes: List[str] = field(default_factory=list)

    @property
    def categories(self) -> List[str]:
        """Names, those of the training split first."""
        return list(dict.fromkeys(c['name'] for split in self.splits.values()
                                  for c in split.content['categories']))

    def objects(self, split: str) -> Iterator[Tuple[str, Tuple[float, float], dict, dict]]:
        """Category, (width, height), annotation and image of every object."""
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


def sizes_of(images: Sequence[Path], run: Run) -> Dict[Path, Tuple[int, int]]:
    """(width, height) of images, with progress.

    Raises:
        ValueError: For a file that is not an image.
    """
    return dict(zip(images, run(image_size, [(image,) for image in images], 'sizes of images')))


def as_coco(pairs: Sequence[Tuple[Path, Sequence[Box]]], names: Sequence[str],
            sizes: Dict[Path, Tuple[int, int]], source: Path) -> BoxSplit:
    """Images and objects in COCO's form, with ``names`` as categories."""
    folder = Path(os.path.commonpath([image.parent for image, _ in pairs]))
    ids = {name: i for i, name in enumerate(dict.fromkeys(names), 1)}
    content = dict(images=[], annotations=[],
                   categories=[dict(id=i, name=name) for name, i in ids.items()])
    for number, (image, boxes) in enumerate(pairs, 1):
        width, height = sizes[image]
        content['images'].append(dict(id=number, file_name=image.relative_to(folder).as_posix(),
                                      width=width, height=height))
        for one in boxes:
            content['annotations'].append({
                'id': len(content['annotations']) + 1, 'image_id': number,
                'category_id': ids[one.name], 'bbox': [round(v, 2) for v in one.box],
                'area': round(one.box[2] * one.box[3], 2), 'iscrowd': int(one.ignored),
                'from': one.place, **(dict(segmentation=[one.polygon]) if one.polygon else {})})
    return BoxSplit(content, folder, source)
