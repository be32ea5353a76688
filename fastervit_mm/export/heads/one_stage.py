"""RetinaNet, ATSS, GFL, FCOS and RTMDet: boxes of a dense head.

As mmdet's ``BaseDenseHead.predict_by_feat``, of all images at once. Shapes: B images, N candidates,
C classes.
"""
import copy
from types import MethodType
from typing import Optional, Tuple

import torch
from mmdet.models.task_modules import AnchorGenerator
from torch import Tensor, nn

from . import boxes as ops
from . import not_served


class OneStage(nn.Module):
    """Dense head of a one-stage detector: maps -> boxes, scores, labels, count.

    Args:
        model: A detector of mmdet with ``bbox_head``.

    Raises:
        ExportError: For a head or test settings that are not served.
    """
    task = 'detection'
    names = list(ops.OUTPUTS)

    def __init__(self, model: nn.Module):
        super().__init__()
        self.head, self.test_cfg = model.bbox_head, model.test_cfg
        if not self.head.use_sigmoid_cls or getattr(self.head.loss_cls, 'custom_cls_channels',
                                                    False):
            raise not_served(f'{type(self.head).__name__} with scores other than sigmoid')
        # Points of mmdet's anchors' grid: their own asks whether a map has one column.
        self.generator = copy.copy(self.head.prior_generator)
        self.generator._meshgrid = MethodType(AnchorGenerator._meshgrid, self.generator)
        self.before = ops.positive(self.test_cfg, 'nms_pre')
        self.number = ops.positive(self.test_cfg, 'max_per_img')
        self.iou = ops.iou_threshold(self.test_cfg.nms)

    def forward(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tuple[Tensor, ...]:
        levels = [self.candidates(level, size, *outputs)
                  for level, outputs in enumerate(zip(*self.head(maps)))]
        boxes, scores, labels = (torch.cat(found, 1) for found in zip(*levels))
        scores = ops.suppress_labelled(boxes, scores, labels, self.head.num_classes, self.iou,
                                       self.number)
        return ops.detections(boxes, scores, labels, self.number)

    def candidates(self, level: int, size: Tuple[int, int], logits: Tensor, deltas: Tensor,
                   centerness: Optional[Tensor] = None) -> Tuple[Tensor, Tensor, Tensor]:
        """The best pairs of a box and a class on a level.

        Returns:
            Boxes (B, N, 4); scores (B, N), 0 or less for absent ones; labels (B, N). N is
            ``nms_pre``.
        """
        head, generator, C = self.head, self.generator, self.head.num_classes
        width = deltas.shape[1] // generator.num_base_priors[level]
        scores = ops.rows(logits, C).sigmoid().flatten(1)
        scores, index = ops.top(scores * (scores > self.test_cfg.get('score_thr', 0)), self.before)
        cells = index.div(C, rounding_mode='trunc')  # as `//`, without Mod in ONNX
        priors = ops.priors(generator, level, logits)[cells]
        deltas = ops.take(ops.rows(deltas, width), cells)
        if hasattr(head, 'integral'):  # GFL: the mean of a distribution of distances, in strides
            deltas = head.integral(deltas).view(*cells.shape, 4)
            deltas = deltas * generator.strides[level][0]
            priors = head.anchor_center(priors)
        boxes = ops.decode(head.bbox_coder, priors, deltas, size)
        if centerness is not None:
            scores = scores * ops.take(ops.rows(centerness, 1)[..., 0].sigmoid(), cells)
        sides = boxes[..., 2:] - boxes[..., :2]
        scores = scores * (sides > self.test_cfg.get('min_bbox_size', -1)).all(-1)
        return boxes, scores, index - cells * C
