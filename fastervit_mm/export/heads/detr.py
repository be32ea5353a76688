"""DINO and Deformable DETR: encoder, decoder and boxes without suppression.

As mmdet's ``DetectionTransformer.predict`` for images of one size, which it does not mask. Shapes:
B images, N cells of all levels, Q queries, C classes.
"""
import copy
import math
from functools import partial
from itertools import count
from typing import Tuple

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ...backbone.windows import dense
from ..pictures import preprocessing
from . import boxes as ops
from . import not_served
from .transformer import Sizes, centres, encode, sizes_of, swapped


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
        self.detector._modules = {key: swapped(module)
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
        memory = encode(detector.encoder.layers, maps, detector.positional_encoding,
                        detector.level_embed)
        shapes = sizes_of(maps)
        # Learned queries are made for one image: a layer of expanded ones asks how many there are.
        start, _ = detector.pre_decoder(
            memory if detector.as_two_stage else memory[:1], None, shapes)
        query = {key: dense(start[key].expand(memory.shape[0], -1, -1))
                 for key in ('query', 'query_pos', 'reference_points') if key in start}
        # Not forward_decoder: DINO's asks whether the batch is as large as the number of queries.
        states, references = detector.decoder(
            **query, value=memory, key_padding_mask=None, self_attn_mask=None,
            spatial_shapes=shapes, level_start_index=None,
            valid_ratios=memory.new_ones(memory.shape[0], len(maps), 2),
            reg_branches=head.reg_branches if detector.with_box_refine else None)
        if len(references) == len(states):  # Deformable DETR's are without the first
            references = [query['reference_points'], *references]
        logits, boxes = head(states, references)
        return logits[-1], boxes[-1]


def _proposals(detector: nn.Module, memory: Tensor, mask: None, shapes: Sizes
               ) -> Tuple[Tensor, Tensor]:
    """mmdet's ``gen_encoder_output_proposals``: cells (B, N, D) and boxes as logits (1, N, 4)."""
    boxes = torch.cat([torch.cat([x, torch.full_like(x, 0.05 * 2**level)], -1)
                       for level, x in enumerate(centres(shapes, memory))])[None]
    outside = ~((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    memory = detector.memory_trans_fc(memory.masked_fill(outside, 0.))
    return (detector.memory_trans_norm(memory),
            torch.log(boxes / (1 - boxes)).masked_fill(outside, math.inf))


def _smallest(model: nn.Module) -> int:
    """The smallest side of a square image with as many cells as the first queries."""
    strides = [4 * 2**i for i in model.backbone.out_indices]
    strides += [strides[-1] * 2**i for i in range(1, model.num_feature_levels - len(strides) + 1)]
    return next(side for side in count(32, 8)
                if sum((-(-side // stride))**2 for stride in strides) >= model.num_queries)
