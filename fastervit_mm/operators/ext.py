"""mmcv's operators by torchvision and PyTorch, as ``mmcv._ext``.

The functions have mmcv's names and arguments. Most write into tensors that mmcv's autograd
functions pass. They compute what mmcv's documentation and the papers define, in float32 for 16-bit
maps.
"""
from typing import Any, Callable, List, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from fastervit_mm.operators.formulas import (  # absolute: this module is called mmcv._ext
    attention,
    carafe,
    deform_roi_pool,
    focal_loss,
    psamask,
    widen,
)

_OPS = torch.ops.torchvision


def __getattr__(name: str) -> Callable:
    """Function that raises an error, for an operator not served."""
    if name.startswith('__'):
        raise AttributeError(name)

    def absent(*args: Any, **kwargs: Any):
        raise NotImplementedError(
            f"mmcv's operator {name!r}: not in fastervit_mm; install a compiled mmcv "
            '(docs/install.md)')
    return absent


def get_compiler_version() -> str:
    """The operators' entry in mmcv's ``collect_env``."""
    return f'none; fastervit_mm serves the operators by torchvision {torchvision.__version__}'


get_compiling_cuda_version = get_compiler_version


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """NMS of (N, 4) boxes: indices kept, by falling score."""
    boxes = widen(boxes)
    if offset:  # width and height count the last pixel
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


@np.errstate(invalid='ignore')  # boxes without area overlap by 0 / 0, which suppresses nothing
def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
            min_score: float, method: int, offset: int) -> Tensor:
    """Soft-NMS (arXiv 1704.04503), written to ``dets``, (N, 5).

    ``method`` is 0 naive, 1 linear or 2 Gaussian.
    """
    corners, score = boxes.double().numpy(), scores.double().numpy().copy()
    area = np.prod(corners[:, 2:] - corners[:, :2] + offset, axis=1)
    alive, kept = np.ones(len(score), bool), []
    while alive.any():
        best = int(np.where(alive, score, -np.inf).argmax())
        dets[len(kept)] = torch.from_numpy(np.append(corners[best], score[best]))
        kept.append(best)
        alive[best] = False
        overlap = _intersection(corners, corners[best], offset)
        iou = overlap / (area + area[best] - overlap)
        if method == 2:
            score *= np.exp(-iou**2 / sigma)
        else:
            score *= np.where(iou >= iou_threshold, 0 if method == 0 else 1 - iou, 1)
        alive &= ~(score < min_score)
    return torch.tensor(kept, dtype=torch.long)


@np.errstate(invalid='ignore')
def nms_match(dets: Tensor, iou_threshold: float) -> List[List[int]]:
    """Groups of boxes: each one kept, with those it suppresses.

    ``dets`` is (N, 5), the last column scores.
    """
    corners = dets[:, :4].double().numpy()
    area = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    order, groups = dets[:, 4].sort(descending=True, stable=True)[1].numpy(), []
    while len(order):
        first, rest = order[0], order[1:]
        overlap = _intersection(corners[rest], corners[first])
        near = overlap / (area[rest] + area[first] - overlap) >= iou_threshold
        groups.append([int(first), *rest[near].tolist()])
        order = rest[~near]
    return groups


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor,
                      argmax_x: Tensor, aligned_height: int, aligned_width: int,
                      spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool
                      ) -> None:
    """RoIAlign (arXiv 1703.06870), average only: (N, C, H, W), (K, 5)."""
    _check_average(pool_mode)
    maps = widen(input)
    # As many samples as pixels: -1 in torchvision, 0 in mmcv.
    output.copy_(_OPS.roi_align(maps, rois.to(maps.dtype), spatial_scale, aligned_height,
                                aligned_width, sampling_ratio or -1, aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int, aligned: bool
                       ) -> None:
    """Gradient of :func:`roi_align_forward`."""
    grad = widen(grad_output)
    grad_input.copy_(_OPS._roi_align_backward(
        grad, rois.to(grad.dtype), spatial_scale, aligned_height, aligned_width,
        *grad_input.shape, sampling_ratio or -1, aligned))


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor,
                     pooled_height: int, pooled_width: int, spatial_scale: float) -> None:
    """RoIPool (arXiv 1504.08083) of (N, C, H, W) maps at (K, 5) boxes."""
    maps = widen(input)
    pooled, places = _OPS.roi_pool(maps, rois.to(maps.dtype), spatial_scale, pooled_height,
                                   pooled_width)
    output.copy_(pooled)
    argmax.copy_(places)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor,
                      pooled_height: int, pooled_width: int, spatial_scale: float) -> None:
    """Gradient of :func:`roi_pool_forward`."""
    grad = widen(grad_output)
    grad_input.copy_(_OPS._roi_pool_backward(
        grad, rois.to(grad.dtype), argmax, spatial_scale, pooled_height, pooled_width,
        *grad_input.shape))


def deform_roi_pool_forward(input: Tensor, rois: Tensor, offset: Tensor, output: Tensor,
                            **settings: Any) -> None:
    """Deformable RoI pooling (arXiv 1703.06211), offsets per bin."""
    output.copy_(deform_roi_pool(widen(input), widen(rois), widen(offset), **settings))


def deform_roi_pool_backward(grad_output: Tensor, input: Tensor, rois: Tensor, offset: Tensor,
                             grad_input: Tensor, grad_offset: Tensor, **settings: Any) -> None:
    """Gradient of :func:`deform_roi_pool_forward`."""
    _backward(lambda maps, moved: deform_roi_pool(maps, widen(rois), moved, **settings),
              (input, offset), grad_output, (grad_input, grad_offset))


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor,
                        columns: Tensor, ones: Tensor, **settings: int) -> None:
    """Deformable convolution (arXiv 1703.06211)."""
    output.copy_(_OPS.deform_conv2d(*map(widen, _unmodulated(input, weight, offset)),
                                    *_deform_settings(**settings), False))


def deform_conv_backward_input(input: Tensor, offset: Tensor, grad_output: Tensor,
                               grad_input: Tensor, grad_offset: Tensor, weight: Tensor,
                               columns: Tensor, **settings: int) -> None:
    """Gradients of maps and offsets; ``columns`` stores the weight's."""
    found = _deform_gradients(_unmodulated(input, weight, offset), grad_output, False, settings)
    grad_input.copy_(found[0])
    grad_offset.copy_(found[2])
    columns.resize_(weight.shape).copy_(found[1])


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, grad_output: Tensor,
                                    grad_weight: Tensor, columns: Tensor, ones: Tensor, scale: int,
                                    **settings: int) -> None:
    """Gradient of the weight, from ``columns`` if stored there."""
    if columns.shape != grad_weight.shape:
        columns = _deform_gradients(_unmodulated(input, grad_weight, offset), grad_output, False,
                                    settings)[1]
    grad_weight.copy_(columns)


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                  offset: Tensor, mask: Tensor, output: Tensor, columns: Tensor,
                                  with_bias: bool, **settings: int) -> None:
    """Modulated deformable convolution (arXiv 1811.11168)."""
    bias = bias if with_bias else weight.new_zeros(len(weight))
    output.copy_(_OPS.deform_conv2d(*map(widen, (input, weight, offset, mask, bias)),
                                    *_deform_settings(**settings), True))


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                   offset: Tensor, mask: Tensor, columns: Tensor,
                                   grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
                                   grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   with_bias: bool, **settings: int) -> None:
    """Gradients of :func:`modulated_deform_conv_forward`."""
    bias = bias if with_bias else weight.new_zeros(len(weight))
    found = _deform_gradients((input, weight, offset, mask, bias), grad_output, True, settings)
    for target, value in zip((grad_input, grad_weight, grad_offset, grad_mask), found):
        target.copy_(value)
    if with_bias:
        grad_bias.copy_(found[4])


def masked_im2col_forward(features: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor,
                          data_col: Tensor, kernel_h: int, kernel_w: int, pad_h: int, pad_w: int
                          ) -> None:
    """Windows at places: (1, C, H, W) -> (C * kernel_h * kernel_w, places)."""
    columns = F.unfold(features, (kernel_h, kernel_w), padding=(pad_h, pad_w))[0]
    across = features.shape[3] + 2 * pad_w - kernel_w + 1
    data_col.copy_(columns[:, mask_h_idx * across + mask_w_idx])


def masked_col2im_forward(columns: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, output: Tensor,
                          height: int, width: int, channels: int) -> None:
    """Write (C, places) into a (1, C, H, W) map."""
    output[0, :, mask_h_idx, mask_w_idx] = columns.to(output.dtype)


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    """Focal loss (arXiv 1708.02002, eq. 5) of (N, C) logits.

    Target C is the background.
    """
    output.copy_(focal_loss(widen(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    """Derivative of :func:`sigmoid_focal_loss_forward`, element by element."""
    _backward(lambda logits: focal_loss(logits, target, weight, gamma, alpha), (input, ),
              torch.ones_like(input), (grad_input, ))


def carafe_forward(features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor,
                   rmasks: Tensor, output: Tensor, **settings: int) -> None:
    """CARAFE (arXiv 1905.02188): upsampling by a kernel for each place."""
    rfeatures.copy_(features)  # what mmcv keeps for the backward pass
    output.copy_(carafe(widen(features), widen(masks), **settings))


def carafe_backward(grad_output: Tensor, rfeatures: Tensor, masks: Tensor, rgrad_output: Tensor,
                    rgrad_input_hs: Tensor, rgrad_input: Tensor, rgrad_masks: Tensor,
                    grad_input: Tensor, grad_masks: Tensor, **settings: int) -> None:
    """Gradients of :func:`carafe_forward`."""
    _backward(lambda maps, kernels: carafe(maps, kernels, **settings), (rfeatures, masks),
              grad_output, (grad_input, grad_masks))


def psamask_forward(input: Tensor, output: Tensor, **settings: int) -> None:
    """PSANet's masks, (N, H_mask * W_mask, H, W) -> (N, H * W, H, W)."""
    output.copy_(psamask(input, **settings))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, **settings: int) -> None:
    """Gradient of :func:`psamask_forward`."""
    _backward(lambda masks: psamask(masks, **settings), (grad_input, ), grad_output,
              (grad_input, ))


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor,
                           value_level_start_index: Tensor, sampling_locations: Tensor,
                           attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Multi-scale deformable attention (arXiv 2010.04159, eq. 3), mmcv's formula."""
    return attention(value_spatial_shapes, *map(widen, (
        value, sampling_locations, attention_weights))).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor,
                            value_level_start_index: Tensor, sampling_locations: Tensor,
                            attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor,
                            grad_sampling_loc: Tensor, grad_attn_weight: Tensor, im2col_step: int
                            ) -> None:
    """Gradients of :func:`ms_deform_attn_forward`."""
    _backward(lambda *inputs: attention(value_spatial_shapes, *inputs),
              (value, sampling_locations, attention_weights), grad_output,
              (grad_value, grad_sampling_loc, grad_attn_weight))


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Mean of each channel of (N, C, pixels)."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Mean square of each channel's distance from ``mean``."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


def sync_bn_forward_output(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor,
                           running_mean: Tensor, running_var: Tensor, norm: Tensor, std: Tensor,
                           output: Tensor, eps: float, momentum: Tensor, group_size: int) -> None:
    """Normalise (N, C, pixels), and move the running statistics."""
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = input.shape[0] * input.shape[2] * group_size
    running_mean.lerp_(mean.to(running_mean.dtype), float(momentum))
    running_var.lerp_((var * count / max(count - 1, 1)).to(running_var.dtype), float(momentum))


def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor,
                           grad_bias: Tensor) -> None:
    """Gradients of weight and bias in this process."""
    grad_weight.copy_((grad_output * norm).sum((0, 2)))
    grad_bias.copy_(grad_output.float().sum((0, 2)))


def sync_bn_backward_data(grad_output: Tensor, weight: Tensor, grad_weight: Tensor,
                          grad_bias: Tensor, norm: Tensor, std: Tensor, grad_input: Tensor) -> None:
    """Gradient of the map, from all processes' parameter gradients."""
    count = norm.shape[0] * norm.shape[2]
    mean = (grad_weight[:, None] * norm + grad_bias[:, None]) / count
    grad_input.copy_((weight / std)[:, None] * (grad_output - mean))


def _backward(formula: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor,
              targets: Sequence[Tensor]) -> None:
    """Write a formula's input gradients into mmcv's tensors."""
    with torch.enable_grad():
        inputs = [widen(tensor).detach().requires_grad_() for tensor in inputs]
        output = formula(*inputs)
    if not output.requires_grad:  # nothing was sampled
        return
    found = torch.autograd.grad(output, inputs, grad_output.to(output.dtype), allow_unused=True)
    for target, gradient in zip(targets, found):
        if gradient is not None:
            target.copy_(gradient)


def _check_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError("RoIAlign with pool_mode='max': needs the compiled mmcv "
                                  "(docs/install.md); pool_mode='avg' does not")


def _intersection(boxes: np.ndarray, box: np.ndarray, offset: int = 0) -> np.ndarray:
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    return np.prod(np.clip(high - low + offset, 0, None), axis=1)


def _unmodulated(input: Tensor, weight: Tensor, offset: Tensor) -> Tuple[Tensor, ...]:
    """Operands of torchvision's convolution; masks 1, bias 0."""
    mask = offset.new_ones((len(offset), offset.shape[1] // 2, *offset.shape[2:]))
    return input, weight, offset, mask, weight.new_zeros(len(weight))


def _deform_settings(group: int, deformable_group: int, im2col_step: int = 0, **sides: int
                     ) -> Tuple[int, ...]:
    """Settings in torchvision's order, from either of mmcv's namings."""
    names = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW') if 'dH' in sides else (
        'stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w')
    return (*(sides[name] for name in names), group, deformable_group)


def _deform_gradients(operands: Sequence[Tensor], grad_output: Tensor, modulated: bool,
                      settings: dict) -> Tuple[Tensor, ...]:
    """Gradients of maps, weight, offsets, masks and bias."""
    return _OPS._deform_conv2d_backward(widen(grad_output), *map(widen, operands),
                                        *_deform_settings(**settings), modulated)
