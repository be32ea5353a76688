"""Half precision and extreme images: finite, and near float32.

Autocast is the CPU's. Networks have one block in each stage, since what overflows or rounds is a
matter of widths, which are the variants' own. 6 has the widths of 5, and the 4-21k networks differ
in their windows alone. Weights are random, norms and scales stirred: no published weights were
within reach.
"""
import copy
from dataclasses import asdict

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from fastervit_mm import FasterViT, get_config
from fastervit_mm.backbone import VARIANTS
from fastervit_mm.compat import TORCH
from fastervit_mm.engine.precision import keep_boxes_exact
from fastervit_mm.models import build_model
from fastervit_mm.swapping import NORMALISATION
from tests.conftest import TINY, needs_torch, stir

WIDTHS = ('0', '1', '2', '3', '4', '5', '4-21k-224')
# The largest distance from float32, over the length of that: of a map, and of all gradients.
BOUNDS = {torch.bfloat16: (0.02, 0.1), torch.float16: (0.003, 0.02)}
if TORCH < (2, 3):  # whose autocast on a CPU knows bfloat16 alone
    del BOUNDS[torch.float16]


def network(name, **settings):
    fields = {**asdict(VARIANTS[name]), 'depths': (1, 1, 1, 1), 'drop_path_rate': 0., **settings}
    model = FasterViT(fields, norm_eval=True)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):  # as init_weights(), faster
                module.weight.normal_(0, 0.02)
    stir(model)
    return model.eval()


def images():
    """White, black, constant and noise, as the network gets them."""
    torch.manual_seed(0)
    raw = torch.stack([torch.full((3, 32, 32), value) for value in (255., 0., 37.)]
                      + [torch.randint(0, 256, (3, 32, 32)).float()])
    mean, std = (torch.tensor(NORMALISATION[k]).view(3, 1, 1) for k in ('mean', 'std'))
    return (raw - mean) / std


@pytest.fixture(scope='module', params=WIDTHS)  # the largest has 150 million parameters
def model(request):
    return network(request.param)


@pytest.mark.parametrize('scale', [1, 100])
def test_every_width_is_near_float32(model, scale):
    """White, black, constant and noise; also with the stem's output multiplied by 100."""
    scaled = model.stem.register_forward_hook(lambda module, args, out: scale * out)
    try:
        with torch.no_grad():
            right = model(images())
            for dtype, (bound, _) in BOUNDS.items():
                with torch.autocast('cpu', dtype):
                    maps = model(images())
                worst = max(map(distance, maps, right))
                print(f'{dtype}, stem x {scale}: {worst:.5f}')
                assert 0 < worst < bound
    finally:
        scaled.remove()


def distance(got, want):
    """The largest of a batch."""
    assert got.isfinite().all() and want.isfinite().all()
    apart = (got.float() - want).flatten(1).norm(dim=1) / want.flatten(1).norm(dim=1)
    return apart.max().item()


def gradients(model, dtype):
    model.zero_grad()
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
        maps = model(images())
    sum((m.float() * torch.randn(m.shape)).mean() for m in maps).backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return found


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=() if name in ('0', '2') else pytest.mark.long) for name in WIDTHS])
def test_gradients_are_finite_and_near_float32s(name):
    """In bfloat16, for every width in `make test-all`. A CPU takes minutes for the widest."""
    check_gradients(network(name), torch.bfloat16)


def test_gradients_of_padded_heads():
    """FasterViT-4's heads of 49 channels, fewer of them."""
    check_gradients(network('4', embed_dim=49, num_heads=(1, 1, 4, 8)), torch.bfloat16)


@needs_torch(2, 3, 'before, a CPU has no float16 in autocast')
def test_gradients_in_float16():
    check_gradients(network('0'), torch.float16)


def check_gradients(model, dtype):
    right, found = gradients(model.train(), None), gradients(model, dtype)
    model.eval()
    assert found.isfinite().all()
    apart = ((found - right).norm() / right.norm()).item()
    print(f'{dtype}, gradients: {apart:.5f}')
    assert 0 < apart < BOUNDS[dtype][1]


def test_statistics_of_one_pixel_are_finite():
    """BatchNorm in training on two cells: the last map of a batch of two."""
    model = FasterViT(dict(TINY)).train()
    for dtype in (None, *BOUNDS):
        x = torch.zeros(2, 3, 32, 32)  # of no variance at all
        with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
            maps = model(x)
        sum(m.float().sum() for m in maps).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        assert all(b.isfinite().all() for b in model.buffers())


# Whole models

@pytest.fixture(scope='module')
def detector():
    cfg = get_config('mmdet/cascade_fvit_shapes')
    cfg.model.train_cfg.rpn.allowed_border = -1
    torch.manual_seed(0)
    model = build_model(cfg)
    keep_boxes_exact(model)
    return model


@pytest.fixture(scope='module')
def segmentor():
    cfg = get_config('mmseg/upernet_fvit')
    cfg.model.backbone = dict(type='FasterViT', arch=TINY)
    cfg.model.decode_head.update(in_channels=[16, 32, 64, 128], channels=16)
    cfg.model.auxiliary_head.update(in_channels=64, channels=16)
    cfg.model.data_preprocessor.size = (64, 64)
    torch.manual_seed(0)
    return build_model(cfg)


def objects(size, count):
    boxes = torch.tensor([[2., 0., 2 + 5 * i, size[0]] for i in range(1, count + 1)]).view(-1, 4)
    masks = np.zeros((count, *size), np.uint8)
    masks[:, :, 2:7] = 1
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1., 1.))
    return DetDataSample(metainfo=meta, gt_instances=InstanceData(
        bboxes=boxes, labels=torch.zeros(count, dtype=torch.long),
        masks=BitmapMasks(masks, *size)))


def labels(size, label):
    return SegDataSample(metainfo=dict(img_shape=size, ori_shape=size), gt_sem_seg=PixelData(
        data=torch.full((1, *size), label)))


def losses(model, samples, dtype):
    model.train()
    model.zero_grad()
    sizes = [sample.img_shape for sample in samples]
    data = model.data_preprocessor(dict(
        inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes],
        data_samples=copy.deepcopy(samples)), training=True)
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
        found = model(**data, mode='loss')
    total, values = model.parse_losses(found)
    assert all(value.isfinite().all() for value in values.values()), values
    total.backward()
    given = [p.grad for p in model.parameters() if p.grad is not None]
    assert given and all(grad.isfinite().all() for grad in given)
    return values


@pytest.mark.parametrize('dtype', [None, torch.bfloat16], ids=['float32', 'bfloat16'])
def test_one_pixel_high_and_without_objects(detector, segmentor, dtype):
    """Padded by the preprocessor, with one object or none; with one class or none."""
    empty = losses(detector, [objects((1, 64), 0), objects((64, 64), 0)], dtype)
    assert empty['s0.loss_bbox'] == 0 and empty['s0.loss_mask'] == 0 and empty['loss_rpn_cls'] > 0
    full = losses(detector, [objects((1, 64), 1), objects((64, 64), 3)], dtype)
    assert full['s0.loss_bbox'] > 0 and full['s0.loss_mask'] > 0
    assert losses(segmentor, [labels((1, 64), 3), labels((64, 64), 255)], dtype)[
        'decode.loss_ce'] > 0
    assert losses(segmentor, [labels((1, 64), 255), labels((64, 1), 255)], dtype)[
        'decode.loss_ce'] == 0
    detector.eval()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=dtype is not None):
        result, = detector(**detector.data_preprocessor(dict(
            inputs=[torch.zeros(3, 1, 64, dtype=torch.uint8)],
            data_samples=[objects((1, 64), 0)])), mode='predict')
    assert result.pred_instances.masks.shape[1:] == (1, 64)
    assert result.pred_instances.scores.isfinite().all()


def test_mmdet_reports_that_no_anchor_is_inside(detector):
    """Cascade R-CNN's own `allowed_border=0` on such an image: an error, no NaN."""
    allowed = detector.rpn_head.train_cfg.allowed_border
    detector.rpn_head.train_cfg.allowed_border = 0
    try:
        with pytest.raises(ValueError, match='no valid anchor inside the image .*allowed_border'):
            losses(detector, [objects((1, 64), 1)] * 2, None)
    finally:
        detector.rpn_head.train_cfg.allowed_border = allowed
