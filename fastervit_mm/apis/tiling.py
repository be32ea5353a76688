"""Detections of an image's tiles as one."""
from typing import Any, Sequence

import torch
from mmengine.structures import InstanceData

from ..export.runtime import Window, merge


def boxes_of(found: InstanceData) -> torch.Tensor:
    """Boxes of detections, (N, 4), or those of their masks where a network gives no boxes."""
    if 'masks' in found and not ('bboxes' in found and found.bboxes.any()):
        from mmdet.structures.mask import mask2bbox
        return mask2bbox(torch.as_tensor(found.masks))  # such as of SOLO
    return found.bboxes


def joined(samples: Sequence[Any], windows: Sequence[Window]) -> Any:
    """Join the detections of an image and of its tiles.

    Args:
        samples: Data sample of mmdet of each window; the first, of the whole image, is changed.
        windows: From :func:`~fastervit_mm.export.runtime.tiles`.

    Returns:
        The first sample, with all detections that :func:`~fastervit_mm.export.runtime.merge` keeps.
    """
    parts = [sample.pred_instances for sample in samples]
    boxes = [own + own.new_tensor(window[:2] * 2)
             for own, window in zip(map(boxes_of, parts), windows)]
    scores, labels = (torch.cat([part[name] for part in parts]) for name in ('scores', 'labels'))
    kept = merge([own.numpy() for own in boxes], scores.numpy(), labels.numpy(), windows)
    found = InstanceData(bboxes=torch.cat(boxes)[kept], scores=scores[kept], labels=labels[kept])
    if 'masks' in parts[0]:
        masks = [(mask, window) for part, window in zip(parts, windows) for mask in part.masks]
        found.masks = torch.zeros(len(kept), *samples[0].ori_shape[:2], dtype=torch.bool)
        for target, index in zip(found.masks, kept):
            mask, (x1, y1, x2, y2) = masks[index]
            target[y1:y2, x1:x2] = torch.as_tensor(mask)
    samples[0].pred_instances = found
    return samples[0]
