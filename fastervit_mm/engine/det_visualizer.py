"""Drawing detections on images of any size, with labels that can be read."""
from typing import List, Optional, Union

import numpy as np
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

from .enlarging import Enlarging, label_height

_POINTS = 72  # an inch


@VISUALIZERS.register_module()
class EnlargedDetVisualizer(Enlarging, DetLocalVisualizer):
    """mmdet's ``DetLocalVisualizer`` on an enlarged image, with labels that can be read.

    mmdet's own labels are 8 pixels high on most objects, and end at the image's edge.
    """
    fields = ('gt_instances', 'pred_instances')

    def enlarged(self, part: InstanceData, scale: int) -> InstanceData:
        """Boxes and masks at the larger size."""
        fields = dict(part.items())
        if 'bboxes' in fields:
            # Ground truth may come as mmdet's box type, predictions as a tensor.
            boxes = getattr(fields['bboxes'], 'tensor', fields['bboxes'])
            fields['bboxes'] = torch.as_tensor(boxes) * scale
        if 'masks' in fields:
            masks = fields['masks']
            masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else np.asarray(masks)
            fields['masks'] = masks.astype(bool).repeat(scale, 1).repeat(scale, 2)
        return InstanceData(**fields)

    def draw_texts(self, texts: Union[str, List[str]], positions: Union[np.ndarray, torch.Tensor],
                   font_sizes: Optional[Union[float, List[float]]] = None, *args,
                   horizontal_alignments: str = 'left', **kwargs) -> 'EnlargedDetVisualizer':
        """As mmengine's, except that labels are at least readable and lie inside the image."""
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(font_sizes, list):
            font_sizes = [font_sizes or self._default_font_size] * len(texts)
        least = label_height((self.height, self.width)) * _POINTS / self.dpi
        font_sizes = [float(max(size, least)) for size in font_sizes]
        positions = np.array(positions, dtype=float).reshape(-1, 2)
        for position, text, size in zip(positions, texts, font_sizes):
            extent = text_to_path.get_text_width_height_descent(
                text, FontProperties(size=size), False)
            width, height = (length * self.dpi / _POINTS + 2 for length in extent[:2])
            left = width / 2 if horizontal_alignments == 'center' else 0
            low = (left, 0)
            high = (self.width - width + left, self.height - height)
            position[:] = np.maximum(np.minimum(position, high), low)
        return super().draw_texts(texts, positions, font_sizes, *args,
                                  horizontal_alignments=horizontal_alignments, **kwargs)
