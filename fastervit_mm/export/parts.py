"""Exportable part of a network, as its own module."""
from typing import List, Optional, Tuple

import torch.nn.functional as F
from torch import Tensor, nn

PARTS = ('backbone', 'features', 'whole')


class ExportError(RuntimeError):
    """Export that is not possible; the message says why."""


def choose_part(model: nn.Module, part: Optional[str] = None) -> str:
    """Choose the part to export: the requested or the largest.

    Args:
        model: A segmentor, detector, classifier, or a bare backbone.
        part: ``'backbone'``, ``'features'`` (up to the neck) or ``'whole'`` (a segmentor's logits
            or labels). Default ``'whole'`` for mmseg's encoder-decoders, ``'features'`` for
            networks with a neck, ``'backbone'`` for others.

    Raises:
        ExportError: Where the network has no such part.
    """
    segments = _segments(model)
    if part is None:
        return 'whole' if segments else 'features' if getattr(
            model, 'neck', None) is not None else 'backbone'
    if part not in PARTS:
        raise ExportError(f'part={part!r}: give one of {list(PARTS)}')
    if part == 'whole' and not segments:
        raise ExportError(
            f'part=\'whole\': {type(model).__name__} is not an encoder-decoder of mmseg with one '
            'decode head. Heads of detectors choose boxes, whose number depends on the image: '
            'export the \'features\' and run the heads after them')
    if part == 'features' and getattr(model, 'neck', None) is None:
        raise ExportError(f'part=\'features\': {type(model).__name__} has no neck; give '
                          '\'backbone\'' + (' or \'whole\'' if segments else ''))
    return part


def _segments(model: nn.Module) -> bool:
    return (hasattr(model, 'encode_decode') and hasattr(model, 'decode_head')
            and not isinstance(model.decode_head, nn.ModuleList))


class Exportable(nn.Module):
    """Part of a network: normalised (B, C, H, W) -> tuple of tensors.

    Args:
        model: A segmentor, detector, classifier, or a bare backbone.
        part: From :func:`choose_part`.
        labels: Return labels (B, H, W) instead of logits (B, classes, H, W). Default False.

    Attributes:
        names (list[str]): Names of the outputs: ``stride4``... for maps of the backbone,
            ``feature0``... for those of the neck; ``logits`` or ``labels``. Empty until
            :meth:`name_outputs`.

    Raises:
        ExportError: For ``labels`` of a network that gives none.
    """

    def __init__(self, model: nn.Module, part: str, labels: bool = False):
        super().__init__()
        if labels and part != 'whole':
            raise ExportError(f'labels=True: only a whole segmentor gives labels, and '
                              f'part={part!r}; give part=\'whole\' or leave labels out')
        self.backbone = getattr(model, 'backbone', model)
        self.neck = None if part == 'backbone' else getattr(model, 'neck', None)
        self.decode_head = model.decode_head if part == 'whole' else None
        self.labels = labels
        self.names: List[str] = []

    def forward(self, images: Tensor) -> Tuple[Tensor, ...]:
        """(B, C, H, W) -> maps, or full-size logits or labels."""
        maps = self.backbone(images)
        if self.neck is not None:
            maps = self.neck(maps)
        if self.decode_head is None:
            return tuple(maps)
        logits = F.interpolate(self.decode_head(maps), images.shape[2:], mode='bilinear',
                               align_corners=self.decode_head.align_corners)
        return (labels_of(logits, self.decode_head) if self.labels else logits, )

    def name_outputs(self, number: int) -> None:
        if self.decode_head is not None:
            self.names = ['labels' if self.labels else 'logits']
        elif self.neck is not None:
            self.names = [f'feature{i}' for i in range(number)]
        else:
            indices = getattr(self.backbone, 'out_indices', range(number))
            self.names = [f'stride{4 * 2**i}' for i in indices]


def labels_of(logits: Tensor, head: nn.Module) -> Tensor:
    """mmseg's labels for logits: (B, classes, H, W) -> (B, H, W).

    Args:
        logits: With one channel for a head that separates two classes by a threshold.
        head: The segmentor's ``decode_head``.
    """
    if head.out_channels == 1:
        return (logits[:, 0].sigmoid() > head.threshold).long()
    return logits.argmax(dim=1)
