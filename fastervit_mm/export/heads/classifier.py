"""Classifiers of mmpretrain: a probability for each class."""
from typing import Tuple

from torch import Tensor, nn

from ..errors import ExportError


class Classifier(nn.Module):
    """Head of a classifier: maps -> scores (B, classes), the softmax of its logits.

    Args:
        model: A classifier of mmpretrain.

    Raises:
        ExportError: For a head that computes scores in another way.
    """
    task = 'classification'
    names = ['scores']

    def __init__(self, model: nn.Module):
        super().__init__()
        from mmpretrain.models.heads import ClsHead
        kind = type(model.head)
        if any(getattr(kind, name, None) is not getattr(ClsHead, name)
               for name in ('predict', '_get_predictions')):
            raise ExportError(f'{kind.__name__} cannot be exported; served are heads whose scores '
                              'are a softmax, as LinearClsHead. Export --part backbone')
        self.head = model.head

    def forward(self, maps: Tuple[Tensor, ...], size: Tuple[int, int]) -> Tuple[Tensor, ...]:
        return (self.head(maps).softmax(dim=1), )
