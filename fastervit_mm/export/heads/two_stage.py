"""Faster, Mask and Cascade (Mask) R-CNN: proposals, box stages, masks.

As mmdet's ``TwoStageDetector.predict``, with all proposals of all images in one tensor. Shapes: B
images, N proposals, C classes, M detections.
"""
from typing import List, Sequence, Tuple

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from . import boxes as ops
from . import not_served

_BOX_HEADS = ('BBoxHead', 'ConvFCBBoxHead', 'Shared2FCBBoxHead', 'Shared4Conv1FCBBoxHead')


class TwoStage(nn.Module):
    """RPN and RoI heads: maps -> boxes, scores, labels, count, masks.

    Args:
        model: A detector of mmdet with ``rpn_head`` and ``roi_head``.

    Raises:
        ExportError: For heads or test settings that are not served.
    """
    task = 'detection'

    def __init__(self, model: nn.Module):
        super().__init__()
        roi = model.roi_head
        self.rpn, self.rpn_cfg = model.rpn_head, model.test_cfg.rpn
        self.test_cfg = model.test_cfg.rcnn
        self.box_heads, self.box_extractors = _list(roi.bbox_head), _list(roi.bbox_roi_extractor)
        self.mask_heads = _list(roi.mask_head if roi.with_mask else [])
        self.mask_extractors = _list(roi.mask_roi_extractor if roi.with_mask else [])
        self.names = [*ops.OUTPUTS, *['masks'] * roi.with_mask]
        if roi.with_shared_head:
            raise not_served(f'{type(roi).__name__} with a shared head')
        for part, kinds in ((self.rpn, ('RPNHead', )),
                            *((head, _BOX_HEADS) for head in self.box_heads),
                            *((head, ('FCNMaskHead', )) for head in self.mask_heads),
                            *((extractor, ('SingleRoIExtractor', ))
                              for extractor in (*self.box_extractors, *self.mask_extractors))):
            if type(part).__name__ not in kinds:
                raise not_served(type(part).__name__)
        if not self.rpn.use_sigmoid_cls or any(h.custom_cls_channels for h in self.box_heads):
            raise not_served('A head with scores other than sigmoid (RPN) and softmax (boxes)')
        self.rpn_limits = [ops.positive(self.rpn_cfg, name) for name in ('nms_pre', 'max_per_img')]
        self.rpn_iou = ops.iou_threshold(self.rpn_cfg.nms)
        self.iou = ops.iou_threshold(self.test_cfg.nms)
        self.number = ops.positive(self.test_cfg, 'max_per_img')

    def forward(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tuple[Tensor, ...]:
        proposals, there = self.propose(maps, size)
        boxes, logits = self.refine(maps, proposals, size)
        scores = logits.softmax(-1)[..., :-1] * there[..., None]
        boxes, scores, labels, count = self.choose(boxes, scores.transpose(1, 2))
        if not self.mask_heads:
            return boxes, scores, labels, count
        masks = self.masks(maps, boxes, labels) * (scores > 0)[..., None, None]
        return boxes, scores, labels, count, masks

    def propose(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tuple[Tensor, Tensor]:
        """Proposals of the RPN: boxes (B, N, 4), and which exist (B, N)."""
        before, after = self.rpn_limits
        boxes, scores = [], []
        for level, (logits, deltas) in enumerate(zip(*self.rpn(maps))):
            anchors = ops.priors(self.rpn.prior_generator, level, logits)
            best, index = ops.top(ops.rows(logits, 1)[..., 0].sigmoid(), before)
            deltas = ops.take(ops.rows(deltas, 4), index)
            found = ops.decode(self.rpn.bbox_coder, anchors[index], deltas, size)
            sides = found[..., 2:] - found[..., :2]
            boxes.append(found)
            scores.append(best * (sides > self.rpn_cfg.get('min_bbox_size', -1)).all(-1))
        # Each level of each image is suppressed on its own, like images of a batch.
        scores = ops.suppress(torch.stack(boxes, 1).flatten(0, 1),
                              torch.stack(scores, 1).flatten(0, 1)[:, None],
                              self.rpn_iou, 0., after)
        scores, index = ops.top(scores.view(maps[0].shape[0], -1), after)
        return ops.take(torch.cat(boxes, 1), index), scores > 0

    def refine(self, maps: Tuple[Tensor, ...], boxes: Tensor, size: Tuple[int, int]
               ) -> Tuple[Tensor, Tensor]:
        """Boxes and logits of all stages.

        Returns:
            Boxes (B, N, 4), or (B, N, C, 4) of each class; logits (B, N, C + 1), the stages' mean,
            background last.
        """
        B, N = boxes.shape[:2]
        total = 0
        for extractor, head in zip(self.box_extractors, self.box_heads):
            logits, deltas = head(_align(extractor, maps, boxes))
            total = total + logits.view(B, N, -1)
            if head.reg_class_agnostic:
                deltas = deltas.view(B, N, 4)
            elif head is not self.box_heads[-1]:
                own = logits[:, :-1].argmax(1, keepdim=True)
                deltas = ops.take(deltas.view(B * N, -1, 4), own).view(B, N, 4)
            else:
                deltas = deltas.view(B, N, -1, 4)
                boxes = boxes[:, :, None].expand_as(deltas)
            boxes = ops.decode(head.bbox_coder, boxes, deltas, size)
        return boxes, total / len(self.box_heads)

    def choose(self, boxes: Tensor, scores: Tensor) -> Tuple[Tensor, ...]:
        """Detections of boxes from :meth:`refine` and scores (B, C, N)."""
        B, C, N = scores.shape
        settings = self.iou, float(self.test_cfg.score_thr), self.number
        if boxes.ndim == 3:
            scores = ops.suppress(boxes, scores, *settings)
            boxes = boxes[:, None].expand(-1, C, -1, -1)
        else:  # a class with boxes of its own is suppressed like an image of a batch
            boxes = boxes.transpose(1, 2)
            scores = ops.suppress(boxes.flatten(0, 1), scores.flatten(0, 1)[:, None], *settings)
        labels = torch.arange(C, device=boxes.device)[:, None].expand(B, C, N)
        return ops.detections(boxes.flatten(1, 2), scores.view(B, -1), labels.flatten(1),
                              self.number)

    def masks(self, maps: Tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Masks (B, M, h, w) of boxes (B, M, 4) with labels (B, M)."""
        total = 0
        for extractor, head in zip(self.mask_extractors, self.mask_heads):
            total = total + head(_align(extractor, maps, boxes)).sigmoid()
        if head.class_agnostic:
            labels = torch.zeros_like(labels)
        masks = ops.take(total, labels.view(-1, 1)) / len(self.mask_heads)
        return masks.view(*labels.shape, *masks.shape[2:])


def _list(module: nn.Module) -> nn.ModuleList:
    return nn.ModuleList(module if isinstance(module, (list, nn.ModuleList)) else [module])


def _align(extractor: nn.Module, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """RoIAlign: maps (B, D, h, w), boxes (B, N, 4) -> (B N, D, cells, cells).

    Each level gets all boxes, so no shape depends on which belong to it. Those of other levels are
    empty there, and cost little.
    """
    B, N = boxes.shape[:2]
    image = torch.arange(B, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(-1, N, 1)
    rois = torch.cat([image, boxes], -1).flatten(0, 1)
    maps = maps[:extractor.num_inputs]
    levels = extractor.map_roi_levels(rois, len(maps))
    found: List[Tensor] = []
    for level, (layer, features) in enumerate(zip(extractor.roi_layers, maps)):
        own = (levels == level)[:, None]
        own_rois = torch.cat([rois[:, :1], rois[:, 1:] * own], 1)
        cells = roi_align(features, own_rois, layer.output_size, layer.spatial_scale,
                          layer.sampling_ratio, layer.aligned)
        found.append(cells * own[..., None, None])
    return sum(found)
