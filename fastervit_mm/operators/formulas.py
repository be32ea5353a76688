"""Formulas of operators that torchvision lacks, differentiable by PyTorch."""
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """Cast a 16-bit tensor to float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float
               ) -> Tensor:
    """Focal loss, (N, C), of (N, C) logits and (N) classes.

    Class C is the background.
    """
    hit = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    probability = logits.sigmoid()
    loss = torch.where(hit, -alpha * (1 - probability)**gamma * F.logsigmoid(logits),
                       -(1 - alpha) * probability**gamma * F.logsigmoid(-logits))
    return loss * weight[target][:, None] if len(weight) else loss


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int,
           scale_factor: int) -> Tensor:
    """CARAFE: upsample (N, C, H, W) by a kernel for each place."""
    n, channels, height, width = features.shape
    windows = F.unfold(features, kernel_size, padding=kernel_size // 2)
    windows = F.interpolate(windows.unflatten(2, (height, width)), scale_factor=scale_factor)
    up = windows.shape[2:]
    windows = windows.view(n, group_size, channels // group_size, kernel_size**2, *up)
    masks = masks.reshape(n, group_size, 1, kernel_size**2, *up)
    return (windows * masks).sum(3).view(n, channels, *up)


def psamask(masks: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int, h_mask: int,
            w_mask: int, half_h_mask: int, half_w_mask: int) -> Tensor:
    """Each place's mask over the whole map, (N, H * W, H, W)."""
    def places(side: int, mask: int, half: int) -> Tuple[Tensor, Tensor]:
        here = torch.arange(side, device=masks.device)
        place = here[:, None] - here + half  # (other, here)
        return place.clamp(0, mask - 1), (place >= 0) & (place < mask)

    (row, row_in), (column, column_in) = (places(h_feature, h_mask, half_h_mask),
                                          places(w_feature, w_mask, half_w_mask))
    shape = (h_feature * w_feature, h_feature, w_feature)
    index = (row[:, None, :, None] * w_mask + column[None, :, None]).reshape(shape)
    inside = (row_in[:, None, :, None] & column_in[None, :, None]).reshape(shape)
    collected = masks.gather(1, index.expand(num_, *shape)) * inside
    if psa_type == 0:
        return collected
    return collected.flatten(2).transpose(1, 2).reshape(num_, *shape)  # distributed


def attention(shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Multi-scale deformable attention by mmcv's own formula."""
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    return multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def deform_roi_pool(maps: Tensor, rois: Tensor, offset: Tensor, pooled_height: int,
                    pooled_width: int, spatial_scale: float, sampling_ratio: int, gamma: float
                    ) -> Tensor:
    """Deformable RoI pooling, sampled like RoIAlign.

    Boxes with equal numbers of samples are computed together.
    """
    number, (height, width) = len(rois), maps.shape[2:]
    pooled = (pooled_height, pooled_width)
    start = rois[:, [2, 1]] * spatial_scale - 0.5  # y, x
    size = rois[:, [4, 3]] * spatial_scale - 0.5 - start
    corner = start[:, :, None, None].expand(number, 2, *pooled)
    if offset.numel():  # x, y
        corner = corner + gamma * size[:, :, None, None] * offset.view(number, 2, *pooled).flip(1)
    step = size / size.new_tensor(pooled)
    bins = torch.stack(torch.meshgrid(*(torch.arange(n, device=maps.device) for n in pooled),
                                      indexing='ij'))
    corner = corner + bins * step[:, :, None, None]
    output = maps.new_zeros((number, maps.shape[1], *pooled))
    counts = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil()
    for count in counts.clamp(min=0).unique(dim=0).tolist():
        down, across = map(int, count)
        chosen = (counts == counts.new_tensor(count)).all(1).nonzero()[:, 0]
        if not down * across:
            continue
        y, x = ((torch.arange(n, device=maps.device) + 0.5) / n for n in (down, across))
        y = corner[chosen, 0, :, :, None, None] + y[:, None] * step[chosen, 0].view(-1, 1, 1, 1, 1)
        x = corner[chosen, 1, :, :, None, None] + x * step[chosen, 1].view(-1, 1, 1, 1, 1)
        y, x = (v.expand(-1, *pooled, down, across).flatten(1) for v in (y, x))
        inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
        found = _bilinear(maps, rois[chosen, 0].long(), y.clamp(0), x.clamp(0)) * inside[:, None]
        output = output.index_add(0, chosen, found.unflatten(2, (*pooled, -1)).mean(-1))
    return output


def _bilinear(maps: Tensor, batch: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sample (N, C, H, W) at (K, points) -> (K, C, points).

    Edges extend beyond the map.
    """
    height, width = maps.shape[2:]
    y, x = y.clamp(max=height - 1), x.clamp(max=width - 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    dy, dx = (y - top)[..., None], (x - left)[..., None]
    last = maps.permute(0, 2, 3, 1)
    which = batch[:, None]
    found = ((1 - dy) * ((1 - dx) * last[which, top, left] + dx * last[which, top, right])
             + dy * ((1 - dx) * last[which, bottom, left] + dx * last[which, bottom, right]))
    return found.transpose(1, 2)
