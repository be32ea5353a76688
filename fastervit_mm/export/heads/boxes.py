"""Boxes in graphs of constant size: decoding, suppression, choice.

A box that is left out keeps its row, with a score of 0 or less. Shapes: B images, N boxes, C
classes.
"""
from typing import Any, Callable, Dict, Mapping, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...backbone.windows import dense
from ..errors import ExportError

NMS = 'fastervit_mm::suppress'
OUTPUTS = ('boxes', 'scores', 'labels', 'count')


def _suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float,
              limit: int) -> Tensor:
    """Set scores of boxes removed by non-maximum suppression to 0.

    Each class of each image is suppressed on its own: by torchvision in PyTorch and in ``.pt2``
    files, by ONNX's NonMaxSuppression in ``.onnx`` files.

    Args:
        boxes: (B, N, 4) as x1, y1, x2, y2.
        scores: (B, C, N).
        iou_threshold: Boxes that overlap a better one by more are removed.
        score_threshold: Boxes that score no more are removed.
        limit: Largest number of boxes kept for a class of an image.

    Returns:
        (B, C, N).
    """
    from torchvision.ops import nms
    kept = scores.new_zeros(scores.shape)  # contiguous, whatever the strides of scores
    for i, classes in enumerate(scores):
        for c, values in enumerate(classes):
            over = (values > score_threshold).nonzero()[:, 0]
            best = over[nms(boxes[i, over], values[over], iou_threshold)[:limit]]
            kept[i, c, best] = values[best]
    return kept


if hasattr(torch.library, 'custom_op'):  # torch 2.4; export itself needs 2.8
    suppress = torch.library.custom_op(NMS, _suppress, mutates_args=())
    suppress.register_fake(lambda boxes, scores, *settings: scores.new_empty(scores.shape))


def translations() -> Dict[Callable, Callable]:
    """ONNX translation of :func:`suppress`, for ``torch.onnx.export``."""
    from onnxscript import opset18 as op

    def suppress_onnx(boxes, scores, iou_threshold: float, score_threshold: float, limit: int):
        chosen = op.NonMaxSuppression(
            boxes, scores, op.Constant(value_ints=[limit]),
            op.Constant(value_floats=[iou_threshold]), op.Constant(value_floats=[score_threshold]))
        zeros = op.ConstantOfShape(op.Shape(scores))
        return op.ScatterND(zeros, chosen, op.GatherND(scores, chosen))

    return {torch.ops.fastervit_mm.suppress.default: suppress_onnx}


def iou_threshold(nms: Mapping) -> float:
    """The IoU threshold in an ``nms`` of mmdet's test settings.

    Raises:
        ExportError: For another kind of suppression than the plain one of each class.
    """
    settings = dict(nms)
    threshold = settings.pop('iou_threshold', None)
    if threshold is None or settings.pop('type', 'nms') != 'nms' or any(
            value for key, value in settings.items() if key != 'split_thr'):
        raise ExportError(f"nms={dict(nms)}: only dict(type='nms', iou_threshold=...) can be "
                          "exported; change test_cfg, or export the 'features'")
    return float(threshold)


def positive(settings: Mapping, name: str) -> int:
    """Read a number of boxes from mmdet's test settings.

    Raises:
        ExportError: For settings without it, or with -1, which stands for all boxes.
    """
    number = int(settings.get(name, -1))
    if number < 1:
        raise ExportError(f'test_cfg: {name}={number}: a file gives a constant number of boxes; '
                          f'set a positive {name}')
    return number


def suppress_labelled(boxes: Tensor, scores: Tensor, labels: Tensor, classes: int,
                      iou_threshold: float, limit: int) -> Tensor:
    """Suppress boxes that have one label each.

    Args:
        boxes: (B, N, 4).
        scores: (B, N), 0 or less for boxes that are absent.
        labels: (B, N), int64.
        classes: Number of classes.
        iou_threshold: As for :func:`suppress`.
        limit: As for :func:`suppress`.

    Returns:
        Scores (B, N), 0 for boxes removed.
    """
    own = labels[:, None] == torch.arange(classes, device=labels.device)[:, None]  # (B, C, N)
    scores = torch.where(own, scores[:, None], torch.zeros_like(scores[:, None]))
    return suppress(boxes, scores, iou_threshold, 0., limit).amax(1)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of each image: (B, N, ...), (B, K) -> (B, K, ...)."""
    rows = index.view(*index.shape, *[1] * (values.ndim - 2))
    return values.gather(1, rows.expand(-1, -1, *values.shape[2:]))


def top(scores: Tensor, number: int) -> Tuple[Tensor, Tensor]:
    """Highest scores and their rows, padded to a constant number.

    Args:
        scores: (B, N).
        number: K, a constant.

    Returns:
        Scores (B, K), falling; rows (B, K), for :func:`take`. Beyond N boxes scores are -1, and
        rows the last.
    """
    best, index = F.pad(scores, (0, number), value=-1.).topk(number, dim=1)
    return best, index.clamp(max=scores.shape[1] - 1)


def rows(features: Tensor, width: int) -> Tensor:
    """A head's map as a row for each prior: (B, A width, h, w) -> (B, h w A, width)."""
    return dense(features.permute(0, 2, 3, 1)).view(features.shape[0], -1, width)


def priors(generator: Any, level: int, features: Tensor) -> Tensor:
    """Anchors or points of a level, and of one more row of cells.

    Without that row, the graph would ask whether a map has one cell. Indices of :func:`top` for
    the map's scores never lie in it.

    Args:
        generator: mmdet's ``prior_generator``.
        level: Index of the level.
        features: The level's map, (B, D, h, w).

    Returns:
        ((h + 1) w A, 4) or ((h + 1) w, 2).
    """
    height, width = features.shape[2:]
    return generator.single_level_grid_priors((height + 1, width), level, device=features.device)


def decode(coder: nn.Module, priors: Tensor, deltas: Tensor, size: Tuple[int, int]) -> Tensor:
    """Boxes by a coder of mmdet, clipped to the image.

    Args:
        coder: The head's ``bbox_coder``.
        priors: (..., 4) anchors or boxes, or (..., 2) points.
        deltas: (..., 4), of as many rows.
        size: Height and width of the image without padding.

    Returns:
        (..., 4) as x1, y1, x2, y2.
    """
    # Clipped here: the coder's own clipping would be bound to the size of the example.
    boxes = coder.decode(priors.reshape(-1, priors.shape[-1]), deltas.reshape(-1, 4))
    boxes = boxes.view(deltas.shape)
    return clip(boxes, size) if coder.clip_border else boxes


def clip(boxes: Tensor, size: Tuple[int, int]) -> Tensor:
    """Boxes (..., 4) cut at the edges of an image of (height, width)."""
    height, width = size
    limit = torch.stack([boxes.new_ones(()) * n for n in (width, height, width, height)])
    return torch.minimum(boxes.clamp(min=0), limit)


def detections(boxes: Tensor, scores: Tensor, labels: Tensor, number: int
               ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """Best boxes of each image, the outputs of a file.

    Args:
        boxes: (B, N, 4).
        scores: (B, N), 0 or less for boxes that are absent.
        labels: (B, N), int64.
        number: M, the most boxes of an image.

    Returns:
        Boxes (B, M, 4) and scores (B, M), falling, in float32; labels (B, M); the number of
        detections (B, ), int64. Rows beyond it are zeros.
    """
    scores, index = top(scores.float(), number)
    there = scores > 0
    boxes = take(boxes.float(), index) * there[..., None]
    labels = take(labels, index) * there
    return boxes, scores.clamp(min=0), labels, there.sum(1)
