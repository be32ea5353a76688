"""Drawing small pictures large enough to read."""
import copy
from typing import Optional

import mmcv
import numpy as np
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData


@VISUALIZERS.register_module()
class EnlargedDetVisualizer(DetLocalVisualizer):
    """mmdet's ``DetLocalVisualizer`` on an enlarged picture.

    Labels and lines have a size in pixels; on a picture of 160 pixels they would hide it.

    Args:
        scale: How many times wider and higher. Default 3.
        **kwargs: As ``DetLocalVisualizer``'s.
    """

    def __init__(self, name: str = 'visualizer', *args, scale: int = 3, **kwargs):
        super().__init__(name, *args, **kwargs)
        self.scale = scale

    def add_datasample(self, name: str, image: np.ndarray,
                       data_sample: Optional[DetDataSample] = None, *args, **kwargs) -> None:
        """As ``DetLocalVisualizer.add_datasample``; ``image`` is (H, W, 3) RGB."""
        if data_sample is not None:
            data_sample = copy.copy(data_sample)
            for field in ('gt_instances', 'pred_instances'):
                if field in data_sample:
                    setattr(data_sample, field, self._enlarged(getattr(data_sample, field)))
        image = mmcv.imrescale(image, self.scale, interpolation='bicubic')
        super().add_datasample(name, image, data_sample, *args, **kwargs)

    def _enlarged(self, instances: InstanceData) -> InstanceData:
        fields = dict(instances.items())
        if 'bboxes' in fields:
            # Ground truth may come as mmdet's box type, predictions as a tensor.
            boxes = getattr(fields['bboxes'], 'tensor', fields['bboxes'])
            fields['bboxes'] = torch.as_tensor(boxes) * self.scale
        if 'masks' in fields:
            masks = fields['masks']
            masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else np.asarray(masks)
            fields['masks'] = masks.astype(bool).repeat(self.scale, 1).repeat(self.scale, 2)
        return InstanceData(**fields)
