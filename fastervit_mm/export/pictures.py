"""Normalisation and padding of images within a file."""
from dataclasses import dataclass, field
from typing import List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone.windows import dense

INPUTS = ('uint8', 'float32', 'normalized')
SMALLEST = 32  # side of an image, in pixels


@dataclass
class Preprocessing:
    """Settings of a ``data_preprocessor`` of mmdet, mmseg or mmpretrain.

    Attributes:
        mean: Of each channel, in the network's order; empty where nothing is subtracted.
        std: As ``mean``.
        rgb: Whether the network takes RGB, not BGR.
        divisor: Height and width are padded to multiples of it, below and on the right.
        value: The normalised value of padding.
    """
    mean: List[float] = field(default_factory=list)
    std: List[float] = field(default_factory=list)
    rgb: bool = True
    divisor: int = 1
    value: float = 0.


def preprocessing(model: nn.Module) -> Preprocessing:
    """Preprocessing of a model's test images; none for a bare backbone."""
    given = getattr(model, 'data_preprocessor', None)
    # The names in mmdet, mmseg and mmpretrain.
    rgb = any(getattr(given, name, given is None)
              for name in ('_channel_conversion', 'channel_conversion', 'to_rgb'))
    mean, std = (getattr(given, name, None) for name in ('mean', 'std'))
    return Preprocessing(
        [] if mean is None else mean.flatten().tolist(),
        [] if std is None else std.flatten().tolist(), rgb,
        (getattr(given, 'test_cfg', None) or {}).get('size_divisor')
        or getattr(given, 'pad_size_divisor', 1),
        getattr(given, 'pad_value', getattr(given, 'pad_val', 0.)))


class Pictures(nn.Module):
    """Images as they are read, three channels as RGB -> normalised and padded.

    Args:
        settings: The model's preprocessing.
    """

    def __init__(self, settings: Preprocessing):
        super().__init__()
        self.rgb, self.divisor, self.value = settings.rgb, settings.divisor, settings.value
        self.register_buffer('mean', torch.tensor(settings.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(settings.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W), uint8 or float32 -> (B, C, at least H, at least W), float32."""
        x = images.float()  # first: TensorRT knows uint8 only as an input
        if not self.rgb and x.shape[1] == 3:
            x = x[:, [2, 1, 0]]
        if len(self.mean):
            x = (x - self.mean) / self.std
        divisor = self.divisor
        if divisor == 1:
            return x
        B, C, H, W = x.shape
        # Longer by a constant, then cut, as windows are: no branch on a size.
        x = F.pad(x, (0, divisor, 0, divisor), value=self.value)
        height, width = ((n + divisor - 1) // divisor * divisor for n in (H, W))
        return dense(x[:, :, :height, :width]).view(B, C, height, width)
