"""Images in files, folders, patterns, videos and arrays."""
import glob
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import mmcv
import numpy as np

from ..datasets.folders import files_in
from ..datasets.images import IMAGES, read_image
from ..engine.results import result_names

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')

Image = Union[str, np.ndarray]
Input = Union[str, os.PathLike, np.ndarray]


class Failure(NamedTuple):
    """Input without a prediction.

    Attributes:
        source: The input.
        reason: Why, in one line.
    """
    source: str
    reason: str


@dataclass(frozen=True)
class Source:
    """Image or video.

    Attributes:
        given: A path, or a name for an array.
        name: Unique name for the files of its predictions.
        array: The image, if given as an array.
        frames: Number of frames that a video claims; None for an image.
        fps: Frames a second of a video.
    """
    given: str
    name: str = ''
    array: Optional[np.ndarray] = None
    frames: Optional[int] = None
    fps: float = 0.


def collect(inputs: Union[Input, Sequence[Input]], left_out: Sequence[Path] = ()
            ) -> Tuple[List[Source], List[Failure]]:
    """List images and videos, each once, and failed inputs.

    Each has the name of its path below the folder that was given, or that all inputs have in
    common (:func:`~fastervit_mm.engine.results.result_names`).

    Args:
        inputs: Paths of images, videos and folders, patterns such as ``'photos/**/*.jpg'``, and
            images as arrays; one or several. A folder stands for the files in it, and in the
            folders below it, that have the suffix of an image or a video.
        left_out: Folders of results, whose files are skipped when a folder around them or a
            pattern is given. Default none.
    """
    if isinstance(inputs, (str, os.PathLike, np.ndarray)):
        inputs = [inputs]
    seen, roots, sources, failures = set(), [], [], []
    for i, given in enumerate(inputs):
        if isinstance(given, np.ndarray):
            sources.append(Source(f'array_{i:06}', array=given))
            continue
        given = os.path.expanduser(os.fspath(given))
        paths, root, problem = _files(given, left_out)
        if problem:
            failures.append(Failure(given, problem))
        elif root is not None:
            roots.append(root)
        for path in paths:
            if (real := os.path.realpath(path)) in seen:
                continue
            seen.add(real)
            if not path.lower().endswith(VIDEOS):
                sources.append(Source(path))
            elif (video := _video(path)) is None:
                failures.append(Failure(path, 'not a video that OpenCV can read'))
            else:
                sources.append(Source(path, frames=max(video.frame_cnt, 0), fps=video.fps))
    return _named(sources, roots), failures


def _video(path: str) -> Optional['mmcv.VideoReader']:
    # Hides FFmpeg's own lines about a damaged file; the failure says what matters.
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    video = mmcv.VideoReader(path)
    return video if video.opened and video.width else None


def _named(sources: List[Source], roots: List[str]) -> List[Source]:
    paths = [source.given for source in sources if source.array is None]
    names = dict(zip(paths, result_names(paths, roots) if paths else ()))
    folders = {os.path.dirname(name) for name in names.values()}
    named = []
    for source in sources:
        name = names.get(source.given, source.given)
        if source.frames is not None and name in folders:  # where its frames' results go
            name += os.path.splitext(source.given)[1]
        named.append(replace(source, name=name))
    return named


def images(source: Source) -> Iterator[Tuple[Optional[int], Image]]:
    """Yield an image, as path or array, or numbered frames.

    Raises:
        ValueError: For an image that cannot be read in full and, after its last frame, for a video
            with fewer frames than it claims.
    """
    if source.array is not None:
        yield None, source.array
    elif source.frames is None:
        # The pipelines read with OpenCV, which fills the rest of a truncated JPEG with grey.
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


def _files(given: str, left_out: Sequence[Path]
           ) -> Tuple[List[str], Optional[str], Optional[str]]:
    """Paths of an input and their folder, or an error."""
    if os.path.isdir(given):
        found, root = [str(path) for path in files_in(Path(given), IMAGES + VIDEOS)], given
        problem = 'a folder without images or videos'
    elif os.path.exists(given):
        return [given], None, None
    elif glob.has_magic(given):
        found = sorted(path for path in glob.glob(given, recursive=True)
                       if os.path.isfile(path) and path.lower().endswith(IMAGES + VIDEOS))
        parts = Path(given).parts
        fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root, problem = os.path.join('', *parts[:fixed]), 'no image or video matches this pattern'
    else:
        return [], None, f'no such file or folder ({os.path.abspath(given)})'
    own = [folder.resolve() for folder in left_out]
    if not any(folder in (Path(root).resolve() / 'x').parents for folder in own):
        found = [path for path in found if not any(f in Path(path).resolve().parents for f in own)]
    return found, root, None if found else problem
