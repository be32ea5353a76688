"""Settings for images of any number of channels and bits."""
from collections import defaultdict
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from ..datasets.checking.problems import Run, one_by_one
from ..datasets.folders import DataError
from ..datasets.images import read_image, read_pixels
from .writing import count

_MEASURED = 200  # images whose values are read


class Reading(NamedTuple):
    """Settings of a config for its images.

    By default as those of the bases: 8 bits, which are read as colour.

    Attributes:
        loader: Name of the pipelines' loading step.
        preprocessor: Settings of the model's ``data_preprocessor``; ``''`` for the base's.
        channels: Number of channels that the network reads.
        because: The reason, for a comment.
    """
    loader: str = 'LoadImageFromFile'
    preprocessor: str = ''
    channels: int = 3
    because: str = ''


def choose_reading(train: Sequence[Path], others: Sequence[Path], said: List[str],
                   all_channels: bool = False, run: Run = one_by_one) -> Reading:
    """Choose how a config reads images, from all of them.

    Images of 8 bits and 1 to 4 channels are read as colour, without an alpha channel. Others are
    read with all their channels and bits, and normalised by their own mean and standard deviation.

    Args:
        train: Training images.
        others: Those of other splits.
        said: List of decisions, extended.
        all_channels: Read all images with all channels: grey as one, alpha as another. Default
            False.
        run: How images are read; by default one by one.

    Raises:
        DataError: For images of different kinds.
    """
    kinds: Dict[Tuple[int, int, bool], List[Path]] = defaultdict(list)
    fourth = []
    paths = [*train, *others]
    for path, image in zip(paths, run(read_image, [(path, False) for path in paths],
                                      'kinds of images')):
        if isinstance(image.size, str):
            continue  # the check of images reports it
        colour = (image.bits == 8 and image.channels <= 4 and path.suffix.lower() != '.npy'
                  and not all_channels)
        kinds[(3, 8, True) if colour else (image.channels, image.bits, False)].append(path)
        if colour and image.channels in (2, 4) and path.suffix.lower() not in ('.jpg', '.jpeg'):
            fourth.append(path)
    if fourth:
        said.append(f'{count(len(fourth), "image has", "images have")} an alpha channel (the '
                    'fourth, or the second beside grey), which is left out, such as '
                    f'{fourth[0]}; --all-channels reads it')
    if len(kinds) > 1:
        raise DataError('images of different kinds cannot be trained on together: ' + '; '.join(
            f'{len(paths)} of {_kind(*kind)}, such as {paths[0]}' for kind, paths in kinds.items())
            + '. Convert them to one kind')
    (channels, bits, colour), paths = next(iter(kinds.items()), ((3, 8, True), []))
    if colour:
        return Reading()
    shape = read_pixels(paths[0]).shape
    channels = shape[2] if len(shape) == 3 else 1  # OpenCV reads grey with alpha as 4 channels
    mean, std, measured = _statistics(train, channels)
    because = (f'Images have {_kind(channels, bits)}: all are read, and normalised by the mean and '
               f'standard deviation of {measured} of {len(train)} training images.')
    said.append(because[0].lower() + because[1:-1])
    return Reading('LoadPixels', f'mean={mean}, std={std}, bgr_to_rgb={channels == 3}', channels,
                   because)


def _statistics(train: Sequence[Path], channels: int) -> Tuple[List[float], List[float], int]:
    """Mean and deviation of the network's channels, and how many images."""
    chosen = train[::-(-len(train) // _MEASURED)]
    sums = []
    for path in chosen:
        try:
            pixels = read_pixels(path)
        except ValueError:
            continue  # the check of images reports it
        if (1 if pixels.ndim == 2 else pixels.shape[2]) != channels:
            raise DataError(f'{path}: read as {pixels.shape}, and other images have '
                            f'{count(channels, "channel", "channels")}. Convert them to one kind')
        pixels = pixels.reshape(-1, channels).astype(np.float64)
        if not np.isfinite(pixels).all():
            raise DataError(f'{path}: holds values that are not finite, and training would end in '
                            'nan. Replace them, such as by the mean')
        sums.append((pixels.mean(0), (pixels ** 2).mean(0)))
    if not sums:
        raise DataError(f'{train[0]}: cannot be read, nor any other of {len(chosen)} training '
                        'images')
    mean, square = np.mean(sums, 0)
    if channels == 3:
        mean, square = mean[::-1], square[::-1]  # the network takes RGB
    std = np.sqrt(np.maximum(square - mean ** 2, 0))
    return ([float(f'{v:.5g}') for v in mean], [float(f'{v:.5g}') or 1. for v in std], len(sums))


def _kind(channels: int, bits: int, colour: bool = False) -> str:
    return f'{count(channels, "channel", "channels")} of {bits} bits'
