"""Figures of predictions that can be read: small images enlarged, labels of a readable size."""
import copy
import importlib
from functools import lru_cache
from typing import Any, FrozenSet, List, Optional, Tuple, Union

import mmcv
import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData

from ..models import type_name

_ENOUGH = 480  # pixels of an image's longer side
_MOST = 3
_POINTS = 72  # an inch
_DET = ('EnlargedDetVisualizer', 'fastervit_mm.engine.det_visualizer')
_SEG = ('EnlargedSegVisualizer', 'fastervit_mm.engine.seg_visualizer')
# mmdet's and mmseg's own visualizers, and those that draw the same and can be read.
_READABLE = dict(DetLocalVisualizer=_DET, EnlargedDetVisualizer=_DET,
                 SegLocalVisualizer=_SEG, EnlargedSegVisualizer=_SEG)


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


def drawn_text(text: str) -> str:
    r"""A text as matplotlib draws it letter by letter, ``$`` too.

    A character that matplotlib's font (the first in its ``font.sans-serif``) does not have is drawn
    as U+FFFD, without the warning that each would give.
    """
    known = ''.join(c if ord(c) in _characters() else '\ufffd' for c in text)
    return known.replace('$', r'\$')


@lru_cache(maxsize=1)
def _characters() -> FrozenSet[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font
    return frozenset(get_font(findfont(FontProperties(['sans-serif']))).get_charmap())


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
        """A copy of one of the parts, at the size of the enlarged image; here, maps of pixels."""
        return PixelData(metainfo=part.metainfo, **{
            name: np.asarray(values).repeat(scale, -2).repeat(scale, -1)
            for name, values in part.cpu().items()})

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

    def draw_texts(self, texts: Union[str, List[str]], positions: Union[np.ndarray, torch.Tensor],
                   font_sizes: Optional[Union[float, List[float]]] = None, *args,
                   horizontal_alignments: str = 'left', bboxes: Optional[List[dict]] = None,
                   **kwargs) -> 'Enlarging':
        """As mmengine's, except that labels are at least readable and lie inside the image."""
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import text_to_path
        texts = [drawn_text(text) for text in ([texts] if isinstance(texts, str) else texts)]
        if not isinstance(font_sizes, list):
            font_sizes = [font_sizes or self._default_font_size] * len(texts)
        pixels = self.dpi / _POINTS  # of a point
        least = label_height((self.height, self.width)) / pixels
        font_sizes = [float(max(size, least)) for size in font_sizes]
        positions = np.array(positions, dtype=float).reshape(-1, 2)
        for position, text, size, box in zip(positions, texts, font_sizes,
                                             bboxes or [{}] * len(texts)):
            extent = text_to_path.get_text_width_height_descent(
                text.replace(r'\$', '$'), FontProperties(size=size), False)
            margin = box.get('pad', 0) * pixels + 1
            width, height = (length * pixels + 2 * margin for length in extent[:2])
            left = width / 2 if horizontal_alignments == 'center' else margin
            low = (left, margin)
            high = (self.width - width + left, self.height - height + margin)
            position[:] = np.maximum(np.minimum(position, high), low)
        return super().draw_texts(texts, positions, font_sizes, *args, bboxes=bboxes,
                                  horizontal_alignments=horizontal_alignments, **kwargs)
