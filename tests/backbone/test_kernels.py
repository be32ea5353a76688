"""How few kernels the network is, counted as operators that are no views, and which it chooses."""
from collections import Counter

import pytest
import torch

from benchmarks.operators import operators
from fastervit_mm import FasterViT
from fastervit_mm.backbone import kernels
from tests.conftest import TINY, needs_torch, stir

IMAGE = torch.rand(2, 3, 224, 224)
# Products, softmax and copies stand in its place.
fused_on_cpu = needs_torch(2, 2, 'before, attention with a bias is no kernel on a CPU')
# FasterViT-2 has as many blocks of each kind; the count does not depend on widths.
DEPTHS = dict(TINY, depths=(3, 3, 8, 5), drop_path_rate=0.2)


@pytest.fixture
def network():
    """FasterViT-2 but for its widths, oneDNN's path off as in the counts of the documentation."""
    model = FasterViT(DEPTHS)
    with torch.backends.mkldnn.flags(enabled=False):
        yield model


def counted(call, warm=True):
    with torch.no_grad():
        if warm:
            call()
        return operators(call)


@fused_on_cpu
def test_a_deployed_network_is_its_products_norms_and_little_else(network):
    network.eval().switch_to_deploy()
    count = counted(lambda: network(IMAGE))
    assert count.total() <= 283
    assert count['aten::addmm'] == 4 * 13 + 4 * 8 and count['aten::native_layer_norm'] == 45
    assert count['aten::clone'] <= 3
    network.bfloat16()
    image = IMAGE.bfloat16()
    assert counted(lambda: network(image)).total() == count.total()


def test_under_autocast_a_deployed_network_casts_the_image_alone(network):
    plain = counted(lambda: network.eval().switch_to_deploy()(IMAGE)).total()
    with torch.autocast('cpu', torch.bfloat16):
        network(IMAGE)
    with torch.autocast('cpu', torch.bfloat16):  # the last one's casts are gone with it
        count = counted(lambda: network(IMAGE), warm=False)
    assert count['aten::_to_copy'] == 1 and count.total() == plain + 1


@fused_on_cpu
def test_a_deployed_network_looks_nothing_up_at_a_size_seen_before():
    """Many carriers, whose biases are large together, included."""
    model = FasterViT(TINY).eval().switch_to_deploy()
    image = torch.rand(1, 3, 896, 1008)  # 8 x 9 windows, 288 carriers
    count = counted(lambda: model(image))
    assert 'aten::index_select' not in count and count['aten::bmm'] == 2  # of pooling


@fused_on_cpu
def test_evaluation_computes_position_terms_once_a_stage(network):
    network.eval()
    assert counted(lambda: network(IMAGE)).total() <= 400
    with torch.autocast('cpu', torch.bfloat16):
        assert counted(lambda: network(IMAGE)).total() <= 620


def test_a_training_step(network):
    """Under autocast, gradients unset before."""
    network.train()
    outs = []

    def forward():
        with torch.autocast('cpu', torch.bfloat16):
            outs[:] = network(IMAGE)
    forward()
    assert operators(forward).total() <= 750
    loss = sum(out.float().mean() for out in outs)
    assert operators(loss.backward).total() <= 950


def test_the_count_sees_what_it_should():
    x = torch.rand(4, 4)
    count = operators(lambda: (x.t() @ x + 1).view(16))
    assert count == Counter({'aten::mm': 1, 'aten::add': 1})


@pytest.mark.parametrize('mode', ['train', 'eval', 'deployed'])
def test_no_convolution_turns_a_weight_around(mode):
    model = FasterViT(TINY).train(mode == 'train')
    if mode == 'deployed':
        model.switch_to_deploy()
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    maps = []
    for conv in convolutions:
        conv.register_forward_hook(lambda m, args, out: maps.append(out))
    model(IMAGE)
    assert len(maps) == len(convolutions) > 10
    assert all(t.is_contiguous(memory_format=torch.channels_last)
               for t in (*maps, *(conv.weight for conv in convolutions)))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_trained_attention_on_a_cpu_equals_pytorch_s(dtype):
    """Values and gradients; in 16 bits computed in float32, as PyTorch does, under autocast too."""
    qkv = torch.randn(3, 53, 3, 4, 8, dtype=dtype, requires_grad=True)
    bias = torch.randn(4, 53, 53, requires_grad=True)
    weight = torch.randn(3, 53, 4, 8)

    def gradients(x):
        return x, *torch.autograd.grad((x * weight).sum(), (qkv, bias))
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = gradients(kernels.attention(qkv, bias, 0.3))
        expected = gradients(kernels.fused(
            *qkv.permute(2, 0, 3, 1, 4), bias[None].to(dtype), 0.3).transpose(1, 2))
    limit = 1e-5 if dtype == torch.float32 else 2e-2
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < limit * theirs.abs().max()


def test_trained_attention_on_a_cpu_has_the_right_gradient():
    qkv = torch.randn(2, 5, 3, 2, 4, dtype=torch.double, requires_grad=True)
    bias = torch.randn(2, 5, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: kernels.attention(*given, 0.3), (qkv, bias))


def test_a_network_trains_by_it_and_by_pytorch_alike(monkeypatch):
    model = FasterViT(dict(TINY, drop_path_rate=0.))
    stir(model)

    def gradients():
        model.zero_grad()
        sum(out.square().mean() for out in model(IMAGE)).backward()
        return [p.grad for p in model.parameters()]
    ours = gradients()
    monkeypatch.setattr(kernels, 'attention', None)
    from fastervit_mm.backbone import attention
    monkeypatch.setattr(attention, 'attention', lambda qkv, bias, scale: kernels.fused(
        *qkv.permute(2, 0, 3, 1, 4), bias[None], scale).transpose(1, 2))
    for mine, theirs in zip(ours, gradients(), strict=True):
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-7


class OnAGpu:
    """What the choice of a kernel asks of a tensor."""
    device = torch.device('cuda')


@needs_torch(2, 5, 'before, there is no kernel of cuDNN to avoid')
@pytest.mark.parametrize('enabled', [True, False])
def test_cudnn_is_off_for_our_attention_alone(monkeypatch, enabled):
    seen = []
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', lambda *a, **k: (
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())))
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    try:
        kernels.fused(OnAGpu(), None, None, None, 1.)
        assert seen == [False] and torch.backends.cuda.cudnn_sdp_enabled() == enabled
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@needs_torch(2, 5, 'before, there is no kernel of cuDNN to avoid')
def test_a_compiled_graph_is_traced_without_cudnn(monkeypatch):
    from torch.nn.attention import SDPBackend
    chosen = []

    def attend(*args, **kwargs):
        chosen.extend(torch.nn.attention._cur_sdpa_kernel_backends())
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', attend)
    monkeypatch.setattr(kernels, 'is_compiling', lambda: True)
    kernels.fused(OnAGpu(), None, None, None, 1.)
    assert set(chosen) == {SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH}
