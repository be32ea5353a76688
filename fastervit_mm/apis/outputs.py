"""Predictions and their files."""
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
from PIL import Image

from ..engine.results import read_segments
from .categories import Categories
from .inputs import Failure


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image or one frame of a video.

    Attributes:
        source: Path of the image or video; a name for an array.
        frame: Number of the frame, from 0; None for an image.
        size: (height, width) in pixels.
        instances: A detector's objects, as entries of a COCO results file: ``category_id``,
            ``bbox`` as (x, y, width, height) in pixels, ``score`` and, for a detector with masks,
            ``segmentation`` as compressed RLE. None for another network, and for a panoptic one
            that gives segments alone.
        segments: A panoptic network's segments, as COCO's ``segments_info``: ``id``,
            ``category_id``, ``isthing``, ``iscrowd``, ``area`` and ``bbox``. None for another
            network.
        top: A classifier's five likeliest classes, the likeliest first: ``label``, ``name`` and
            ``score``. None for another network.
        shown: How the overlay shows an image that has no colours of 8 bits, in words; else ``''``.
        files: Paths of the files written: ``'overlay'`` and, for a segmentor or a panoptic network,
            ``'label_map'``.
    """
    source: str
    frame: Optional[int]
    size: Tuple[int, int]
    instances: Optional[List[Dict]] = None
    segments: Optional[List[Dict]] = None
    top: Optional[List[Dict]] = None
    shown: str = ''
    files: Dict[str, str] = field(default_factory=dict)
    _labels: Optional[np.ndarray] = None
    _label_offset: int = 0

    @property
    def label_map(self) -> Optional[np.ndarray]:
        """A segmentor's class of each pixel, (H, W) integers, numbered as ``Results.classes``.

        For a panoptic network, the ``id`` of each pixel's segment, 0 for none. Read back from its
        file if it was written to one.
        """
        if self._labels is None and 'label_map' in self.files:
            if self.segments is not None:
                return read_segments(self.files['label_map'])
            return np.asarray(Image.open(self.files['label_map'])) - self._label_offset
        return self._labels


class Results(NamedTuple):
    """What an :class:`~fastervit_mm.apis.Inferencer` returns.

    Attributes:
        predictions: One for each image or frame, in the order of the inputs.
        failures: Inputs without a prediction, and why.
        classes: Names of the classes.
        files: Files written for several images together: a detector's results files and the list of
            its images, and videos.
    """
    predictions: List[Prediction]
    failures: List[Failure]
    classes: Sequence[str]
    files: List[str]


def write_classes(path: Path, predictions: Sequence[Prediction]) -> str:
    """Write a classifier's likeliest classes of each image as JSON; returns the path."""
    path.write_text(json.dumps([
        {'file_name': p.source, **({} if p.frame is None else {'frame': p.frame}), 'top': p.top}
        for p in predictions]))
    return str(path)


class CocoFiles:
    """Files of a detector's predictions as COCO has them, and the images and categories of its ids.

    Args:
        classes: Names of the classes.
        categories: Their ids, and those of known images.
        things: How many of the classes, the first, are things and not stuff. Default None, no
            panoptic network.
    """

    def __init__(self, classes: Sequence[str], categories: Categories,
                 things: Optional[int] = None):
        self.categories = categories
        self.images: List[Dict] = []
        self.results: List[Dict] = []
        self.panoptic: List[Dict] = []
        self.named = [dict(id=i, name=name) for i, name in zip(categories.ids, classes)]
        for label, category in enumerate(self.named if things is not None else ()):
            category['isthing'] = int(label < things)
        self.next_id = max(categories.images.values(), default=0) + 1

    def add(self, prediction: Prediction, folder: Path) -> None:
        """Add one image's instances and segments.

        Args:
            prediction: Of a detector.
            folder: The one that maps of segments are written below.
        """
        number = self.categories.images.get(os.path.realpath(prediction.source))
        if number is None:
            number, self.next_id = self.next_id, self.next_id + 1
        height, width = prediction.size
        image = dict(id=number, file_name=prediction.source, height=height, width=width)
        if prediction.frame is not None:
            image['frame'] = prediction.frame
        self.images.append(image)
        self.results += [dict(image_id=number, **instance)
                         for instance in prediction.instances or ()]
        if prediction.segments is not None:
            self.panoptic.append(dict(
                image_id=number, segments_info=prediction.segments,
                file_name=Path(prediction.files['label_map']).relative_to(folder).as_posix()))

    def write(self, folder: Path) -> List[str]:
        """Write ``images.json`` and ``predictions.json``, ``panoptic.json`` or both.

        Returns:
            Their paths.
        """
        listed = dict(info={}, images=self.images, annotations=[], categories=self.named)
        files = {'images.json': listed}
        if self.panoptic:
            files['panoptic.json'] = dict(listed, annotations=self.panoptic)
        if self.results or not self.panoptic:
            files = {'predictions.json': self.results, **files}
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content))
        return [str(folder / name) for name in files]


class Videos:
    """Videos that are written frame by frame."""

    def __init__(self):
        self.writers: Dict[Path, cv2.VideoWriter] = {}

    def add(self, path: Path, frame: np.ndarray, fps: float) -> None:
        """Append a frame, (H, W, 3) BGR, to the video at ``path``.

        Raises:
            OSError: Where OpenCV cannot write MP4.
        """
        if path not in self.writers:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps or 25.,
                                     (frame.shape[1], frame.shape[0]))
            if not writer.isOpened():
                raise OSError(f'{path}: this build of OpenCV cannot write MP4 videos')
            self.writers[path] = writer
        self.writers[path].write(np.ascontiguousarray(frame))

    def close(self) -> List[str]:
        """Complete every video; returns their paths."""
        for writer in self.writers.values():
            writer.release()
        return [str(path) for path in self.writers]
