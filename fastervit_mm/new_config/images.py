"""Settings for images of any number of channels and bits."""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from ..datasets.checking.problems import Run, one_by_one
from ..datasets.folders import DataError
from ..datasets.images import read_image, read_pixels
from .writing import SMALL, count

_MEASURED = 200  # images whose values are read


class Reading(NamedTuple):
    """Settings of a config for its images.

    Empty for 8 bits, which are read as colour.

    Attributes:
        loading: Text after ``type='LoadImageFromFile'`` in a pipeline.
        preprocessor: Settings of the model's ``data_preprocessor``.
        channels: Number of channels that the network reads.
        because: The reason, for a comment.
    """
    loading: str = ''
    preprocessor: str = ''
    channels: int = 3
    because: str = ''


def choose_reading(train: Sequence[Path], others: Sequence[Path], arch: str, said: List[str],
                   any_means: bool, run: Run = one_by_one) -> Reading:
    """Choose how a config reads images, from all of them.

    Images of 8 bits and 1 to 4 channels are read as colour, without an alpha channel. Others are
    read unchanged and normalised by their own mean and standard deviation.

    Args:
        train: Training images.
        others: Those of other splits.
        arch: ``'small'`` or a published variant, which takes colour of 8 bits.
        said: List of decisions, extended.
        any_means: Whether the ``data_preprocessor`` takes means of any number of channels, like
            mmseg's; mmdet's takes 1 or 3.
        run: How images are read; by default one by one.

    Raises:
        DataError: For images of different kinds, or of a kind that ``arch`` does not take.
    """
    kinds: Dict[Tuple[int, int], List[Path]] = defaultdict(list)
    alpha = []
    paths = [*train, *others]
    for path, image in zip(paths, run(read_image, [(path, False) for path in paths],
                                      'kinds of images')):
        if isinstance(image.size, str):
            continue  # the check of images reports it
        colour = image.bits == 8 and image.channels <= 4
        kinds[(3, 8) if colour else (image.channels, image.bits)].append(path)
        if colour and image.channels in (2, 4) and path.suffix.lower() not in ('.jpg', '.jpeg'):
            alpha.append(path)
    if alpha:
        said.append(f'{count(len(alpha), "image has", "images have")} an alpha channel (the '
                    f'fourth, or the second beside grey), which is left out, such as {alpha[0]}')
    if len(kinds) > 1:
        raise DataError('images of different kinds cannot be trained on together: ' + '; '.join(
            f'{len(paths)} of {_kind(*kind)}, such as {paths[0]}' for kind, paths in kinds.items())
            + '. Convert them to one kind')
    (channels, bits), paths = next(iter(kinds.items()), ((3, 8), []))
    if bits == 8 and channels == 3:
        return Reading()
    if arch != SMALL:
        raise DataError(f'arch={arch!r}: takes colour images of 8 bits, and these have '
                        f'{_kind(channels, bits)}, such as {paths[0]}. Take --arch small, which '
                        'trains from scratch, or convert the images')
    shape = read_pixels(paths[0]).shape
    if len(shape) == 3 and shape[2] > shape[0]:
        raise DataError(f'{paths[0]}: has its channels first ({shape}), and mmcv reads them last. '
                        'Save the images with interleaved channels')
    channels = shape[2] if len(shape) == 3 else 1  # OpenCV reads grey with alpha as 4 channels
    mean, std, measured = _statistics(train, channels, any_means)
    loading = ", color_type='unchanged', to_float32=True"
    if cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED) is None:
        loading += ", imdecode_backend='tifffile'"
    because = (f'Images have {_kind(channels, bits)}: they are read unchanged, and normalised by '
               f'the mean and standard deviation of {measured} of {len(train)} training images.')
    said.append(because[0].lower() + because[1:-1])
    return Reading(loading, f'mean={mean}, std={std}, bgr_to_rgb=False', channels, because)


def _statistics(train: Sequence[Path], channels: int, any_means: bool
                ) -> Tuple[List[float], List[float], int]:
    """Mean and deviation of channels, and how many images."""
    chosen = train[::-(-len(train) // _MEASURED)]
    sums = []
    for path in chosen:
        try:
            pixels = read_pixels(path).reshape(-1, channels).astype(np.float64)
        except ValueError:
            continue  # the check of images reports it
        if not np.isfinite(pixels).all():
            raise DataError(f'{path}: holds values that are not finite, and training would end in '
                            'nan. Replace them, such as by the mean')
        sums.append((pixels.mean(0), (pixels ** 2).mean(0)))
    if not sums:
        raise DataError(f'{train[0]}: neither OpenCV nor tifffile reads it or any other of '
                        f'{len(chosen)} training images')
    mean, square = np.mean(sums, 0)
    if not any_means and channels not in (1, 3):
        mean, square = mean.mean(keepdims=True), square.mean(keepdims=True)
    std = np.sqrt(np.maximum(square - mean ** 2, 0))
    return ([float(f'{v:.5g}') for v in mean], [float(f'{v:.5g}') or 1. for v in std], len(sums))


def _kind(channels: int, bits: int) -> str:
    return f'{count(channels, "channel", "channels")} of {bits} bits'
