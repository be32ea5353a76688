"""Reading and writing label maps."""
from collections import Counter
from pathlib import Path
from typing import Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np
from PIL import Image

from .folders import few
from .images import opened

VOID = 255  # mmseg ignores this label, and keeps labels in 8 bits
GREY = 0x010101  # a colour is 65536 * red + 256 * green + blue


class LabelMap(NamedTuple):
    """Content of a label map.

    Attributes:
        size: (width, height); the reason, a str, if it cannot be read.
        pixels: Number of pixels by label, or by colour if some are not grey.
        mode: Pillow's, such as ``'P'`` for a palette.
        channels: Channels of the file.
        format: Such as ``'PNG'``.
        palette: The colour of each label, if there is a palette.
    """
    size: Union[Tuple[int, int], str]
    pixels: Mapping[int, int] = {}
    mode: str = ''
    channels: int = 1
    format: Optional[str] = None
    palette: Mapping[int, Tuple[int, ...]] = {}

    @property
    def area(self) -> int:
        """Number of pixels; 0 if it cannot be read."""
        return sum(self.pixels.values())

    @property
    def coloured(self) -> bool:
        return self.channels > 2 and any(label > VOID for label in self.pixels)


def read_label_map(path: Path) -> LabelMap:
    """Decode a label map fully, with labels of any size."""
    try:
        with opened(path) as image:
            image.load()
            labels, counts = np.unique(_labels(image), return_counts=True)
            pixels = dict(zip(labels.astype(int).tolist(), counts.tolist()))
            channels = len(image.getbands())
            if channels > 2 and all(colour % GREY == 0 for colour in pixels):
                pixels = {colour // GREY: count for colour, count in pixels.items()}
            palette = image.getpalette() or [] if image.mode == 'P' else []
            return LabelMap(image.size, pixels, image.mode, channels, image.format, {
                i: tuple(palette[3 * i:3 * i + 3]) for i in pixels if palette})
    except Exception as error:  # noqa: BLE001  a decoder may raise anything for a damaged file
        return LabelMap(f'{type(error).__name__}: {error}')


def write_label_map(path: Path, target: Path, numbers: Optional[Mapping[int, int]]) -> None:
    """Rewrite a label map as a one-channel PNG.

    Args:
        path: Any file that :func:`read_label_map` reads.
        target: The file to write.
        numbers: Label, or colour, -> new label. None to keep labels.
    """
    with opened(path) as image:
        labels = _labels(image)
    if numbers is None:
        labels = labels & 255  # greys as labels
    else:
        old = sorted(numbers)
        labels = np.array([numbers[label] for label in old])[np.searchsorted(old, labels)]
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(target)


def renumbered(pixels: Mapping[int, int], numbers: Optional[Mapping[int, int]]) -> Counter:
    """Number of pixels by new label."""
    counted: Counter = Counter()
    for label, count in pixels.items():
        counted[numbers[label] if numbers else label] += count
    return counted


def colours_of(pixels: Mapping[int, int]) -> str:
    """Colours as text, the most frequent first."""
    order = sorted(pixels, key=pixels.get, reverse=True)
    return few([(c >> 16, c >> 8 & 255, c & 255) for c in order])


def _labels(image: Image.Image) -> np.ndarray:
    """(H, W) labels, or colours if there are several channels."""
    labels = np.asarray(image)
    if labels.dtype.kind == 'f':
        if not np.array_equal(labels, np.round(labels)):
            raise ValueError('it holds values that are not whole numbers')
        labels = labels.astype(np.int64)
    if labels.ndim == 3:  # alpha, the last of two or four channels, does not matter
        channels = np.moveaxis(labels, 2, 0).astype(np.int32)
        labels = channels[0] if len(channels) == 2 else (
            channels[0] << 16 | channels[1] << 8 | channels[2])
    return labels
