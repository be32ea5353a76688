"""Drawing small images large enough to read."""
import copy
from typing import Any, Optional, Tuple

import mmcv
import numpy as np
from mmengine.structures import BaseDataElement


class Enlarging:
    """Mixin that lets a visualizer of mmdet or mmseg draw on an enlarged image.

    It goes before the visualizer's class among the bases. The size of labels and lines is fixed in
    pixels: they would hide an image of 160 pixels.

    Args:
        scale: How many times wider and higher. Default 3.
        **kwargs: Those of the visualizer.

    Attributes:
        fields: Names of the parts of a data sample that are drawn on the image.
    """
    fields: Tuple[str, ...] = ()

    def __init__(self, name: str = 'visualizer', *args, scale: int = 3, **kwargs):
        super().__init__(name, *args, **kwargs)
        self.scale = scale

    def enlarged(self, part: Any) -> Any:
        """A copy of one of the parts, at the size of the enlarged image."""
        raise NotImplementedError

    def add_datasample(self, name: str, image: np.ndarray,
                       data_sample: Optional[BaseDataElement] = None, *args, **kwargs) -> None:
        """As the visualizer's; ``image`` is (H, W, 3) RGB."""
        if data_sample is not None:
            data_sample = copy.copy(data_sample)
            for field in self.fields:
                if field in data_sample:
                    setattr(data_sample, field, self.enlarged(getattr(data_sample, field)))
        image = mmcv.imrescale(image, self.scale, interpolation='bicubic')
        super().add_datasample(name, image, data_sample, *args, **kwargs)
