"""Segmentors of mmseg: logits or labels at the image's size."""
from typing import Tuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ExportError


class Segmentor(nn.Module):
    """Decode head of an encoder-decoder: maps -> logits or labels of every pixel.

    Args:
        model: A segmentor of mmseg.
        labels: Labels (B, H, W) instead of logits (B, classes, H, W). Default False.

    Raises:
        ExportError: For several decode heads, or one that is not served.
    """
    task = 'segmentation'

    def __init__(self, model: nn.Module, labels: bool = False):
        super().__init__()
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead
        head = model.decode_head
        kind = type(head)
        if isinstance(head, nn.ModuleList):
            raise ExportError(f'{type(model).__name__} has several decode heads; a segmentor with '
                              "one can be exported whole. Export --part backbone")
        if kind.__name__ != 'Mask2FormerHead' and kind.predict is not BaseDecodeHead.predict:
            raise ExportError(f'{kind.__name__} cannot be exported; served are heads that give one '
                              'map of logits, as UPerHead, and Mask2FormerHead. Export --part '
                              'backbone, and run the head after it')
        self.decode_head, self.labels = head, labels
        self.names = ['labels' if labels else 'logits']

    def forward(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tuple[Tensor, ...]:
        logits = self.logits(maps, size)
        return (labels_of(logits, self.decode_head) if self.labels else logits, )

    def logits(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tensor:
        """(B, classes, *size)."""
        return F.interpolate(self.decode_head(maps), size, mode='bilinear',
                             align_corners=self.decode_head.align_corners)


def labels_of(logits: Tensor, head: nn.Module) -> Tensor:
    """mmseg's labels for logits: (B, classes, H, W) -> (B, H, W).

    Args:
        logits: With one channel for a head that separates two classes by a threshold.
        head: The segmentor's ``decode_head``.
    """
    if head.out_channels == 1:
        return (logits[:, 0].sigmoid() > head.threshold).long()
    return logits.argmax(dim=1)
