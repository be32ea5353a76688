"""Readable overlays of detections."""
from typing import List, Optional, Union

import numpy as np
import torch
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData

from .enlarging import Enlarging, label_height

_LABEL_WIDTH = 7  # usual, in heights


@VISUALIZERS.register_module()
class EnlargedDetVisualizer(Enlarging, DetLocalVisualizer):
    """mmdet's ``DetLocalVisualizer`` on an enlarged image, with readable labels.

    mmdet's own labels are 8 pixels high on most objects, and end at the image's edge. Where there
    are so many objects that labels would cover an eighth of the image, they are left out.
    """
    _crowded = False
    fields = ('gt_instances', 'pred_instances', 'gt_sem_seg', 'pred_sem_seg', 'gt_panoptic_seg',
              'pred_panoptic_seg')

    def enlarged(self, part: Union[InstanceData, PixelData], scale: int
                 ) -> Union[InstanceData, PixelData]:
        """Enlarge boxes and masks, or maps of pixels."""
        if isinstance(part, PixelData):
            return super().enlarged(part, scale)
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

    def _draw_instances(self, image: np.ndarray, instances: InstanceData, *args) -> np.ndarray:
        height, width = image.shape[:2]
        covered = len(instances) * _LABEL_WIDTH * label_height((height, width)) ** 2
        self._crowded = covered > height * width / 8
        try:
            return super()._draw_instances(image, instances, *args)
        finally:
            self._crowded = False

    def draw_texts(self, *args, **kwargs) -> 'EnlargedDetVisualizer':
        return self if self._crowded else super().draw_texts(*args, **kwargs)

    def _draw_panoptic_seg(self, image: np.ndarray, panoptic_seg: PixelData,
                           classes: Optional[List], palette: Optional[List]) -> np.ndarray:
        labels = np.asarray(panoptic_seg.sem_seg) % INSTANCE_OFFSET
        if (labels >= len(classes)).all():  # mmdet 3.3 fails without a segment
            return image
        return super()._draw_panoptic_seg(image, panoptic_seg, classes, palette)
