"""Differences between two sets of detections."""
from math import inf
from typing import Any, Dict, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

# Boxes further apart, as a share of the image's longer side, are different detections.
_SAME = 0.01


def differences(expected: Sequence[Any], got: Sequence[Any], tolerance: float = inf
                ) -> Dict[str, float]:
    """Pair detections of equal labels by their boxes, and compare them.

    Suppression chooses between boxes by comparisons, and DINO gives proposals the embedding of
    their rank. Where one is close, rounding decides it, so a few detections may have no partner.

    Args:
        expected: mmdet's data samples with ``pred_instances``.
        got: Data samples of the same images from another source.
        tolerance: Detections whose scores differ by more are not partners. Default any may be.

    Returns:
        ``boxes``, largest difference of a coordinate as a share of the image's longer side;
        ``scores``, largest difference; ``masks``, if there are, the share of their pixels that
        differ; ``unmatched``, the share of detections without a partner.
    """
    boxes, scores, unmatched, total, wrong, area = 0., 0., 0, 0, 0, 0
    for one, other in zip(expected, got):
        side = max(one.ori_shape)
        one, other = one.pred_instances, other.pred_instances
        apart = (one.bboxes[:, None] - other.bboxes).abs().amax(-1) / side
        apart = apart.where(one.labels[:, None] == other.labels, 1.).nan_to_num(1.)
        rows, columns = linear_sum_assignment(apart.numpy())
        gaps = (one.scores[rows] - other.scores[columns]).abs()
        near = ((apart[rows, columns] <= _SAME) & (gaps <= tolerance)).numpy()
        rows, columns = rows[near], columns[near]
        total += len(one) + len(other)
        unmatched += len(one) + len(other) - 2 * len(rows)
        if not len(rows):
            continue
        boxes = max(boxes, apart[rows, columns].max().item())
        scores = max(scores, gaps[near].max().item())
        if 'masks' in one:
            masks = [np.asarray(torch.as_tensor(i.masks)[index])
                     for i, index in ((one, rows), (other, columns))]
            wrong += (masks[0] != masks[1]).sum()
            area += (masks[0] | masks[1]).sum()
    found = dict(boxes=boxes, scores=scores)
    if expected and 'masks' in expected[0].pred_instances:
        found['masks'] = float(wrong / max(area, 1))
    return {**found, 'unmatched': unmatched / max(total, 1)}
