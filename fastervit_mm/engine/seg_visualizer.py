"""Drawing label maps on images of any size, and placing class names faster than mmseg does."""
from typing import List, Optional, Sequence

import cv2
import numpy as np
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer

from .enlarging import Enlarging, label_height

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 30  # pixels, at a scale of 1
_DARK, _BRIGHT = (0, 0, 0), (255, 255, 255)


def place_of_name(mask: np.ndarray) -> np.ndarray:
    """Where a class's name is drawn, (x, y): the middle pixel of its widest row, as in mmseg.

    mmseg 1.2.2 sorts a Python list of all pixels for each class, which takes a second an image.

    Args:
        mask: (H, W), 1 where the class is.
    """
    y = np.count_nonzero(mask == 1, axis=1).argmax()
    xs = np.flatnonzero(mask[y] == 1)
    return np.array([xs[len(xs) // 2], y])


@VISUALIZERS.register_module()
class EnlargedSegVisualizer(Enlarging, SegLocalVisualizer):
    """mmseg's ``SegLocalVisualizer`` on an enlarged image, with names that can be read.

    mmseg's own names shrink with the image's shorter side, end at its edge, show the image through
    and are white on every colour.
    """
    fields = ('gt_sem_seg', 'pred_sem_seg')

    def enlarged(self, part: PixelData, scale: int) -> PixelData:
        """Labels at the larger size."""
        labels = part.data.repeat_interleave(scale, -2)
        return PixelData(data=labels.repeat_interleave(scale, -1))

    def _draw_sem_seg(self, image: np.ndarray, sem_seg: PixelData, classes: Optional[List],
                      palette: Optional[List], with_labels: Optional[bool] = True) -> np.ndarray:
        drawn = super()._draw_sem_seg(image, sem_seg, classes, palette, with_labels=False)
        if with_labels:
            labels = np.asarray(sem_seg.cpu().data[0])
            for label in np.unique(labels)[::-1]:
                if label < len(classes):
                    _write_name(drawn, classes[label], palette[label],
                                place_of_name(labels == label))
            self.set_image(drawn)
        return drawn


def _write_name(image: np.ndarray, name: str, colour: Sequence[int], place: np.ndarray) -> None:
    """Write a class's name in a box of its colour into an image, (H, W, 3) uint8 RGB."""
    height, width = image.shape[:2]
    scale = max(min(height, width) / 500, label_height(image.shape) / _FONT_HEIGHT)
    thickness = max(1, round(2 * scale))
    (across, up), baseline = cv2.getTextSize(name, _FONT, scale, thickness)
    box = np.array([across + baseline, up + baseline])
    corner = np.maximum(np.minimum(place, (width, height) - box - 1), 0)
    corners = [tuple(int(n) for n in point) for point in (corner, corner + box)]
    colour = tuple(int(c) for c in colour)
    cv2.rectangle(image, *corners, colour, -1)
    cv2.rectangle(image, *corners, _DARK, thickness)
    lightness = np.dot(colour, (0.299, 0.587, 0.114))
    cv2.putText(image, name, (corners[0][0] + baseline // 2, corners[0][1] + up + baseline // 2),
                _FONT, scale, _DARK if lightness > 150 else _BRIGHT, thickness, cv2.LINE_AA)
