"""Images of shapes; a seed gives the same everywhere.

Only the outline determines a shape's class: colours and textures have the same distribution for all
classes. Shapes overlap, are rotated, and many are small; the ground is cluttered with gradients,
stripes, scribbles and blobs that belong to no class.
"""
from dataclasses import dataclass
from typing import List, Optional, Tuple

import cv2
import numpy as np

CLASSES = ('circle', 'square', 'triangle', 'star')
PALETTE = [(220, 20, 60), (30, 144, 255), (60, 179, 113), (255, 165, 0)]  # RGB, for drawing
_FINE = 4  # subpixels along a pixel's side; edges are smooth as in a photograph


@dataclass
class Instance:
    """One shape, or a crowd of inseparable shapes.

    Attributes:
        label: Index into :data:`CLASSES`.
        mask: (H, W) bool, its visible pixels.
        is_crowd: Whether it is a group, as COCO's ``iscrowd``.
    """
    label: int
    mask: np.ndarray
    is_crowd: bool = False


@dataclass
class Scene:
    """An image and its instances.

    Attributes:
        image: (H, W, 3) uint8, BGR as OpenCV has it.
        instances: Shapes from back to front.
    """
    image: np.ndarray
    instances: List[Instance]


def outline(label: int) -> np.ndarray:
    """Corners of a class's outline, (N, 2), radius 1, centre 0."""
    name = CLASSES[label]
    if name == 'circle':
        return _polar(np.arange(48) / 48, 1.0)
    if name == 'square':
        return _polar(np.arange(4) / 4, 1.0)
    if name == 'triangle':
        return _polar(np.arange(3) / 3, 1.0)
    return _polar(np.arange(10) / 10, np.where(np.arange(10) % 2, 0.42, 1.0))


def draw_scene(seed: int, size: int = 160, max_shapes: int = 7) -> Scene:
    """Draw the scene of a seed.

    Args:
        seed: Any integer from 0 to 2**32 - 1.
        size: Side of the image, in pixels.
        max_shapes: Largest number of shapes; the smallest is 3.

    Returns:
        The scene, without shapes that would be more than half hidden.
    """
    # RandomState's stream never changes; default_rng's may change with numpy.
    random = np.random.RandomState(seed)
    image = _ground(random, size)
    shapes = []
    for _ in range(random.randint(3, max_shapes + 1)):
        # At 160 pixels, half of them are small by COCO's definition (an area below 32 x 32).
        radius = random.uniform(13, 18) if random.rand() < 0.5 else random.uniform(18, 42)
        radius *= size / 160
        centre = random.uniform(0.8 * radius, size - 0.8 * radius, 2)
        label = random.randint(len(CLASSES))
        coverage = _coverage(label, centre, radius, random.uniform(0, 2 * np.pi), size)
        behind = image[coverage >= 0.5].mean(axis=0)
        shapes.append((label, coverage, _paint(random, size, unlike=behind)))
    crowd = _crowd(random, size) if random.rand() < 0.1 else None

    # From front to back: a shape is kept if at least half of it stays visible.
    kept, hidden = [], np.zeros((size, size), bool)
    for label, coverage, paint in reversed(shapes):
        whole = coverage >= 0.5
        seen = whole & ~hidden
        if seen.sum() >= whole.sum() / 2:
            kept.append((Instance(label, seen), coverage, paint))
            hidden |= whole
    instances = []
    if crowd is not None:
        label, coverages, paints = crowd
        for coverage, paint in zip(coverages, paints):
            _blend(image, coverage, paint)
        seen = (np.max(coverages, axis=0) >= 0.5) & ~hidden
        if seen.any():
            instances.append(Instance(label, seen, is_crowd=True))
    for instance, coverage, paint in reversed(kept):
        _blend(image, coverage, paint)
        instances.append(instance)
    image += random.normal(0, 5, image.shape)
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), instances)


def _polar(turns: np.ndarray, radius) -> np.ndarray:
    angle = 2 * np.pi * turns
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _coverage(label: int, centre: np.ndarray, radius: float, angle: float,
              size: int) -> np.ndarray:
    """Covered share of each pixel, (size, size)."""
    cos, sin = np.cos(angle), np.sin(angle)
    corners = outline(label) @ np.array([[cos, sin], [-sin, cos]]) * radius + centre
    # 16 subpixels of 0 or 240 average to whole numbers, so no rounding differs between machines.
    fine = np.zeros((size * _FINE, size * _FINE), np.uint8)
    cv2.fillPoly(fine, [np.rint(corners * _FINE).astype(np.int32)], 240)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / 240


def _crowd(random: np.random.RandomState, size: int) -> Tuple[int, List, List]:
    """Many tiny shapes of one class around one place."""
    label = random.randint(len(CLASSES))
    centre = random.uniform(0.2 * size, 0.8 * size, 2)
    coverages, paints = [], []
    for _ in range(random.randint(10, 18)):
        place = centre + random.normal(0, 0.07 * size, 2)
        coverages.append(_coverage(label, place, random.uniform(0.02, 0.035) * size,
                                   random.uniform(0, 2 * np.pi), size))
        paints.append(_paint(random, size))
    return label, coverages, paints


def _blend(image: np.ndarray, coverage: np.ndarray, paint: np.ndarray) -> None:
    image += coverage[..., None] * (paint - image)


def _paint(random: np.random.RandomState, size: int, unlike: Optional[np.ndarray] = None
           ) -> np.ndarray:
    """(size, size, 3) plain, shaded or striped paint, contrasting with ``unlike``."""
    colour, other = random.uniform(0, 255, (2, 3))
    while unlike is not None and np.abs(colour - unlike).max() < 90:
        colour = random.uniform(0, 255, 3)
    kind = random.randint(3)
    if kind == 0:
        mix = np.zeros((size, size))
    elif kind == 1:
        mix = 0.4 * _ramp(random, size)
    else:
        mix = 0.25 * (np.sin(_ramp(random, size) * random.uniform(40, 120)) > 0)
    return colour + mix[..., None] * (other - colour)


def _ramp(random: np.random.RandomState, size: int) -> np.ndarray:
    """(size, size) in [0, 1], rising in one direction."""
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / size
    ramp = x * np.cos(angle) + y * np.sin(angle)
    return (ramp - ramp.min()) / (ramp.max() - ramp.min())


def _ground(random: np.random.RandomState, size: int) -> np.ndarray:
    """(size, size, 3): a cluttered background."""
    image = _paint(random, size)
    coarse = random.normal(0, 20, (6, 6, 3))
    image = image + cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    for _ in range(random.randint(2, 7)):
        # Scribbles and blobs have the shapes' colours, so that colour does not identify shapes.
        clutter = np.zeros((size, size), np.uint8)
        if random.rand() < 0.5:
            points = random.uniform(-0.1, 1.1, 2) * size + np.cumsum(
                random.normal(0, 0.1 * size, (8, 2)), axis=0)
            cv2.polylines(clutter, [np.rint(points).astype(np.int32)], False, 1,
                          thickness=random.randint(1, 4))
        else:
            radii = random.uniform(0.3, 1.0, 9) * random.uniform(0.05, 0.16) * size
            points = _polar(np.arange(9) / 9, radii) + random.uniform(0, size, 2)
            cv2.fillPoly(clutter, [np.rint(points).astype(np.int32)], 1)
        _blend(image, 0.4 * clutter, _paint(random, size))
    return image
