"""Exportable part of a network, as its own module."""
import logging
from typing import List, Optional, Tuple

from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from ..pipelines import reads_all
from .errors import ExportError
from .heads import whole
from .pictures import INPUTS, SMALLEST, Pictures, preprocessing

PARTS = ('backbone', 'features', 'whole')


def choose_part(model: nn.Module, part: Optional[str] = None) -> str:
    """Choose the part to export: the requested or the largest.

    Args:
        model: A segmentor, detector, classifier, or a bare backbone.
        part: ``'backbone'``, ``'features'`` (up to the neck) or ``'whole'`` (heads as well).
            Default ``'whole'`` where the heads can be exported, else, with the reason in the log,
            ``'features'`` for networks with a neck, ``'backbone'`` for others.

    Raises:
        ExportError: Where the network has no such part.
    """
    has_neck = getattr(model, 'neck', None) is not None
    if part is None:
        try:
            whole(model)
        except ExportError as error:
            part = 'features' if has_neck else 'backbone'
            if hasattr(model, 'backbone'):
                print_log(f'part={part!r}: {error}', 'current', logging.WARNING)
            return part
        return 'whole'
    if part not in PARTS:
        raise ExportError(f'part={part!r}: give one of {list(PARTS)}')
    if part == 'whole':
        whole(model)
    if part == 'features' and not has_neck:
        raise ExportError(f'part=\'features\': {type(model).__name__} has no neck; give '
                          '\'backbone\' or \'whole\'')
    return part


def choose_input(part: str, input: Optional[str] = None, cfg: Optional[Config] = None) -> str:
    """Choose the input of a part's file: the requested or the default.

    Args:
        part: From :func:`choose_part`.
        input: The requested one.
        cfg: The model's config; if it reads all bits of an image, the default is ``'float32'``.

    Raises:
        ExportError: For an input that the part does not take.
    """
    taken = INPUTS if part == 'whole' else ('normalized', )
    if input is not None and input not in taken:
        raise ExportError(f'input={input!r}: a file of part={part!r} takes one of {list(taken)}')
    return input or taken[part == 'whole' and cfg is not None and reads_all(cfg)]


def input_channels(model: nn.Module) -> int:
    """Channels of a model's images, by its first convolution."""
    return next(m.in_channels for m in getattr(model, 'backbone', model).modules()
                if isinstance(m, nn.Conv2d))


class Exportable(nn.Module):
    """Part of a network: images (B, C, H, W) -> tuple of tensors.

    Args:
        model: A segmentor, detector, classifier, or a bare backbone.
        part: From :func:`choose_part`.
        labels: For a segmentor, labels (B, H, W) instead of logits (B, classes, H, W). Default
            False.
        input: ``'uint8'`` or ``'float32'`` for images as they are read, three channels as RGB,
            which the module normalises and pads; ``'normalized'`` for images that are so already.
            Default ``'uint8'`` for the whole network, else ``'normalized'``.

    Attributes:
        names (list[str]): Names of the outputs: ``stride4``... for maps of the backbone,
            ``feature0``... for those of the neck, or those of the heads. Empty until
            :meth:`name_outputs`.

    Raises:
        ExportError: For ``labels`` of a network that gives none, or an ``input`` that the part
            does not take.
    """

    def __init__(self, model: nn.Module, part: str, labels: bool = False,
                 input: Optional[str] = None):
        super().__init__()
        if labels and part != 'whole':
            raise ExportError(f'labels=True: only a whole segmentor gives labels, and '
                              f'part={part!r}; give part=\'whole\' or leave labels out')
        self.input = choose_input(part, input)
        self.pictures = None if self.input == 'normalized' else Pictures(preprocessing(model))
        self.backbone = getattr(model, 'backbone', model)
        self.neck = None if part == 'backbone' else getattr(model, 'neck', None)
        self.heads = whole(model, labels) if part == 'whole' else None
        self.names: List[str] = []

    @property
    def smallest(self) -> int:
        """Smallest side of an image, in pixels."""
        return getattr(self.heads, 'smallest', SMALLEST)

    def forward(self, images: Tensor) -> Tuple[Tensor, ...]:
        """(B, C, H, W) -> maps, or the heads' outputs."""
        H, W = images.shape[2:]
        x = images if self.pictures is None else self.pictures(images)
        maps = self.backbone(x)
        if self.neck is not None:
            maps = self.neck(maps)
        if self.heads is None:
            return tuple(maps)
        if self.heads.task == 'segmentation' and self.pictures and self.pictures.divisor != 1:
            # As mmseg: logits of the padded images, then cut.
            return tuple(y[..., :H, :W] for y in self.heads(maps, x.shape[2:]))
        return self.heads(maps, (H, W))

    def name_outputs(self, number: int) -> None:
        if self.heads is not None:
            self.names = list(self.heads.names)
        elif self.neck is not None:
            self.names = [f'feature{i}' for i in range(number)]
        else:
            indices = getattr(self.backbone, 'out_indices', range(number))
            self.names = [f'stride{4 * 2**i}' for i in indices]
