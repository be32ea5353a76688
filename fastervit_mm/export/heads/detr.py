"""DINO and Deformable DETR: encoder, decoder and boxes without suppression.

As mmdet's ``DetectionTransformer.predict`` for images of one size, which it does not mask; sizes of
levels are integers, where mmdet has tensors. Shapes: B images, N cells of all levels, Q queries, C
classes.
"""
import copy
from itertools import count
from typing import Any, Dict, List, Tuple

import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttention,
    multi_scale_deformable_attn_pytorch,
)
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ..pictures import preprocessing
from . import boxes as ops
from . import not_served


class Detr(nn.Module):
    """Transformer and head of a DETR: maps -> boxes, scores, labels, count.

    Args:
        model: mmdet's ``DINO`` or ``DeformableDETR``.

    Raises:
        ExportError: For another detector, or settings that are not served.
    """
    task = 'detection'
    names = list(ops.OUTPUTS)

    def __init__(self, model: nn.Module):
        super().__init__()
        name = type(model).__name__
        if name not in ('DINO', 'DeformableDETR'):
            raise not_served(name)
        if not model.bbox_head.loss_cls.use_sigmoid:
            raise not_served(f'{name} with scores other than sigmoid')
        if preprocessing(model).divisor != 1:
            raise not_served(f'{name} with padded images (pad_size_divisor), which it masks,')
        self.test_cfg = model.test_cfg
        self.number = ops.positive(self.test_cfg, 'max_per_img')
        self.smallest = _smallest(model) if model.as_two_stage else 32
        # The detector without what comes before its transformer.
        self.detector = copy.copy(model)
        self.detector._modules = {key: _integer_sizes(module)
                                  for key, module in model._modules.items()
                                  if key not in ('backbone', 'neck', 'data_preprocessor')}

    def forward(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tuple[Tensor, ...]:
        logits, boxes = self.queries(maps)
        B, Q, C = logits.shape
        scores, index = ops.top(logits.sigmoid().flatten(1), self.number)
        query = index.div(C, rounding_mode='trunc')  # as `//`, without Mod in ONNX
        boxes = bbox_cxcywh_to_xyxy(ops.take(boxes, query))
        height, width = size
        sides = torch.stack([boxes.new_ones(()) * n for n in (width, height, width, height)])
        return ops.detections(ops.clip(boxes * sides, size), scores, index - query * C, self.number)

    def queries(self, maps: Tuple[Tensor, ...]) -> Tuple[Tensor, Tensor]:
        """Logits (B, Q, C) and relative boxes (B, Q, 4), centre and sides, of the last layer."""
        detector, head = self.detector, self.detector.bbox_head
        cells = [rows(x) for x in maps]
        positions = [rows(detector.positional_encoding(None, input=x)) + embedding
                     for x, embedding in zip(maps, detector.level_embed)]
        shapes: List[Tuple[int, int]] = [tuple(x.shape[2:]) for x in maps]
        levels: Dict[str, Any] = dict(
            spatial_shapes=shapes, level_start_index=None,
            valid_ratios=maps[0].new_ones(maps[0].shape[0], len(maps), 2))
        memory = detector.forward_encoder(torch.cat(cells, 1), None, torch.cat(positions, 1),
                                          **levels)['memory']
        start, _ = detector.pre_decoder(memory, None, shapes)
        query = {key: start[key] for key in ('query', 'query_pos', 'reference_points')
                 if key in start}
        # Not forward_decoder: DINO's asks whether the batch is as large as the number of queries.
        states, references = detector.decoder(
            **query, value=start['memory'], key_padding_mask=None, self_attn_mask=None, **levels,
            reg_branches=head.reg_branches if detector.with_box_refine else None)
        if len(references) == len(states):  # Deformable DETR's are without the first
            references = [start['reference_points'], *references]
        logits, boxes = head(states, references)
        return logits[-1], boxes[-1]


def rows(features: Tensor) -> Tensor:
    """A map as a row for each cell: (B, D, h, w) -> (B, h w, D)."""
    return ops.rows(features, features.shape[1])


class IntegerSizes(MultiScaleDeformableAttention):
    """Deformable attention that takes the levels' sizes as pairs of integers."""

    def forward(self, query: Tensor, value: Tensor = None, identity: Tensor = None,
                query_pos: Tensor = None, reference_points: Tensor = None,
                spatial_shapes: List[Tuple[int, int]] = (), **kwargs) -> Tensor:
        """As mmcv's, batch first and without a mask."""
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        B, Q = query.shape[:2]
        shape = B, Q, self.num_heads, self.num_levels, self.num_points
        value = self.value_proj(value).view(B, value.shape[1], self.num_heads, -1)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        points = reference_points[:, :, None, :, None]
        if points.shape[-1] == 2:
            offsets = torch.stack([level / torch.stack([level.new_ones(()) * n for n in (w, h)])
                                   for level, (h, w) in zip(offsets.unbind(3), spatial_shapes)], 3)
        else:
            offsets = offsets / self.num_points * points[..., 2:] * 0.5
        places = points[..., :2] + offsets
        found = multi_scale_deformable_attn_pytorch(value, spatial_shapes, places, weights)
        return self.output_proj(found) + identity


def _integer_sizes(module: nn.Module) -> nn.Module:
    """The module, whose deformable attention takes integers; a copy."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if type(part) is MultiScaleDeformableAttention:
            part.__class__ = IntegerSizes
    return module


def _smallest(model: nn.Module) -> int:
    """The smallest side of a square image with as many cells as the first queries."""
    strides = [4 * 2**i for i in model.backbone.out_indices]
    strides += [strides[-1] * 2**i for i in range(1, model.num_feature_levels - len(strides) + 1)]
    return next(side for side in count(32, 8)
                if sum((-(-side // stride))**2 for stride in strides) >= model.num_queries)
