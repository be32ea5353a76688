"""Normalisation of images of any number of channels for mmdet."""
from typing import Sequence

import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS


@MODELS.register_module()
class ChannelsDetDataPreprocessor(DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor`` with a mean for each of any number of channels.

    mmengine's takes means of 1 or 3 channels.

    Args:
        mean, std: Of each channel, in the images' order.
        **settings: Others of ``DetDataPreprocessor``.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **settings):
        super().__init__(mean=mean[:1], std=std[:1], **settings)
        self.mean, self.std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
                               for values in (mean, std))
