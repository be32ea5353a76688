"""Reading images of any kind."""
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.gif', '.ppm', '.pgm', '.bmp', '.tif', '.tiff',
          '.webp')
_ORIENTATION = 0x0112  # its EXIF tag
_MOST_PIXELS = 2**30  # OpenCV's limit
_PILLOW = threading.Lock()


class ReadImage(NamedTuple):
    """Properties of an image.

    Attributes:
        size: (width, height) in pixels, as mmcv reads it; the reason, a str, if it cannot be read.
        orientation: Of its EXIF tag; 1 for none, from 5 on width and height are exchanged.
        channels: Of the file: 1 for grey or a palette, 3 for colour, 4 with alpha, …
        bits: Bits of a channel: 8 or less, 16, or 32 for floats.
    """
    size: Union[Tuple[int, int], str]
    orientation: int = 1
    channels: int = 3
    bits: int = 8


def image_size(path: Union[str, Path]) -> Tuple[int, int]:
    """(width, height) of an image, turned by EXIF.

    Raises:
        ValueError: For a file that is not an image, with the reason.
    """
    image = read_image(path, whole=False)
    if isinstance(image.size, str):
        raise ValueError(f'{path}: not an image that can be read ({image.size})')
    return image.size


def read_image(path: Union[str, Path], whole: bool = True) -> ReadImage:
    """Read an image's properties, and decode it fully.

    OpenCV would fill the rest of a truncated JPEG with grey.

    Args:
        path: The image.
        whole: Decode it; else only the header is read. Default True.
    """
    try:
        with opened(path) as image:
            raw = str(image.tile[0].args if image.tile else '')
            bits = 32 if image.mode == 'F' else 16 if '16' in image.mode + raw or (
                image.mode == 'I') else 8
            orientation = _orientation(image)
            size, channels = image.size, 1 if image.mode == 'P' else len(image.getbands())
            if whole:
                image.load()
        if orientation > 1:  # OpenCV decides which formats' tags count
            turned = cv2.imread(str(path))
            if turned is not None:
                size = turned.shape[1::-1]
        return ReadImage(tuple(size), orientation, channels, bits)
    except UnidentifiedImageError as error:  # such as TIFF of many channels
        reason = f'{type(error).__name__}: {error}'
    except Exception as error:  # noqa: BLE001  a decoder may raise anything for a damaged file
        return ReadImage(f'{type(error).__name__}: {error}')
    try:
        pixels = read_pixels(path)
    except ValueError:
        return ReadImage(reason)
    return ReadImage(pixels.shape[1::-1], 1, 1 if pixels.ndim == 2 else pixels.shape[2],
                     8 * pixels.dtype.itemsize)


def read_pixels(path: Union[str, Path]) -> np.ndarray:
    """Unchanged pixels, (H, W) or (H, W, C), as BGR.

    Raises:
        ValueError: For a file that neither OpenCV nor tifffile reads.
    """
    try:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None and str(path).lower().endswith(('.tif', '.tiff')):
        pixels = _read_tiff(path)
    if pixels is None:
        raise ValueError(f'{path}: not an image that OpenCV or tifffile reads')
    return pixels


def as_picture(pixels: np.ndarray) -> Tuple[np.ndarray, str]:
    """Convert an image of any channels and depth for viewing.

    Grey becomes three equal channels; of two channels the first is shown, of more than three the
    first three. Values beyond 8 bits are scaled from their range to 0 to 255; floats within 0 to
    255 stay.

    Args:
        pixels: (H, W) or (H, W, C).

    Returns:
        (H, W, 3) uint8, channels in the same order, and the changes in words, ``''`` for none.
    """
    said = []
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    channels = pixels.shape[2]
    if channels > 3:
        said.append(f'the first three of {channels} channels')
    elif channels == 2:
        said.append('the first of 2 channels')
    shown = pixels[..., :3 if channels >= 3 else 1]
    if shown.dtype != np.uint8:
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        if shown.dtype == bool or not (low >= 0 and 1 < high <= 255):
            shown = np.nan_to_num(shown.astype(np.float32) - low) * (255 / ((high - low) or 1))
            said.append(f'values {low:g} to {high:g} as 0 to 255')
        shown = shown.astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3))), ', '.join(said)


@contextmanager
def opened(path: Union[str, Path]) -> Iterator[Image.Image]:
    """Open an image with OpenCV's limit of pixels, above Pillow's."""
    with _PILLOW:
        guard, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = guard
    with image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f'{image.width} x {image.height} pixels; OpenCV reads at most 2^30')
        yield image


def _read_tiff(path: Union[str, Path]) -> Optional[np.ndarray]:
    """Pixels by tifffile, channels last, like mmcv's backend tifffile."""
    import tifffile
    try:
        pixels = tifffile.imread(path)
    except Exception:  # noqa: BLE001  of a damaged file
        return None
    return pixels if pixels.ndim in (2, 3) else None


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  damaged EXIF is ignored by OpenCV too
        return 1
    return found if found in range(1, 9) else 1
