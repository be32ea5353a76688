"""Reading images of any kind."""
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.gif', '.ppm', '.pgm', '.bmp', '.tif', '.tiff',
          '.webp', '.npy')
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
            if 'RGBX' in raw:  # a fourth channel that is not alpha, which Pillow leaves out
                channels = 4
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
    except ValueError as error:
        why = error.__cause__
        return ReadImage(f'{type(why).__name__}: {why}' if isinstance(why, ValueError) else reason)
    return ReadImage(pixels.shape[1::-1], 1, 1 if pixels.ndim == 2 else pixels.shape[2],
                     8 * pixels.dtype.itemsize)


def read_pixels(path: Union[str, Path]) -> np.ndarray:
    """Unchanged pixels, (H, W) or (H, W, C).

    Three channels are BGR, as OpenCV reads them; other numbers keep the file's order. Of the first
    and last axis of a ``.npy`` array of three, the shorter one has the channels.

    Raises:
        ValueError: For a file that none of numpy, tifffile and OpenCV reads, with the reason.
    """
    suffix, pixels, why = Path(path).suffix.lower(), None, None
    try:
        if suffix == '.npy':
            pixels = _channels_last(np.lib.format.open_memmap(path, mode='r'))
        elif suffix in ('.tif', '.tiff'):
            pixels = _read_tiff(path)
    except Exception as error:  # noqa: BLE001  damaged, or compressed as tifffile cannot read
        why = error
    if pixels is not None:
        return pixels[..., ::-1] if pixels.shape[2:] == (3, ) else pixels
    with suppress(cv2.error):  # of too many pixels
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    four = pixels is not None and pixels.shape[2:] == (4, )
    if pixels is None or four and why:  # OpenCV multiplies a TIFF's channels by a fourth
        raise ValueError(f'{path}: not an image that can be read'
                         + (f' ({type(why).__name__}: {why})' if why else '')) from why
    return pixels[..., [2, 1, 0, 3]] if four else pixels


def as_picture(pixels: np.ndarray, file_order: bool = False) -> Tuple[np.ndarray, str]:
    """Convert an image of any channels and depth for viewing.

    Grey becomes three equal channels; of two channels the first is shown, of more than three the
    first three. Values beyond 8 bits are stretched from the 1st to the
    99th percentile; floats within 0 to 255 stay.

    Args:
        pixels: (H, W) or (H, W, C), colours as BGR.
        file_order: Whether more than three channels begin with red, green and blue, as of
            :func:`read_pixels`. Default False, as of OpenCV.

    Returns:
        (H, W, 3) uint8, BGR, and the changes in words, ``''`` for none.
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
    if channels > 3 and file_order:
        shown = shown[..., ::-1]
    if shown.dtype != np.uint8:
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        if shown.dtype == bool or not (low >= 0 and 1 < high <= 255):
            shown = shown.astype(np.float32)
            ends = np.nanpercentile(shown, (1, 99)).tolist()
            low, high = ends if ends[0] < ends[1] else (low, high)
            shown = np.nan_to_num(shown - low).clip(0, high - low) * (255 / ((high - low) or 1))
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
    """Pixels by tifffile, whose axes say where the channels are."""
    import tifffile
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        pixels, axes = series.asarray(), series.axes
    if pixels.ndim not in (2, 3):
        return None
    return np.moveaxis(pixels, [axes.index('Y'), axes.index('X')], [0, 1])


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim not in (2, 3):
        raise ValueError(f'{pixels.ndim} axes')
    first = pixels.ndim == 3 and pixels.shape[0] < pixels.shape[2]
    return np.moveaxis(pixels, 0, 2) if first else pixels


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  damaged EXIF is ignored by OpenCV too
        return 1
    return found if found in range(1, 9) else 1
