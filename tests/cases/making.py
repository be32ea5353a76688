"""Small pictures and annotation files in the forms of other people's data."""
import json
import random
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw

COLOURS = [(220, 40, 40), (40, 60, 220), (40, 180, 60), (220, 200, 40)]
Box = Tuple[int, int, int, int, int]  # class, left, top, width, height
SIZE = (96, 64)


def some_boxes(seed: int, classes: int = 2, size: Tuple[int, int] = SIZE, number: int = 3
               ) -> List[Box]:
    chosen, boxes = random.Random(seed), []
    for _ in range(number):
        width, height = chosen.randint(12, 28), chosen.randint(12, 28)
        boxes.append((chosen.randrange(classes), chosen.randint(0, size[0] - width),
                      chosen.randint(0, size[1] - height), width, height))
    return boxes


def picture(path: Path, boxes: Sequence[Box] = (), size: Tuple[int, int] = SIZE, seed: int = 0,
            mode: str = 'RGB', **saving) -> None:
    """A picture of rectangles in their classes' colours, on noise."""
    noise = np.random.default_rng(seed).integers(90, 130, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    for label, x, y, w, h in boxes:
        ImageDraw.Draw(image).rectangle([x, y, x + w - 1, y + h - 1], fill=COLOURS[label % 4])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path, **saving)


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding='utf-8')
    return path


def coco(path: Path, images: Dict[str, Sequence[Box]], names: Sequence[str],
         size: Tuple[int, int] = SIZE, ids: Optional[Sequence[int]] = None) -> dict:
    """A COCO file of the boxes of each image, by ``file_name``; returns its content."""
    ids = list(range(1, len(names) + 1)) if ids is None else ids
    content = dict(images=[], annotations=[],
                   categories=[dict(id=i, name=name) for i, name in zip(ids, names)])
    for number, (name, boxes) in enumerate(images.items(), 1):
        content['images'].append(dict(id=number, file_name=name, width=size[0], height=size[1]))
        for label, x, y, w, h in boxes:
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=number, category_id=ids[label],
                bbox=[x, y, w, h], area=w * h, iscrowd=0))
    text(path, json.dumps(content))
    return content


def yolo(path: Path, boxes: Sequence[Box], size: Tuple[int, int] = SIZE) -> None:
    text(path, ''.join(
        f'{label} {(x + w / 2) / size[0]:.6f} {(y + h / 2) / size[1]:.6f} {w / size[0]:.6f} '
        f'{h / size[1]:.6f}\n' for label, x, y, w, h in boxes))


def voc(path: Path, filename: str, boxes: Sequence[Box], names: Sequence[str],
        size: Tuple[int, int] = SIZE) -> None:
    objects = ''.join(
        f'<object><name>{names[label]}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
        f'<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
        for label, x, y, w, h in boxes)
    text(path, f'<annotation><filename>{filename}</filename><size><width>{size[0]}</width><height>'
         f'{size[1]}</height><depth>3</depth></size>{objects}</annotation>')


def label_map(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels)).save(path)
