"""Drawing detections on small images."""
import numpy as np
import torch
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

from .enlarging import Enlarging


@VISUALIZERS.register_module()
class EnlargedDetVisualizer(Enlarging, DetLocalVisualizer):
    """mmdet's ``DetLocalVisualizer`` on an enlarged image."""
    fields = ('gt_instances', 'pred_instances')

    def enlarged(self, part: InstanceData) -> InstanceData:
        """Boxes and masks at the larger size."""
        fields = dict(part.items())
        if 'bboxes' in fields:
            # Ground truth may come as mmdet's box type, predictions as a tensor.
            boxes = getattr(fields['bboxes'], 'tensor', fields['bboxes'])
            fields['bboxes'] = torch.as_tensor(boxes) * self.scale
        if 'masks' in fields:
            masks = fields['masks']
            masks = masks.to_ndarray() if hasattr(masks, 'to_ndarray') else np.asarray(masks)
            fields['masks'] = masks.astype(bool).repeat(self.scale, 1).repeat(self.scale, 2)
        return InstanceData(**fields)
