"""Mask2Former of mmseg: logits from masks of queries.

Shapes: B images, Q queries, C classes.
"""
from typing import List, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet.models.layers import MSDeformAttnPixelDecoder, SinePositionalEncoding
from torch import Tensor, nn

from ...backbone.windows import dense
from .segmentor import Segmentor
from .transformer import encode, sizes_of, swapped


class Mask2Former(Segmentor):
    """Segmentor whose decode head is mmseg's ``Mask2FormerHead``."""

    def __init__(self, model: nn.Module, labels: bool = False):
        super().__init__(model, labels)
        self.decode_head = swapped(self.decode_head, {
            MSDeformAttnPixelDecoder: PixelDecoder, SinePositionalEncoding: EncodingOfSizes})

    def logits(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tensor:
        """(B, C, *size), as by the head's ``predict``."""
        scores, masks = (layers[-1] for layers in self.decode_head(maps, None))
        masks = F.interpolate(masks, size, mode='bilinear', align_corners=False).sigmoid()
        return torch.einsum('bqc,bqhw->bchw', scores.softmax(-1)[..., :-1], masks)


class EncodingOfSizes(SinePositionalEncoding):
    """Positions from the size of a mask, of which nothing is padded."""

    def forward(self, mask: Tensor, input: Tensor = None) -> Tensor:
        """(B, h, w), or ``input`` (B, D, h, w) -> (B, D, h, w)."""
        return dense(super().forward(None, mask[:, None] if input is None else input))


class PixelDecoder(MSDeformAttnPixelDecoder):
    """Pixel decoder that takes the levels' sizes as pairs of integers."""

    def forward(self, feats: Sequence[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """As mmdet's: (B, D, h, w) each -> the masks' map, and maps of low to high resolution."""
        deep = len(feats) - self.num_encoder_levels
        inputs = [conv(x) for conv, x in zip(self.input_convs, feats[:deep - 1:-1])]
        memory = encode(self.encoder.layers, inputs, self.postional_encoding,
                        self.level_encoding.weight)
        shapes = sizes_of(inputs)
        B, _, D = memory.shape
        found = [dense(cells.transpose(1, 2)).view(B, D, h, w) for cells, (h, w) in zip(
            memory.split([h * w for h, w in shapes], 1), shapes)]
        for x, lateral, output in zip(feats[deep - 1::-1], self.lateral_convs, self.output_convs):
            x = lateral(x)
            found.append(output(x + F.interpolate(
                found[-1], x.shape[2:], mode='bilinear', align_corners=False)))
        return self.mask_feature(found[-1]), found[:self.num_outs]
