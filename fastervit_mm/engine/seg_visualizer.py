"""Readable overlays of label maps."""
from typing import List, Optional

import numpy as np
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer

from .enlarging import Enlarging, label_height

_SHARE = 0.06  # height of a name's font over the image's shorter side
_DARK, _BRIGHT = (0, 0, 0), (255, 255, 255)


def place_of_name(mask: np.ndarray) -> np.ndarray:
    """Middle of a class's widest row, (x, y), as in mmseg.

    mmseg 1.2.2 sorts a Python list of all pixels for each class, which takes a second per image.

    Args:
        mask: (H, W), 1 where the class is.
    """
    y = np.count_nonzero(mask == 1, axis=1).argmax()
    xs = np.flatnonzero(mask[y] == 1)
    return np.array([xs[len(xs) // 2], y])


@VISUALIZERS.register_module()
class EnlargedSegVisualizer(Enlarging, SegLocalVisualizer):
    """mmseg's ``SegLocalVisualizer`` on an enlarged image, with readable names.

    mmseg's own names shrink with the image's shorter side, end at its edge, are transparent, white
    on every colour, and limited to ASCII.
    """
    fields = ('gt_sem_seg', 'pred_sem_seg')

    def _draw_sem_seg(self, image: np.ndarray, sem_seg: PixelData, classes: Optional[List],
                      palette: Optional[List], with_labels: Optional[bool] = True) -> np.ndarray:
        # A head with one output gives its two labels as floats.
        labels = np.asarray(sem_seg.cpu().data).astype(np.int64)
        drawn = super()._draw_sem_seg(image, PixelData(data=labels), classes, palette,
                                      with_labels=False)
        if not with_labels:
            return drawn
        size = max(_SHARE * min(image.shape[:2]), label_height(image.shape)) * 72 / self.dpi
        for label in np.unique(labels)[::-1]:
            if label < len(classes) and classes[label]:
                colour = tuple(int(c) for c in palette[label])
                lightness = np.dot(colour, (0.299, 0.587, 0.114))
                self.draw_texts(
                    classes[label], place_of_name(labels[0] == label), size,
                    colors=_DARK if lightness > 150 else _BRIGHT,
                    bboxes=[dict(facecolor=[c / 255 for c in colour], edgecolor='black', pad=1.5)])
        return self.get_image()
