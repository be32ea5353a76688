"""mmcv's operators by torchvision: each equals its formula in float64, with its gradients."""
import importlib
import json
import pkgutil

import mmcv.ops
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from mmcv.ops.sync_bn import SyncBatchNormFunction
from torch.autograd import gradcheck

from fastervit_mm.operators import ext
from tests.conftest import REPO


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    """Make mmcv's functions call ours, even if a compiled mmcv is installed."""
    torch.set_default_dtype(torch.float64)
    for module in pkgutil.iter_modules(mmcv.ops.__path__):
        module = importlib.import_module(f'mmcv.ops.{module.name}')
        if hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', ext)
    yield
    torch.set_default_dtype(torch.float32)


def boxes(number, side=40.):
    corners = torch.rand(number, 4) * side / 2
    corners[:, 2:] += corners[:, :2] + 1
    return corners


def rois(number, images=2, side=40.):
    return torch.cat([torch.randint(0, images, (number, 1)).double(), boxes(number, side)], 1)


def iou(one, other, offset=0):
    low, high = torch.max(one[:2], other[:2]), torch.min(one[2:], other[2:])
    both = (high - low + offset).clamp(0).prod()
    return both / ((one[2:] - one[:2] + offset).prod() + (other[2:] - other[:2] + offset).prod()
                   - both)


def bilinear(plane, y, x):
    """Value of an (H, W) map between its pixels; 0 from one pixel outside."""
    height, width = plane.shape
    top, left = int(np.floor(float(y))), int(np.floor(float(x)))
    value = 0.
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < height and 0 <= column < width:
            value = value + plane[row, column] * (1 - (y - row).abs()) * (1 - (x - column).abs())
    return value


def clamped(plane, y, x):
    """As RoIAlign reads: the edge value up to one pixel outside, then 0."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return plane.sum() * 0
    return bilinear(plane, y.clamp(0, height - 1), x.clamp(0, width - 1))


@pytest.mark.parametrize('offset', (0, 1))
@pytest.mark.parametrize('number', (0, 1, 57))
def test_nms_keeps_what_greedy_suppression_keeps(number, offset):
    corners, scores = boxes(number), torch.rand(number)
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(iou(corners[i], corners[j], offset) <= 0.4 for j in kept):
            kept.append(i)
    dets, indices = mmcv.ops.nms(corners, scores, 0.4, offset=offset)
    assert indices.tolist() == kept
    torch.testing.assert_close(dets, torch.cat([corners, scores[:, None]], 1)[kept])


@pytest.mark.parametrize('method', ('naive', 'linear', 'gaussian'))
def test_soft_nms_lowers_scores_one_box_after_the_other(method):
    corners, scores = boxes(30), torch.rand(30)
    left, expected = scores.clone(), []
    while (left >= 0.05).any():
        best = int(left.argmax())
        expected.append((best, float(left[best])))
        for i in range(30):
            overlap = iou(corners[best], corners[i])
            left[i] *= {'naive': float(overlap < 0.3), 'gaussian': torch.exp(-overlap**2 / 0.5),
                        'linear': 1 if overlap < 0.3 else 1 - overlap}[method]
        left[best] = -1
    dets, indices = mmcv.ops.soft_nms(corners, scores, 0.3, 0.5, 0.05, method)
    assert indices.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([s for _, s in expected]))


def test_nms_match_groups_what_a_box_suppresses():
    corners, scores = boxes(40), torch.rand(40)
    left, expected = scores.argsort(descending=True).tolist(), []
    while left:
        first = left[0]
        group = [i for i in left if i == first or iou(corners[first], corners[i]) >= 0.3]
        expected.append(group)
        left = [i for i in left if i not in group]
    found = mmcv.ops.nms_match(torch.cat([corners, scores[:, None]], 1), 0.3)
    assert [group.tolist() for group in found] == expected


@pytest.mark.parametrize('aligned', (True, False))
@pytest.mark.parametrize('samples', (0, 2))
def test_roi_align(samples, aligned):
    maps, found = torch.rand(2, 2, 9, 11, requires_grad=True), rois(3)

    def align(maps):
        return mmcv.ops.roi_align(maps, found, (3, 2), 0.25, samples, 'avg', aligned)

    output = align(maps)
    for k, (image, left, top, right, bottom) in enumerate(found.tolist()):
        start = [v * 0.25 - 0.5 * aligned for v in (top, left)]
        size = [(b - a) * 0.25 for a, b in ((top, bottom), (left, right))]
        size = size if aligned else [max(s, 1) for s in size]
        step = [s / n for s, n in zip(size, (3, 2))]
        count = [samples or int(np.ceil(s)) for s in step]
        for i in range(3):
            for j in range(2):
                places = [(start[0] + (i + (a + 0.5) / count[0]) * step[0],
                           start[1] + (j + (b + 0.5) / count[1]) * step[1])
                          for a in range(count[0]) for b in range(count[1])]
                for channel in range(2):
                    expected = sum(clamped(maps[int(image), channel], torch.tensor(y),
                                           torch.tensor(x)) for y, x in places) / len(places)
                    torch.testing.assert_close(output[k, channel, i, j], expected)
    assert gradcheck(align, maps)


def test_roi_align_without_boxes_and_with_channels_last_maps():
    maps = torch.rand(2, 8, 9, 11)
    assert mmcv.ops.roi_align(maps, rois(0), 7, 0.25, 0, 'avg', True).shape == (0, 8, 7, 7)
    found = rois(5)
    torch.testing.assert_close(*(
        mmcv.ops.roi_align(maps.contiguous(memory_format=form), found, 7, 0.25, 0, 'avg', True)
        for form in (torch.contiguous_format, torch.channels_last)))


def test_roi_pool_is_the_largest_value_of_each_bin():
    maps, found = torch.rand(2, 2, 9, 11, requires_grad=True), rois(3, side=30.)

    def pool(maps):
        return mmcv.ops.roi_pool(maps, found, (2, 3), 0.25)

    output = pool(maps)
    for k, (image, *box) in enumerate(found.tolist()):
        left, top, right, bottom = (int(np.floor(v * 0.25 + 0.5)) for v in box)
        step = max(bottom - top + 1, 1) / 2, max(right - left + 1, 1) / 3
        for i in range(2):
            for j in range(3):
                rows, columns = (slice(*(min(max(first + end, 0), side) for end in (
                    int(np.floor(n * size)), int(np.ceil((n + 1) * size)))))
                    for first, n, size, side in ((top, i, step[0], 9), (left, j, step[1], 11)))
                area = maps[int(image), :, rows, columns].flatten(1)
                expected = area.amax(1) if area.numel() else torch.zeros(2)
                torch.testing.assert_close(output[k, :, i, j], expected)
    assert gradcheck(pool, maps)


@pytest.mark.parametrize('samples', (0, 2))
def test_deformable_roi_pooling(samples):
    maps, found = torch.rand(2, 2, 9, 11, requires_grad=True), rois(2)
    moves = torch.randn(2, 2, 2, 3, requires_grad=True)

    def pool(maps, moves):
        return mmcv.ops.deform_roi_pool(maps, found, moves, (2, 3), 0.25, samples, 0.1)

    output = pool(maps, moves)
    for k, (image, left, top, right, bottom) in enumerate(found.tolist()):
        size = [(b - a) * 0.25 for a, b in ((top, bottom), (left, right))]
        step = [s / n for s, n in zip(size, (2, 3))]
        count = [samples or int(np.ceil(s)) for s in step]
        for i in range(2):
            for j in range(3):
                y = top * 0.25 - 0.5 + i * step[0] + 0.1 * size[0] * moves[k, 1, i, j]
                x = left * 0.25 - 0.5 + j * step[1] + 0.1 * size[1] * moves[k, 0, i, j]
                values = [clamped(maps[int(image), 0], y + (a + 0.5) / count[0] * step[0],
                                  x + (b + 0.5) / count[1] * step[1])
                          for a in range(count[0]) for b in range(count[1])]
                torch.testing.assert_close(output[k, 0, i, j], sum(values) / len(values))
    assert gradcheck(pool, (maps, moves))


@pytest.mark.parametrize('modulated', (False, True))
def test_deformable_convolution(modulated):
    maps = torch.rand(2, 4, 6, 7, requires_grad=True)
    weight = torch.randn(6, 2, 3, 3, requires_grad=True)
    moves = torch.randn(2, 2 * 2 * 9, 3, 4, requires_grad=True)  # two groups of offsets
    masks = torch.rand(2, 2 * 9, 3, 4, requires_grad=True)
    bias = torch.randn(6, requires_grad=True)
    settings = dict(stride=2, padding=1, dilation=1, groups=2, deform_groups=2)

    def convolve(maps, moves, weight, masks, bias):
        if modulated:
            return mmcv.ops.modulated_deform_conv2d(maps, moves, masks, weight, bias,
                                                    *settings.values())
        return mmcv.ops.deform_conv2d(maps, moves, weight, *settings.values())

    columns = maps.new_zeros(2, 4, 9, 3, 4)
    for n, c, k, y, x in np.ndindex(*columns.shape):
        place = c // 2 * 9 + k
        dy, dx = moves[n, 2 * place, y, x], moves[n, 2 * place + 1, y, x]
        value = bilinear(maps[n, c], 2 * y - 1 + k // 3 + dy, 2 * x - 1 + k % 3 + dx)
        columns[n, c, k, y, x] = value * (masks[n, place, y, x] if modulated else 1)
    expected = torch.einsum('ngckyx,gock->ngoyx', columns.view(2, 2, 2, 9, 3, 4),
                            weight.view(2, 3, 2, 9)).reshape(2, 6, 3, 4)
    expected = expected + bias.view(-1, 1, 1) if modulated else expected
    operands = maps, moves, weight, masks, bias
    torch.testing.assert_close(convolve(*operands), expected)
    used = operands if modulated else operands[:3]
    assert gradcheck(lambda *some: convolve(*some, *operands[len(some):]), used)


def test_weight_of_a_deformable_convolution_alone_has_its_gradient():
    maps, moves = torch.rand(1, 2, 5, 5), torch.randn(1, 18, 5, 5)
    weight = torch.randn(3, 2, 3, 3, requires_grad=True)
    assert gradcheck(lambda weight: mmcv.ops.deform_conv2d(maps, moves, weight, 1, 1), weight)


def test_masked_convolution_equals_a_convolution_within_the_mask():
    maps, weight, bias = torch.rand(1, 3, 7, 9), torch.randn(4, 3, 3, 3), torch.randn(4)
    mask = torch.rand(1, 7, 9) > 0.5
    torch.testing.assert_close(mmcv.ops.masked_conv2d(maps, mask, weight, bias, 1),
                               F.conv2d(maps, weight, bias, padding=1) * mask)


def test_focal_loss():
    logits = torch.randn(7, 3, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 3, 0, 1])  # 3 is the background
    weight = torch.rand(4)
    truth = F.one_hot(target, 4)[:, :3].double()
    right = torch.where(truth > 0, logits.sigmoid(), 1 - logits.sigmoid())
    expected = F.binary_cross_entropy_with_logits(logits, truth, reduction='none') * torch.where(
        truth > 0, 0.25, 0.75) * (1 - right)**2
    torch.testing.assert_close(
        mmcv.ops.sigmoid_focal_loss(logits, target, 2., 0.25, None, 'none'), expected)
    assert gradcheck(lambda logits: mmcv.ops.sigmoid_focal_loss(
        logits, target, 2., 0.25, None, 'mean'), logits)
    output = torch.zeros(7, 3)
    ext.sigmoid_focal_loss_forward(logits, target, weight, output, gamma=2., alpha=0.25)
    torch.testing.assert_close(output, (expected * weight[target][:, None]).detach())


def test_carafe_reassembles_each_place_by_its_own_kernel():
    maps = torch.rand(1, 4, 3, 4, requires_grad=True)
    kernels = torch.rand(1, 2 * 9, 6, 8, requires_grad=True)

    def carafe(maps, kernels):
        return mmcv.ops.carafe(maps, kernels, 3, 2, 2)

    padded, expected = F.pad(maps, (1, 1, 1, 1)), torch.zeros(1, 4, 6, 8)
    for c, y, x in np.ndindex(4, 6, 8):
        kernel = kernels[0, c // 2 * 9:c // 2 * 9 + 9, y, x].view(3, 3)
        expected[0, c, y, x] = (padded[0, c, y // 2:y // 2 + 3, x // 2:x // 2 + 3] * kernel).sum()
    torch.testing.assert_close(carafe(maps, kernels), expected)
    assert gradcheck(carafe, (maps, kernels))


@pytest.mark.parametrize('kind', ('collect', 'distribute'))
def test_psamask_places_each_mask_around_its_pixel(kind):
    module = mmcv.ops.PSAMask(kind, (5, 3))
    masks = torch.rand(2, 15, 4, 6, requires_grad=True)
    expected = torch.zeros(2, 24, 4, 6)
    for y, x, row, column in np.ndindex(4, 6, 5, 3):
        other_y, other_x = y + row - 2, x + column - 1
        if 0 <= other_y < 4 and 0 <= other_x < 6:
            one, other = (other_y * 6 + other_x, (y, x)), (y * 6 + x, (other_y, other_x))
            channel, place = one if kind == 'collect' else other
            expected[:, channel, place[0], place[1]] = masks[:, row * 3 + column, y, x]
    torch.testing.assert_close(module(masks), expected)
    assert gradcheck(module, masks)


def test_deformable_attention():
    shapes = torch.tensor([(4, 5), (2, 3)])
    value = torch.rand(1, 26, 2, 3, requires_grad=True)
    places = (torch.rand(1, 4, 2, 2, 2, 2) * 1.2 - 0.1).requires_grad_()
    weights = torch.rand(1, 4, 2, 2, 2, requires_grad=True)
    starts = torch.tensor([0, 20])

    def attend(value, places, weights):
        return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weights, 64)

    output = attend(value, places, weights).view(1, 4, 2, 3)
    for query, head, channel in np.ndindex(4, 2, 3):
        expected = 0.
        for level, (height, width) in enumerate(shapes.tolist()):
            plane = value[0, starts[level]:, head, channel][:height * width].view(height, width)
            for point in range(2):
                x, y = places[0, query, head, level, point]
                expected = expected + weights[0, query, head, level, point] * bilinear(
                    plane, y * height - 0.5, x * width - 0.5)
        torch.testing.assert_close(output[0, query, head, channel], expected)
    assert gradcheck(attend, (value, places, weights))


def test_synchronised_batch_norm_is_batch_norm_in_one_process():
    torch.set_default_dtype(torch.float32)
    maps, weight, bias, seen = torch.randn(4, 3, 5, 6), torch.randn(3), torch.randn(3), []
    for synchronised in (True, False):
        operands = [tensor.clone().requires_grad_() for tensor in (maps, weight, bias)]
        mean, variance = torch.zeros(3), torch.ones(3)
        output = SyncBatchNormFunction.apply(
            operands[0], mean, variance, *operands[1:], 0.1, 1e-5, None, 1, 'default') if (
            synchronised) else F.batch_norm(operands[0], mean, variance, *operands[1:], True)
        (output * maps.roll(1, 2)).sum().backward()
        seen.append((output, mean, variance, *(operand.grad for operand in operands)))
    for one, other in zip(*seen):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def operands_in_bfloat16(tensor):
    """Operands rounded so that 16 bits hold them exactly."""
    return tensor.bfloat16().float()


def called(name, maps, number=5):
    """An operator of mmcv, called on (N, 4, 9, 11) maps and, if it has some, a number of boxes."""
    torch.manual_seed(1)
    images = len(maps)
    found, moved = rois(number).float(), torch.randn(number, 2, 3, 2) * 0.1
    offsets, masks = torch.randn(images, 18, 9, 11), torch.rand(images, 9, 9, 11)
    kernels, weight = torch.rand(images, 9, 18, 22), torch.randn(6, 4, 3, 3)
    moved, offsets, masks, kernels, weight = (
        operands_in_bfloat16(tensor).to(maps.dtype)
        for tensor in (moved, offsets, masks, kernels, weight))
    if name == 'ms_deform_attn':
        places, weights = torch.rand(images, 7, 1, 1, 3, 2), torch.rand(images, 7, 1, 1, 3)
        return MultiScaleDeformableAttnFunction.apply(
            maps.flatten(2).transpose(1, 2)[:, :, None], torch.tensor([(9, 11)]),
            torch.tensor([0]), *map(operands_in_bfloat16, (places, weights)), 64)
    if name == 'sigmoid_focal_loss':
        logits = maps.movedim(1, 3).reshape(-1, 4)
        return mmcv.ops.sigmoid_focal_loss(logits, torch.arange(len(logits)) % 5, 2., 0.25, None,
                                           'none')
    if name == 'sync_bn':
        return SyncBatchNormFunction.apply(maps, torch.zeros(4), torch.ones(4), torch.ones(4),
                                           torch.zeros(4), 0.1, 1e-5, None, 1, 'default')
    return {
        'roi_align': lambda: mmcv.ops.roi_align(maps, found, (3, 2), 0.25, 0, 'avg', True),
        'roi_pool': lambda: mmcv.ops.roi_pool(maps, found, (3, 2), 0.25),
        'deform_roi_pool': lambda: mmcv.ops.deform_roi_pool(maps, found, moved, (3, 2), 0.25),
        'deform_conv': lambda: mmcv.ops.deform_conv2d(maps, offsets, weight, 1, 1),
        'modulated_deform_conv': lambda: mmcv.ops.modulated_deform_conv2d(
            maps, offsets, masks.float(), weight.float(), None, 1, 1),
        'masked_conv': lambda: mmcv.ops.masked_conv2d(
            maps[:1], masks[:1, 0] > 0.5, weight, weight[:, 0, 0, 0], 1),
        'carafe': lambda: mmcv.ops.carafe(maps, kernels, 3, 1, 2),
        'psamask': lambda: mmcv.ops.PSAMask('collect', (2, 2))(maps),
    }[name]()


CALLS = ('roi_align', 'roi_pool', 'deform_roi_pool', 'deform_conv', 'modulated_deform_conv',
         'masked_conv', 'sigmoid_focal_loss', 'carafe', 'psamask', 'ms_deform_attn', 'sync_bn')


def output_and_gradient(name, maps, dtype=torch.float32):
    """Of maps from a convolution, in 16 bits under autocast."""
    maps = maps.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        output = called(name, F.conv2d(maps, torch.eye(4)[..., None, None]))
    if name != 'masked_conv':  # without a gradient in mmcv too
        (output.float() * torch.arange(output.numel()).cos().view(output.shape)).sum().backward()
    return output, maps.grad


@pytest.mark.parametrize('name,dtype', [
    (name, dtype) for name in CALLS for dtype in (torch.bfloat16, torch.float16)
    if (name, dtype) != ('sync_bn', torch.bfloat16)])  # mmcv refuses it
def test_16_bits_under_autocast(name, dtype):
    torch.set_default_dtype(torch.float32)
    maps = operands_in_bfloat16(torch.rand(2, 4, 9, 11))
    (exact, exact_gradient), (output, gradient) = (
        output_and_gradient(name, maps, kind) for kind in (torch.float32, dtype))
    assert output.dtype == dtype
    for one, other in ((output.float(), exact), (gradient, exact_gradient)):
        if other is not None:
            torch.testing.assert_close(one, other, rtol=0.01,
                                       atol=0.01 * float(other.detach().abs().max()))


@pytest.mark.parametrize('name', CALLS)
def test_maps_of_float32_under_autocast_stay_so(name):
    torch.set_default_dtype(torch.float32)
    maps = torch.rand(2, 4, 9, 11)
    with torch.autocast('cpu', torch.bfloat16):
        output = called(name, maps)
    # mmcv itself multiplies in 16 bits in a masked convolution
    close = dict(rtol=0.02, atol=0.05) if name == 'masked_conv' else {}
    torch.testing.assert_close(output, called(name, maps), **close)


@pytest.mark.parametrize('name', CALLS)
def test_channels_last_maps_and_deterministic_algorithms(name):
    torch.set_default_dtype(torch.float32)
    maps = torch.rand(2, 4, 9, 11)
    expected = output_and_gradient(name, maps)
    torch.use_deterministic_algorithms(True)
    try:
        found = output_and_gradient(name, maps.to(memory_format=torch.channels_last))
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize('images', (2, 0))
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16, torch.float16))
@pytest.mark.parametrize('name', ('roi_align', 'roi_pool', 'deform_roi_pool'))
def test_no_boxes_give_an_empty_output_and_a_gradient_of_zeros(name, dtype, images):
    torch.set_default_dtype(torch.float32)
    maps = torch.rand(images, 4, 9, 11, dtype=dtype, requires_grad=True)
    output = called(name, maps, 0)
    output.sum().backward()
    assert output.shape == (0, 4, 3, 2) and output.dtype == dtype
    assert maps.grad.dtype == dtype and not maps.grad.any()


@pytest.mark.parametrize('name', ('sigmoid_focal_loss', 'carafe', 'psamask', 'ms_deform_attn',
                                  'sync_bn'))
def test_no_images_give_an_empty_output(name):
    torch.set_default_dtype(torch.float32)
    maps = torch.rand(0, 4, 9, 11, requires_grad=True)
    output = called(name, maps)
    output.sum().backward()
    assert not output.numel() and maps.grad.shape == maps.shape


@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16))
def test_suppression_in_16_bits_keeps_what_float32_keeps(dtype):
    torch.set_default_dtype(torch.float32)
    corners, scores = (torch.randint(0, 100, (60, 4)).sort(1)[0].float(),
                       torch.randperm(60) / 64)  # 16 bits hold them
    kinds = torch.arange(60) % 3
    for suppress in (
            lambda *dets: mmcv.ops.nms(*dets, 0.4),
            lambda *dets: mmcv.ops.soft_nms(*dets, 0.4),
            lambda *dets: mmcv.ops.batched_nms(*dets, kinds, dict(iou_threshold=0.4)),
            lambda *dets: mmcv.ops.batched_nms(*dets, kinds, dict(iou_threshold=0.4, split_thr=9)),
    ):
        dets, indices = suppress(corners.float(), scores.float())
        half, same = suppress(corners.to(dtype), scores.to(dtype))
        assert half.dtype == dtype and same.tolist() == indices.tolist()
        torch.testing.assert_close(half.float(), dets, rtol=0.01, atol=0.01)
    groups = [mmcv.ops.nms_match(torch.cat([corners, scores[:, None]], 1).to(kind), 0.4)
              for kind in (torch.float32, dtype)]
    assert [group.tolist() for group in groups[0]] == [group.tolist() for group in groups[1]]


def test_suppression_of_nothing_and_of_boxes_without_area():
    flat, scores = torch.zeros(3, 4), torch.tensor([0.3, 0.9, 0.6])
    for suppress in mmcv.ops.nms, mmcv.ops.soft_nms:
        assert suppress(flat[:0], scores[:0], 0.4)[1].tolist() == []
        assert suppress(flat, scores, 0.4)[1].tolist() == [1, 2, 0]
    assert mmcv.ops.soft_nms(flat, scores, 0.4, method='gaussian')[1].tolist() == [1, 0, 2]
    assert mmcv.ops.nms_match(torch.zeros(0, 5), 0.4) == []
    groups = mmcv.ops.nms_match(torch.cat([flat, scores[:, None]], 1), 0.4)
    assert [group.tolist() for group in groups] == [[1], [2], [0]]


def test_an_operator_that_is_not_provided_raises():
    with pytest.raises(NotImplementedError) as error:
        mmcv.ops.ball_query(0, 1., 2, torch.rand(1, 4, 3), torch.rand(1, 2, 3))
    assert str(error.value) == (
        "mmcv's operator 'ball_query_forward': not in fastervit_mm; install a compiled mmcv "
        '(docs/install.md)')
    with pytest.raises(NotImplementedError, match='nms_rotated.*compiled mmcv'):
        mmcv.ops.nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5)
    with pytest.raises(NotImplementedError, match="pool_mode='max'.*compiled mmcv"):
        mmcv.ops.roi_align(torch.rand(1, 4, 9, 11), rois(2, 1), 3, 1., 0, 'max')


def test_operators_that_configs_reach_are_provided_and_documented():
    counted = json.loads((REPO / 'benchmarks' / 'count_operators.json').read_text())['operators']
    table = (REPO / 'docs' / 'install.md').read_text()
    assert 'nms' in counted and counted.keys() <= vars(ext).keys()
    assert [name for name in counted if f'`{name}`' not in table] == []
