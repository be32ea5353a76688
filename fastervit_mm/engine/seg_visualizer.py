"""Drawing small label maps large enough to read."""
import copy
from typing import Optional

import mmcv
import numpy as np
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer


@VISUALIZERS.register_module()
class EnlargedSegVisualizer(SegLocalVisualizer):
    """mmseg's ``SegLocalVisualizer`` on an enlarged picture.

    Args:
        scale: How many times wider and higher. Default 3.
        **kwargs: As ``SegLocalVisualizer``'s.
    """

    def __init__(self, name: str = 'visualizer', *args, scale: int = 3, **kwargs):
        super().__init__(name, *args, **kwargs)
        self.scale = scale

    def add_datasample(self, name: str, image: np.ndarray,
                       data_sample: Optional[SegDataSample] = None, *args, **kwargs) -> None:
        """As ``SegLocalVisualizer.add_datasample``; ``image`` is (H, W, 3) RGB."""
        if data_sample is not None:
            data_sample = copy.copy(data_sample)
            for field in ('gt_sem_seg', 'pred_sem_seg'):
                if field in data_sample:
                    labels = getattr(data_sample, field).data
                    labels = labels.repeat_interleave(self.scale, -2)
                    setattr(data_sample, field,
                            PixelData(data=labels.repeat_interleave(self.scale, -1)))
        image = mmcv.imrescale(image, self.scale, interpolation='bicubic')
        super().add_datasample(name, image, data_sample, *args, **kwargs)

    def _get_center_loc(self, mask: np.ndarray) -> np.ndarray:
        """Where a class's name goes, as mmseg says, (x, y): in its widest row, at the middle pixel.

        mmseg 1.2.2 finds it by sorting a Python list of all pixels, a second a picture here.
        """
        y = np.count_nonzero(mask == 1, axis=1).argmax()
        xs = np.flatnonzero(mask[y] == 1)
        return np.array([xs[len(xs) // 2], y])
