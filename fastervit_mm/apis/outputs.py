"""Files of predictions."""
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Sequence

import cv2
import numpy as np
from PIL import Image

from .categories import Categories

if TYPE_CHECKING:
    from .inferencer import Prediction


def write_label_map(path: Path, labels: np.ndarray, offset: int) -> str:
    """Write classes of pixels, (H, W), as a PNG with one channel of ``labels + offset``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = labels.astype(np.int64) + offset
    Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(path)
    return str(path)


def write_classes(path: Path, predictions: Sequence['Prediction']) -> str:
    """Write a classifier's likeliest classes of each image as JSON; returns the path."""
    path.write_text(json.dumps([
        {'file_name': p.source, **({} if p.frame is None else {'frame': p.frame}), 'top': p.top}
        for p in predictions]))
    return str(path)


class CocoFiles:
    """A COCO results file, and the list of images and categories that its ids refer to.

    Args:
        classes: Names of the classes.
        categories: Their ids, and those of known images.
    """

    def __init__(self, classes: Sequence[str], categories: Categories):
        self.categories = categories
        self.images: List[Dict] = []
        self.results: List[Dict] = []
        self.named = [dict(id=i, name=name) for i, name in zip(categories.ids, classes)]
        self.next_id = max(categories.images.values(), default=0) + 1

    def add(self, prediction: 'Prediction') -> None:
        """Add one image's instances."""
        number = self.categories.images.get(os.path.realpath(prediction.source))
        if number is None:
            number, self.next_id = self.next_id, self.next_id + 1
        height, width = prediction.size
        image = dict(id=number, file_name=prediction.source, height=height, width=width)
        if prediction.frame is not None:
            image['frame'] = prediction.frame
        self.images.append(image)
        self.results += [dict(image_id=number, **instance) for instance in prediction.instances]

    def write(self, folder: Path) -> List[str]:
        """Write ``predictions.json`` and ``images.json``; returns their paths."""
        listed = dict(info={}, images=self.images, annotations=[], categories=self.named)
        paths = []
        for name, content in (('predictions.json', self.results), ('images.json', listed)):
            (folder / name).write_text(json.dumps(content))
            paths.append(str(folder / name))
        return paths


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
