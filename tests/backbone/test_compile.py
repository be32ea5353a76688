"""torch.compile: one graph, no break, and not one for every image size.

The compiler's own code runs in tests/end_to_end/test_ade20k_tiny.py.
"""
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fastervit_mm import FasterViT
from tests.conftest import stir

SIZES = [(256, 256), (256, 320), (320, 230), (230, 333), (448, 448), (480, 256), (600, 401),
         (333, 500), (256, 700), (672, 672)]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=['as trained', 'deployed'])
def model(request, tiny_arch):
    model = FasterViT(tiny_arch)
    stir(model)
    model.eval()
    return model.switch_to_deploy() if request.param == 'deployed' else model


def assert_same(got, expected, limit):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert ((a - b).abs().max() / b.abs().max()).item() < limit


def test_ten_sizes_make_at_most_two_graphs(model):
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in SIZES:
            # Two images: for one, PyTorch's CPU convolution asks whether a map is tiny.
            image = torch.randn(2, 3, *size)
            assert_same(compiled(image), model(image), 1e-5)
    assert counter.frame_count <= 2


def test_weights_changed_behind_a_graph_are_seen(tiny_arch):
    """Position terms of a network that is not deployed are computed in the graph, not frozen."""
    model = FasterViT(tiny_arch).eval()
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    image = torch.randn(1, 3, 256, 320)
    with torch.no_grad():
        before = compiled(image)
        model.stages[2].blocks[0].carrier_attn.position_bias.mlp.fc2.weight.normal_(0, 2)
        after = compiled(image)
        assert_same(after, model(image), 1e-5)
    assert not torch.equal(before[2], after[2])


def test_gradients_go_through_a_graph(tiny_arch):
    model = FasterViT(tiny_arch)
    stir(model)
    image = torch.randn(2, 3, 256, 320)

    def gradients(network):
        model.zero_grad()
        torch.manual_seed(0)
        sum(m.square().mean() for m in network(image)).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients(model)
    got = gradients(torch.compile(model, backend='aot_eager', fullgraph=True))
    assert len(got) == len(expected) > 50
    scale = max(e.abs().max() for e in expected)
    assert all((g - e).abs().max() < 1e-4 * scale for g, e in zip(got, expected, strict=True))
