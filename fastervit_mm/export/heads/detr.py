"""DINO and Deformable DETR: encoder, decoder and boxes without suppression.

As mmdet's ``DetectionTransformer.predict`` for images of one size, which it does not mask; sizes of
levels are integers, where mmdet has tensors. Shapes: B images, N cells of all levels, Q queries, C
classes.
"""
import copy
import math
from functools import partial
from itertools import count
from typing import Any, Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ...backbone.windows import dense
from ..pictures import preprocessing
from . import boxes as ops
from . import not_served

Sizes = Sequence[Tuple[int, int]]  # height and width of each level


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
        self.detector._modules = {key: _swapped(module)
                                  for key, module in model._modules.items()
                                  if key not in ('backbone', 'neck', 'data_preprocessor')}
        self.detector.gen_encoder_output_proposals = partial(_proposals, self.detector)

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
        shapes: Sizes = [tuple(x.shape[2:]) for x in maps]
        levels: Dict[str, Any] = dict(
            spatial_shapes=shapes, level_start_index=None,
            valid_ratios=maps[0].new_ones(maps[0].shape[0], len(maps), 2))
        centres = torch.cat(_centres(shapes, maps[0]))[None, :, None]
        memory, positions = torch.cat(cells, 1), torch.cat(positions, 1)
        for layer in detector.encoder.layers:
            memory = layer(
                query=memory, query_pos=positions, key_padding_mask=None,
                reference_points=centres.expand(-1, -1, len(maps), -1), **levels)
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
                spatial_shapes: Sizes = (), **kwargs) -> Tensor:
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
        places = 2 * (points[..., :2] + offsets) - 1
        levels = value.split([h * w for h, w in spatial_shapes], 1)
        found = [F.grid_sample(
            dense(x.permute(0, 2, 3, 1)).view(B * self.num_heads, -1, h, w),
            dense(at.transpose(1, 2)).view(B * self.num_heads, Q, self.num_points, 2),
            align_corners=False) for x, at, (h, w) in zip(levels, places.unbind(3), spatial_shapes)]
        weights = dense(weights.transpose(1, 2)).view(B * self.num_heads, 1, Q, -1)
        output = (torch.stack(found, -2).flatten(-2) * weights).sum(-1).view(B, -1, Q)
        return self.output_proj(output.transpose(1, 2)) + identity


class SpeltOutAttention(nn.MultiheadAttention):
    """Attention as products and a softmax: PyTorch's asks whether the batch is 1."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **masks) -> Tuple[Tensor, None]:
        """(Q, B, D) each -> (Q, B, D), without masks."""
        Q, B, D = query.shape
        projected = [F.linear(dense(x), *layer) for x, *layer in zip(
            (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3))]
        q, k, v = (dense(x.view(Q, B, self.num_heads, -1).permute(1, 2, 0, 3)) for x in projected)
        logits = (q * self.head_dim**-0.5) @ dense(k.transpose(-2, -1))
        x = dense((logits.softmax(dim=-1) @ v).permute(2, 0, 1, 3))
        return self.out_proj(x.view(Q, B, D)), None


# Only the class is swapped: weights and names stay.
_SWAPS = {MultiScaleDeformableAttention: IntegerSizes, nn.MultiheadAttention: SpeltOutAttention}


def _centres(shapes: Sizes, like: Tensor) -> List[Tensor]:
    """Relative x and y of the cells of maps, each (h w, 2)."""
    levels = []
    for h, w in shapes:
        y, x = ((torch.arange(n, device=like.device) + 0.5) / n for n in (h, w))
        levels.append(torch.stack([x.repeat(h), y.view(-1, 1).repeat(1, w).view(-1)], -1))
    return levels


def _proposals(detector: nn.Module, memory: Tensor, mask: None, shapes: Sizes
               ) -> Tuple[Tensor, Tensor]:
    """mmdet's ``gen_encoder_output_proposals``: cells (B, N, D) and boxes as logits (1, N, 4)."""
    boxes = torch.cat([torch.cat([x, torch.full_like(x, 0.05 * 2**level)], -1)
                       for level, x in enumerate(_centres(shapes, memory))])[None]
    outside = ~((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    memory = detector.memory_trans_fc(memory.masked_fill(outside, 0.))
    return (detector.memory_trans_norm(memory),
            torch.log(boxes / (1 - boxes)).masked_fill(outside, math.inf))


def _swapped(module: nn.Module) -> nn.Module:
    """A copy whose attention can be captured for every size."""
    module = copy.deepcopy(module)
    for part in module.modules():
        part.__class__ = _SWAPS.get(type(part), type(part))
    return module


def _smallest(model: nn.Module) -> int:
    """The smallest side of a square image with as many cells as the first queries."""
    strides = [4 * 2**i for i in model.backbone.out_indices]
    strides += [strides[-1] * 2**i for i in range(1, model.num_feature_levels - len(strides) + 1)]
    return next(side for side in count(32, 8)
                if sum((-(-side // stride))**2 for stride in strides) >= model.num_queries)
