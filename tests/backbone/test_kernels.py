"""Number of kernels, counted as operators that are not views, and kernels to avoid."""
from types import SimpleNamespace

import pytest
import torch

from fastervit_mm import FasterViT, compat
from tests.backbone.common import maps, operators
from tests.conftest import TINY, needs_torch

IMAGE = torch.rand(2, 3, 224, 224)
# Products, softmax and copies stand in its place.
fused_on_cpu = needs_torch(2, 2, 'before, attention with a bias is no kernel on a CPU')


@pytest.fixture
def network():
    """FasterViT-2 except for its widths, without oneDNN, as counted in the documentation."""
    model = FasterViT(dict(TINY, depths=(3, 3, 8, 5), drop_path_rate=0.2))
    with torch.backends.mkldnn.flags(enabled=False):
        yield model


@fused_on_cpu
def test_evaluation_is_at_most_400_operators(network):
    network.eval()
    assert operators(lambda: maps(network, IMAGE)).total() <= 400


@fused_on_cpu
def test_a_deployed_network_is_at_most_355_operators(network):
    network.eval().switch_to_deploy()
    count = operators(lambda: maps(network, IMAGE))
    assert count.total() <= 355
    # Four products in each of 13 blocks, and of the carriers of 8; two MLPs of carriers' positions.
    assert count['aten::addmm'] == 4 * 13 + 4 * 8 + 2
    assert count['aten::native_batch_norm'] == 4  # of the outputs
    network.bfloat16()
    image = IMAGE.bfloat16()
    assert operators(lambda: maps(network, image)).total() <= 355 + 7  # casts of carriers' terms


def test_a_training_step_is_at_most_2190_operators(network):
    """Under autocast, gradients unset before."""
    outs = []

    def forward():
        with torch.autocast('cpu', torch.bfloat16):
            outs[:] = network.train()(IMAGE)
    forward()
    assert operators(forward).total() <= 1045
    loss = sum(out.float().mean() for out in outs)
    assert operators(loss.backward).total() <= 1145


def test_the_count_sees_what_it_should():
    x = torch.rand(4, 4)
    assert operators(lambda: (x.t() @ x + 1).view(16)) == {'aten::mm': 1, 'aten::add': 1}


@pytest.mark.parametrize('mode', ['train', 'eval', 'deployed'])
def test_no_convolution_converts_the_layout_of_a_weight(mode):
    model = FasterViT(TINY).train(mode == 'train')
    if mode == 'deployed':
        model.switch_to_deploy()
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    found = []
    for conv in convolutions:
        conv.register_forward_hook(lambda m, args, out: found.append(out))
    model(IMAGE)
    assert len(found) == len(convolutions) > 10
    assert all(t.is_contiguous(memory_format=torch.channels_last)
               for t in (*found, *(conv.weight for conv in convolutions)))


@pytest.fixture
def attention_calls(monkeypatch):
    """Queries and masks passed to PyTorch's attention."""
    calls, fused = [], torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, attn_mask, scale):
        calls.append((q, attn_mask))
        return fused(q, k, v, attn_mask=attn_mask, scale=scale)
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', watched)
    return calls


def test_rows_of_a_mask_are_aligned_as_fused_kernels_need_them(attention_calls):
    """53 tokens in rows of 56: taken as they are, in 16 bits and deployed too."""
    model = FasterViT(TINY, out_indices=(2, )).eval()
    maps(model, IMAGE)
    with torch.autocast('cpu', torch.bfloat16):
        maps(model, IMAGE)
    maps(model.switch_to_deploy(), IMAGE)
    maps(model.bfloat16(), IMAGE.bfloat16())
    windows = [(q, mask) for q, mask in attention_calls if mask.shape[-1] == 53]
    assert len(windows) == 4 * 2
    assert all(mask.stride()[-2:] == (56, 1) and mask.dtype == q.dtype for q, mask in windows)


def test_kernels_get_heads_of_a_multiple_of_8(attention_calls):
    """In training or deployed; for others PyTorch's fallback kernel stores all logits."""
    model = FasterViT(dict(base='4', depths=(1, 1, 1, 1)), out_indices=(2, )).eval()
    image = torch.randn(1, 3, 64, 64)
    maps(model, image)
    maps(model.switch_to_deploy(), image)
    assert [q.shape[-1] for q, _ in attention_calls] == [56] * 4


# What the choice of a kernel asks of a tensor.
ON_A_GPU = SimpleNamespace(device=torch.device('cuda'))


@needs_torch(2, 5, 'before, there is no kernel of cuDNN to avoid')
@pytest.mark.parametrize('enabled', [True, False])
def test_cudnn_is_off_for_our_attention_alone(monkeypatch, enabled):
    seen = []
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', lambda *a, **k: (
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())))
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    try:
        compat.scaled_dot_product_attention(ON_A_GPU, None, None, None, 1.)
        assert seen == [False] and torch.backends.cuda.cudnn_sdp_enabled() == enabled
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@needs_torch(2, 5, 'before, there is no kernel of cuDNN to avoid')
def test_a_compiled_graph_is_traced_without_cudnn(monkeypatch):
    from torch.nn.attention import SDPBackend
    chosen = []
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', lambda *a, **k: (
        chosen.extend(torch.nn.attention._cur_sdpa_kernel_backends())))
    monkeypatch.setattr(compat, 'is_compiling', lambda: True)
    compat.scaled_dot_product_attention(ON_A_GPU, None, None, None, 1.)
    assert set(chosen) == {SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH}
