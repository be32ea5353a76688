"""Readable overlays: small images enlarged, labels legible."""
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
# Readable visualizers in place of mmdet's and mmseg's own.
_READABLE = dict(DetLocalVisualizer=_DET, EnlargedDetVisualizer=_DET,
                 SegLocalVisualizer=_SEG, EnlargedSegVisualizer=_SEG)


def readable(visualizer: dict, **settings: Any) -> dict:
    """Replace mmdet's or mmseg's visualizer by one with readable labels.

    Args:
        visualizer: Settings of a visualizer; not changed.
        **settings: More settings of the new one, such as ``scale=1``.
    """
    name, module = _READABLE.get(type_name(visualizer), (None, None))
    if name is None:
        return visualizer
    importlib.import_module(module)
    return {**visualizer, 'type': name, **settings}


def enlargement(shape: Tuple[int, ...]) -> int:
    """Factor from 1 to 3 for enlarging an image.

    It brings the longer side to 480 pixels or more, if 3 suffices.
    """
    return min(max(-(-_ENOUGH // max(shape[:2])), 1), _MOST)


def label_height(shape: Tuple[int, ...]) -> float:
    """Smallest height of a label's font on an image.

    Large photos are shown scaled down, so labels grow with them.
    """
    return max(13., max(shape[:2]) / 70)


def drawn_text(text: str) -> str:
    r"""Escape ``$`` for matplotlib; replace characters that its font lacks.

    The font is the first in ``font.sans-serif``. Each missing character would give a warning, so
    U+FFFD replaces it.
    """
    known = ''.join(c if ord(c) in _characters() else '\ufffd' for c in text)
    return known.replace('$', r'\$')


@lru_cache(maxsize=1)
def _characters() -> FrozenSet[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font
    return frozenset(get_font(findfont(FontProperties(['sans-serif']))).get_charmap())


class Enlarging:
    """Mixin of visualizers, to draw on an enlarged image.

    Labels and lines have a fixed size in pixels; at that size they would hide an image of 160
    pixels.

    Args:
        scale: Factor of width and height. Default None, :func:`enlargement`.
        **kwargs: Those of the visualizer.

    Attributes:
        fields: Drawn parts of a data sample.
    """
    fields: Tuple[str, ...] = ()

    def __init__(self, name: str = 'visualizer', *args, scale: Optional[int] = None, **kwargs):
        super().__init__(name, *args, **kwargs)
        self.scale = scale

    def enlarged(self, part: Any, scale: int) -> Any:
        """Enlarge a copy of a part; here, maps of pixels."""
        return PixelData(metainfo=part.metainfo, **{
            name: np.asarray(values).repeat(scale, -2).repeat(scale, -1)
            for name, values in part.cpu().items()})

    def add_datasample(self, name: str, image: np.ndarray,
                       data_sample: Optional[BaseDataElement] = None, *args, **kwargs) -> None:
        """Draw a data sample on an (H, W, 3) RGB image."""
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
        """Draw texts like mmengine, but readable and inside the image."""
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
