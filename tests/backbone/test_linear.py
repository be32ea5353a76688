"""Linear layers through oneDNN: torch's results, gradients and all."""
import pytest
import torch
import torch.nn.functional as F

from fastervit_mm.backbone import linear
from fastervit_mm.backbone.linear import Linear, TokenMlp

SHAPES = [(5, 12), (2, 7, 12), (2, 3, 7, 12), (1, 12)]


def test_this_machine_takes_the_way_that_is_tested():
    # Where PyTorch was built without MKL there is nothing to go around.
    assert linear._MKL == (torch.backends.mkl.is_available()
                           and torch.backends.mkldnn.is_available())


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('dtype, limit', [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_results_and_gradients_are_torchs(shape, dtype, limit):
    layer = Linear(12, 20).to(dtype)
    x = torch.randn(*shape, dtype=dtype, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    got, expected = layer(x), F.linear(*inputs)
    direction = torch.randn_like(got)
    assert got.shape == expected.shape and got.is_contiguous() and got.dtype == dtype
    pairs = [(got, expected), *zip(torch.autograd.grad(got, inputs, direction),
                                   torch.autograd.grad(expected, inputs, direction))]
    for a, b in pairs:
        assert ((a - b).abs().max() / b.abs().max()).item() < limit


def test_tokens_in_another_order_in_memory():
    layer = Linear(12, 20)
    x = torch.randn(12, 3, 7).permute(2, 1, 0)
    assert torch.allclose(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5)


def test_weights_are_an_ordinary_linear_layers():
    ours, torchs = TokenMlp(12, 48), torch.nn.Linear(12, 48)
    assert list(ours.state_dict()) == ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    ours.fc1.load_state_dict(torchs.state_dict())
    x = torch.randn(4, 12)
    assert torch.allclose(ours.fc1(x), torchs(x), atol=1e-6)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_the_operator_for_compilers(shape):
    """Its fake twin gives the same shape, strides and type; it neither aliases nor changes."""
    arguments = (torch.randn(*shape), torch.randn(20, 12), torch.randn(20))
    torch.library.opcheck(torch.ops.fastervit_mm.linear.default, arguments)
    assert torch.allclose(torch.ops.fastervit_mm.linear(*arguments), F.linear(*arguments),
                          atol=1e-5)


def test_an_exported_graph_holds_a_plain_linear_layer():
    program = torch.export.export(Linear(12, 20), (torch.randn(2, 12), ))
    names = {str(node.target) for node in program.graph.nodes}
    assert 'aten.linear.default' in names and not any('fastervit' in n for n in names)
