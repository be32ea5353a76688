"""Cross entropy with class weights and ignored pixels."""
from typing import Optional

from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class WeightedCrossEntropyLoss(CrossEntropyLoss):
    """mmseg's ``CrossEntropyLoss`` with class weights beside ignored pixels.

    mmseg 1.2.2 looks up the weight of every label, 255 too, and fails with an IndexError (open
    issues 3734 and 3831), or on a GPU with a device-side assertion. Label maps have 255 for void,
    and where a crop is larger than its image. Here, as in PyTorch, the loss is the weighted mean
    over the other pixels, or 0 if there are none.

    Args:
        class_weight: A weight for each class, or a file with them.
        **kwargs: Those of ``CrossEntropyLoss``.
    """

    def forward(self, cls_score: Tensor, label: Tensor, weight: Optional[Tensor] = None,
                avg_factor: Optional[float] = None, reduction_override: Optional[str] = None,
                ignore_index: int = 255, **kwargs) -> Tensor:
        """Compute the loss, a scalar unless ``reduction`` is ``'none'``.

        Args:
            cls_score: (N, classes, H, W).
            label: (N, H, W), class numbers.
            weight: (N, H, W), a factor for each pixel.
            avg_factor: Divisor of the sum. Default the sum of the pixels' class weights.
            reduction_override: In place of the loss's own ``reduction``.
            ignore_index: Label of pixels without a class.
            **kwargs: Those of ``CrossEntropyLoss.forward``.
        """
        if (self.class_weight is not None and avg_factor is None
                and (reduction_override or self.reduction) == 'mean'):
            weights = cls_score.new_tensor(self.class_weight)
            avg_factor = weights[label[label != ignore_index]].sum()
        return super().forward(cls_score, label, weight, avg_factor, reduction_override,
                               ignore_index=ignore_index, **kwargs)
