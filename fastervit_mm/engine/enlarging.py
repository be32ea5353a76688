"""Figures of predictions that can be read: small images enlarged, labels of a readable size."""
import copy
import importlib
from typing import Any, Optional, Tuple

import mmcv
import numpy as np
from mmengine.structures import BaseDataElement

from ..models import type_name

_ENOUGH = 480  # pixels of an image's longer side
_MOST = 3
# mmdet's and mmseg's own visualizers, and those that draw the same and can be read.
_READABLE = dict(
    DetLocalVisualizer=('EnlargedDetVisualizer', 'fastervit_mm.engine.det_visualizer'),
    SegLocalVisualizer=('EnlargedSegVisualizer', 'fastervit_mm.engine.seg_visualizer'))


def readable(visualizer: dict, **settings: Any) -> dict:
    """A config's visualizer with mmdet's or mmseg's own replaced by one whose labels can be read.

    Args:
        visualizer: Settings of a visualizer. They are not changed.
        **settings: More settings for the one that replaces it, such as ``scale=1``.
    """
    name, module = _READABLE.get(type_name(visualizer), (None, None))
    if name is None:
        return visualizer
    importlib.import_module(module)
    return {**visualizer, 'type': name, **settings}


def enlargement(shape: Tuple[int, ...]) -> int:
    """How many times an image, (H, W, ...), is enlarged to 480 pixels: at most 3, large ones 1."""
    return min(max(-(-_ENOUGH // max(shape[:2])), 1), _MOST)


def label_height(shape: Tuple[int, ...]) -> float:
    """The least height in pixels of a label's font on an image, (H, W, ...).

    Large photos are looked at scaled down, so labels grow with them.
    """
    return max(13., max(shape[:2]) / 70)


class Enlarging:
    """Mixin that lets a visualizer of mmdet or mmseg draw on an enlarged image.

    It goes before the visualizer's class among the bases. The size of labels and lines is fixed in
    pixels: they would hide an image of 160 pixels.

    Args:
        scale: How many times wider and higher. Default None, as many as bring the longer side to
            480 pixels, at most 3; an image that is as large is not enlarged.
        **kwargs: Those of the visualizer.

    Attributes:
        fields: Names of the parts of a data sample that are drawn on the image.
    """
    fields: Tuple[str, ...] = ()

    def __init__(self, name: str = 'visualizer', *args, scale: Optional[int] = None, **kwargs):
        super().__init__(name, *args, **kwargs)
        self.scale = scale

    def enlarged(self, part: Any, scale: int) -> Any:
        """A copy of one of the parts, at the size of the enlarged image."""
        raise NotImplementedError

    def add_datasample(self, name: str, image: np.ndarray,
                       data_sample: Optional[BaseDataElement] = None, *args, **kwargs) -> None:
        """As the visualizer's; ``image`` is (H, W, 3) RGB."""
        scale = enlargement(image.shape) if self.scale is None else self.scale
        if scale != 1:
            if data_sample is not None:
                data_sample = copy.copy(data_sample)
                for field in self.fields:
                    if field in data_sample:
                        setattr(data_sample, field,
                                self.enlarged(getattr(data_sample, field), scale))
            image = mmcv.imrescale(image, scale, interpolation='bicubic')
        super().add_datasample(name, image, data_sample, *args, **kwargs)
