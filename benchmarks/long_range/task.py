"""Long-range task: one distant mark determines every object's class.

At one side of the image is a coloured bar, the mark; elsewhere are discs on noise. The class of a
disc's pixels is the colour of the bar, on which nothing else in the image depends. So a network
that does not see the bar from a disc is right one time in four. Each disc's distance from the bar
is known.
"""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple, Union

import numpy as np
from rich.progress import track

from benchmarks.generating import generate, write_image

CLASSES = ('red', 'blue', 'green', 'yellow')
PALETTE = [(230, 25, 25), (25, 25, 230), (25, 200, 25), (230, 230, 25)]  # RGB
SIZE = 128  # side of an image, in pixels
_NEAREST = 16  # pixels from the bar to the middle of a disc
_RANGES = 5  # number of ranges of distances in results
RADIUS = 8  # of a disc, in pixels
IGNORED = 255  # label of pixels outside discs
# Seeds do not overlap: no validation image is used in training.
FIRST_SEED = dict(train=0, val=1_000_000)
_BAR = 8  # its width
_DISCS = 6


@dataclass
class LongRangeScene:
    """Image with its label and objects.

    Attributes:
        image: (size, size, 3) uint8, BGR as OpenCV has it.
        label: Index into :data:`CLASSES`, the colour of the mark.
        mark: (size, size) bool, its pixels.
        discs: (6, 3): x and y of the centre of each, and its distance from the middle of the bar;
            in pixels.
    """
    image: np.ndarray
    label: int
    mark: np.ndarray
    discs: np.ndarray


def draw_long_range(seed: int, size: int = SIZE) -> LongRangeScene:
    """Draw the scene of a seed.

    Distances are 16 to ``size - 13`` pixels; in a larger image bar, discs and noise keep their size
    in pixels.

    Args:
        seed: Any integer from 0 to 2**32 - 1.
        size: Side of the image, in pixels, at least 128. Default 128.

    Raises:
        ValueError: For an image too small.
    """
    if size < SIZE:
        raise ValueError(f'size={size}: give at least {SIZE} pixels')
    random = np.random.RandomState(seed)  # its stream is the same in every numpy
    label = random.randint(len(CLASSES))
    side = random.randint(4)  # of the bar
    discs: List[np.ndarray] = []
    while len(discs) < _DISCS:
        distance, along = random.uniform(
            (_NEAREST, RADIUS + 1), (size - RADIUS - 1 - _BAR / 2, size - RADIUS - 1))
        across = distance + _BAR / 2
        x, y = [(across, along), (along, across), (size - across, along), (along, size - across)][
            side]
        if all(np.hypot(x - other[0], y - other[1]) > 2 * RADIUS + 2 for other in discs):
            discs.append(np.array([x, y, distance]))
    image = _noise(random, size)
    mark = np.zeros((size, size), bool)
    bar = slice(_BAR) if side < 2 else slice(-_BAR, None)
    mark[(slice(None), bar) if side % 2 == 0 else bar] = True
    image[mark] = PALETTE[label][::-1]
    for disc in discs:
        image[inside(disc, image.shape)] = 255
    return LongRangeScene(image, label, mark, np.array(discs))


def inside(disc: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """(H, W) mask of a disc, from its centre (x, y)."""
    y, x = np.ogrid[:shape[0], :shape[1]]
    return (x + 0.5 - disc[0])**2 + (y + 0.5 - disc[1])**2 <= RADIUS**2


def majority_class(labels: np.ndarray) -> int:
    """Most frequent label, the smallest if several are."""
    return int(np.bincount(labels).argmax())


def label_map(scene: LongRangeScene) -> np.ndarray:
    """Label map, (size, size) uint8: 255 outside discs."""
    labels = np.full(scene.image.shape[:2], IGNORED, np.uint8)
    for disc in scene.discs:
        labels[inside(disc, labels.shape)] = scene.label
    return labels


def edges(size: int = SIZE) -> Tuple[int, ...]:
    """Six distances in pixels, the edges of five equal ranges.

    Args:
        size: Side of the images, in pixels. Default 128, for 16, 36, 56, 76, 96 and 116.
    """
    furthest = size - 12
    return tuple(_NEAREST + number * (furthest - _NEAREST) // _RANGES
                 for number in range(_RANGES + 1))


def make_long_range(root: Union[str, Path], size: int = SIZE, train: int = 1600,
                    val: int = 200) -> Path:
    """Generate the long-range dataset, unless it is complete.

    Images are PNG files in ``train/`` and ``val/``, label maps in ``labels/{train,val}/``
    (:func:`label_map`). ``discs/{train,val}.json`` has x, y and distance of the discs by image
    file. The files are the same, byte for byte, on every machine.

    Args:
        root: Folder of the dataset, such as ``data/long_range``.
        size: Side of the images, in pixels, at least 128. Default 128.
        train: Number of images for training. Default 1600.
        val: Number of images for validation. Default 200.

    Returns:
        The folder.

    Raises:
        FileExistsError: For a folder with other files; nothing in it is changed.
    """
    counts = dict(train=train, val=val)

    def write(folder: Path) -> None:
        for split, count in counts.items():
            _write_split(folder, split, count, size)
    return generate(root, dict(kind='long-range', version=2, images=counts, size=size), write)


def accuracy_over_distance(distances: Sequence[float], right: Sequence[bool],
                           size: int = SIZE) -> Dict[str, float]:
    """Share of right discs by range of distances.

    Ranges are named such as ``'16-36'``. The last one includes all larger distances. A range
    without discs is left out.

    Args:
        distances: Of each disc from the bar, in pixels.
        right: Whether each has the right class.
        size: Side of the images, in pixels, whose :func:`edges` are used. Default 128.
    """
    found, ends = {}, edges(size)
    for near, far in zip(ends, ends[1:]):
        chosen = [ok for distance, ok in zip(distances, right)
                  if near <= distance < far or far == ends[-1] <= distance]
        if chosen:
            found[f'{near}-{far}'] = sum(chosen) / len(chosen)
    return found


def read_discs(root: str, split: str) -> Dict[str, List[Tuple[float, float, float]]]:
    """Discs by image file: x, y and distance, in pixels.

    Args:
        root: Folder of the dataset.
        split: ``'train'`` or ``'val'``.
    """
    return json.loads((Path(root) / 'discs' / f'{split}.json').read_text())


def _write_split(root: Path, split: str, count: int, size: int) -> None:
    discs = {}
    for number in track(range(1, count + 1), description=f'{split:>5}', transient=True):
        scene = draw_long_range(FIRST_SEED[split] + number, size)
        name = f'{number:06d}.png'
        write_image(root / split / name, scene.image)
        write_image(root / 'labels' / split / name, label_map(scene))
        discs[name] = scene.discs.round(2).tolist()
    (root / 'discs').mkdir(exist_ok=True)
    (root / 'discs' / f'{split}.json').write_text(json.dumps(discs))


def _noise(random: np.random.RandomState, size: int) -> np.ndarray:
    """(size, size, 3) uint8: coarse gray noise plus fine coloured noise."""
    coarse = random.randint(80, 140, (-(-size // 8),) * 2).astype(np.uint8)
    coarse = np.kron(coarse, np.ones((8, 8), np.uint8))[:size, :size]
    return coarse[..., None] + random.randint(0, 24, (size, size, 3)).astype(np.uint8)
