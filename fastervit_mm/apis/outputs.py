"""Predictions and their files."""
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import mmcv
import numpy as np
from PIL import Image

from ..engine.results import read_segments, write_label_map, write_segments
from .categories import Categories
from .inputs import Failure, Source


@dataclass(frozen=True)
class Prediction:
    """Prediction for an image or a frame of a video.

    Attributes:
        source: Path of the image or video; a name for an array.
        frame: Number of the frame, from 0; None for an image.
        size: (height, width) in pixels.
        instances: A detector's objects, as entries of a COCO results file: ``category_id``,
            ``bbox`` as (x, y, width, height) in pixels, ``score`` and, for a detector with masks,
            ``segmentation`` as compressed RLE. None for another network, and for a panoptic one
            that gives only segments.
        segments: A panoptic network's segments, as COCO's ``segments_info``: ``id``,
            ``category_id``, ``isthing``, ``iscrowd``, ``area`` and ``bbox``. None for another
            network.
        top: A classifier's five likeliest classes, the likeliest first: ``label``, ``name`` and
            ``score``. None for another network.
        shown: How the overlay shows an image without 8-bit colours, in words; else ``''``.
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
        """Classes of pixels, (H, W) integers, numbered as ``Results.classes``.

        For a panoptic network, the ``id`` of each pixel's segment, 0 for none. Read back from its
        file if it was written to one.
        """
        if self._labels is None and 'label_map' in self.files:
            if self.segments is not None:
                return read_segments(self.files['label_map'])
            return np.asarray(Image.open(self.files['label_map'])) - self._label_offset
        return self._labels


class Results(NamedTuple):
    """Predictions and failures of an :class:`~fastervit_mm.apis.Inferencer`'s call.

    Attributes:
        predictions: One for each image or frame, in the order of the inputs.
        failures: Inputs without a prediction, and why.
        classes: Names of the classes.
        files: Files of several images together: videos, and JSON files of a detector or classifier.
    """
    predictions: List[Prediction]
    failures: List[Failure]
    classes: Sequence[str]
    files: List[str]


class ResultFiles:
    """Files of predictions in a folder, as :class:`~fastervit_mm.apis.Inferencer` describes them.

    Args:
        folder: The folder; it exists.
        classes: Names of the classes.
        categories: Ids of a detector's classes and images; None for another network.
        things: Number of things among a panoptic network's classes, of which they are the first.
            Default None.
    """

    def __init__(self, folder: Path, classes: Sequence[str], categories: Optional[Categories],
                 things: Optional[int] = None):
        self.folder, self.classes = folder, classes
        self.coco = CocoFiles(classes, categories, things) if categories else None
        self.videos: Dict[Path, cv2.VideoWriter] = {}
        self.top: List[Dict] = []

    def add(self, source: Source, prediction: Prediction, overlay: np.ndarray, shown: str
            ) -> Prediction:
        """Write the files of one prediction.

        Args:
            source: The image or video.
            prediction: Its label map is read back from its file from now on.
            overlay: (H, W, 3) RGB.
            shown: How the overlay shows the image, in words.

        Returns:
            The prediction with its files.

        Raises:
            OSError: Where OpenCV cannot write MP4.
        """
        files: Dict[str, str] = {}
        frame = prediction.frame
        name = source.name if frame is None else f'{source.name}/{frame:06}'
        target = self.folder / 'pred' / f'{name}.png'
        if prediction.segments is not None:
            files['label_map'] = write_segments(target, prediction.label_map)
        elif prediction.label_map is not None:
            files['label_map'] = write_label_map(target, prediction.label_map,
                                                 prediction._label_offset)
        path = self.folder / 'vis' / f'{source.name}.{"jpg" if frame is None else "mp4"}'
        files['overlay'] = str(path)
        if frame is None:
            mmcv.imwrite(overlay[..., ::-1], str(path))
        else:
            self._add_frame(path, overlay[..., ::-1], source.fps)
        prediction = replace(prediction, files=files, shown=shown, _labels=None)
        if self.coco:
            self.coco.add(prediction, self.folder / 'pred')
        if prediction.top is not None:
            self.top.append({'file_name': prediction.source, 'top': prediction.top,
                             **({} if frame is None else {'frame': frame})})
        return prediction

    def _add_frame(self, path: Path, frame: np.ndarray, fps: float) -> None:
        if path not in self.videos:
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), fps or 25.,
                                     (frame.shape[1], frame.shape[0]))
            if not writer.isOpened():
                raise OSError(f'{path}: this build of OpenCV cannot write MP4 videos')
            self.videos[path] = writer
        self.videos[path].write(np.ascontiguousarray(frame))

    def close(self, classifies: bool) -> List[str]:
        """Complete the files of several images together; returns their paths."""
        for writer in self.videos.values():
            writer.release()
        named: Dict[str, object] = self.coco.content() if self.coco else {}
        if classifies:
            named['predictions.json'] = self.top
        for name, content in named.items():
            (self.folder / name).write_text(json.dumps(content))
        return [*map(str, self.videos), *(str(self.folder / name) for name in named)]


class CocoFiles:
    """A detector's predictions in COCO's formats.

    Args:
        classes: Names of the classes.
        categories: Their ids, and those of known images.
        things: As of :class:`ResultFiles`.
    """

    def __init__(self, classes: Sequence[str], categories: Categories, things: Optional[int]):
        self.known = categories.images
        self.images: List[Dict] = []
        self.results: List[Dict] = []
        self.panoptic: List[Dict] = []
        self.categories = [dict(id=i, name=name) for i, name in zip(categories.ids, classes)]
        for label, category in enumerate(self.categories if things is not None else ()):
            category['isthing'] = int(label < things)
        self.next_id = max(self.known.values(), default=0) + 1

    def add(self, prediction: Prediction, folder: Path) -> None:
        """Add one image's instances and segments.

        Args:
            prediction: Of a detector.
            folder: The folder of its label map.
        """
        number = self.known.get(os.path.realpath(prediction.source))
        if number is None:
            number, self.next_id = self.next_id, self.next_id + 1
        height, width = prediction.size
        self.images.append(dict(
            id=number, file_name=prediction.source, height=height, width=width,
            **({} if prediction.frame is None else {'frame': prediction.frame})))
        self.results += [dict(image_id=number, **instance)
                         for instance in prediction.instances or ()]
        if prediction.segments is not None:
            self.panoptic.append(dict(
                image_id=number, segments_info=prediction.segments,
                file_name=Path(prediction.files['label_map']).relative_to(folder).as_posix()))

    def content(self) -> Dict[str, object]:
        """``images.json`` and ``predictions.json``, ``panoptic.json`` or both."""
        listed = dict(info={}, images=self.images, annotations=[], categories=self.categories)
        files: Dict[str, object] = {'images.json': listed}
        if self.panoptic:
            files['panoptic.json'] = dict(listed, annotations=self.panoptic)
        if self.results or not self.panoptic:
            files = {'predictions.json': self.results, **files}
        return files
