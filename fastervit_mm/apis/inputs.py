"""Images, one by one, of the files, folders, patterns, videos and arrays that a user gives."""
import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import mmcv
import numpy as np

from ..datasets.images import IMAGES, read_image

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')

Image = Union[str, np.ndarray]
Input = Union[str, os.PathLike, np.ndarray]


class Failure(NamedTuple):
    """An input that gave no prediction.

    Attributes:
        source: The input.
        reason: Why, in one line.
    """
    source: str
    reason: str


@dataclass(frozen=True)
class Source:
    """One image or one video.

    Attributes:
        given: A path, or a name for an array.
        name: Name for the files of its predictions; no other source has it.
        array: The image, (H, W, 3) BGR, if it was given as an array.
        frames: Number of frames that a video claims to have; None for an image.
        fps: Frames a second of a video.
    """
    given: str
    name: str
    array: Optional[np.ndarray] = None
    frames: Optional[int] = None
    fps: float = 0.


def collect(inputs: Union[Input, Sequence[Input]]) -> Tuple[List[Source], List[Failure]]:
    """Every image and video among the inputs, each file once, and the inputs that have none.

    Args:
        inputs: Paths of images, videos and folders, patterns such as ``'photos/**/*.jpg'``, and
            images as arrays, (H, W, 3) BGR uint8; one or several. A folder stands for
            the files directly in it that have the suffix of an image or a video.
    """
    if isinstance(inputs, (str, os.PathLike, np.ndarray)):
        inputs = [inputs]
    names: Dict[str, int] = {}
    seen, sources, failures = set(), [], []
    for i, given in enumerate(inputs):
        if isinstance(given, np.ndarray):
            name = f'array_{i:06}'
            if given.ndim == 3 and given.shape[2] == 3 and given.dtype == np.uint8 and given.size:
                sources.append(Source(name, _unused(name, names), given))
            else:
                failures.append(Failure(name, f'an array of {given.dtype}, {given.shape}; give an '
                                              'image of uint8, (height, width, 3), BGR'))
            continue
        paths, problem = _files(os.path.expanduser(os.fspath(given)))
        if problem:
            failures.append(Failure(os.fspath(given), problem))
        for path in paths:
            if (real := os.path.realpath(path)) in seen:
                continue
            seen.add(real)
            if path.lower().endswith(VIDEOS):
                # FFmpeg's own lines about a damaged file; the failure says what matters.
                os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
                video = mmcv.VideoReader(path)
                if not video.opened or video.width == 0:
                    failures.append(Failure(path, 'not a video that OpenCV can read'))
                    continue
                sources.append(Source(path, _unused(Path(path).stem, names),
                                      frames=max(video.frame_cnt, 0), fps=video.fps))
            else:
                sources.append(Source(path, _unused(Path(path).stem, names)))
    return sources, failures


def images(source: Source) -> Iterator[Tuple[Optional[int], Image]]:
    """The image of a source, as path or array, or a video's frames with their numbers from 0.

    Raises:
        ValueError: For an image that cannot be read in full and, after its last frame, for a video
            with fewer frames than it claims.
    """
    if source.array is not None:
        yield None, source.array
    elif source.frames is None:
        # The pipelines read with OpenCV, which fills what a truncated JPEG lacks with grey.
        size = read_image(source.given).size
        if isinstance(size, str):
            raise ValueError(size)
        yield None, source.given
    else:
        video, number = mmcv.VideoReader(source.given), -1
        while (frame := video.read()) is not None:
            number += 1
            yield number, frame
        # For containers without a count it is an estimate from the duration.
        if number < 0 or number + 1 < source.frames - max(2, source.fps):
            raise ValueError(f'{number + 1} of {source.frames} frames could be read')


def _files(given: str) -> Tuple[List[str], Optional[str]]:
    """The paths that one input stands for and, if there are none, the reason."""
    if os.path.isdir(given):
        found = sorted(entry.path for entry in os.scandir(given)
                       if entry.is_file() and entry.name.lower().endswith(IMAGES + VIDEOS))
        return found, None if found else 'a folder without images or videos'
    if os.path.exists(given):
        return [given], None
    if glob.has_magic(given):
        found = sorted(path for path in glob.glob(given, recursive=True)
                       if os.path.isfile(path) and path.lower().endswith(IMAGES + VIDEOS))
        return found, None if found else 'no image or video matches this pattern'
    return [], f'no such file or folder ({os.path.abspath(given)})'


def _unused(name: str, names: Dict[str, int]) -> str:
    """``name``, with a number after it if another source has it."""
    unused, number = name, 1
    while unused in names:
        number += 1
        unused = f'{name}_{number}'
    names[unused] = number
    return unused
