"""Linear layers through oneDNN: torch's results and gradients."""
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from fastervit_mm import FasterViT
from fastervit_mm.engine import onednn
from fastervit_mm.engine.launch import build_runner
from fastervit_mm.engine.onednn import OneDnnLinear, undo_onednn, use_onednn
from tests.conftest import needs_torch
from tests.export.networks import DETECTOR, config

SHAPES = [(5, 12), (2, 7, 12), (2, 3, 7, 12), (1, 12), (40, 12), (2, 3, 17, 12)]


@pytest.fixture
def products(monkeypatch):
    """Shapes of the products that oneDNN computed."""
    shapes, original = [], onednn._by_convolution
    monkeypatch.setattr(onednn, '_by_convolution',
                        lambda x, *rest: shapes.append(tuple(x.shape)) or original(x, *rest))
    return shapes


def layer_of(*arguments, **options):
    layer = use_onednn(torch.nn.Linear(*arguments, **options))
    # Where PyTorch was built without MKL there is nothing to go around.
    assert (type(layer) is OneDnnLinear) == (
        torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available())
    return layer


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('dtype, limit', [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_results_and_gradients_are_torchs(shape, dtype, limit, products):
    layer = layer_of(12, 20).to(dtype)
    x = torch.randn(*shape, dtype=dtype, requires_grad=True)
    inputs = (x, layer.weight, layer.bias)
    got, expected = layer(x), F.linear(*inputs)
    direction = torch.randn_like(got)
    assert got.shape == expected.shape and got.is_contiguous() and got.dtype == dtype
    pairs = [(got, expected), *zip(torch.autograd.grad(got, inputs, direction),
                                   torch.autograd.grad(expected, inputs, direction))]
    for a, b in pairs:
        assert ((a - b).abs().max() / b.abs().max()).item() < limit
    # A few tokens are not worth bringing the weight into another order.
    assert products == ([shape] if x[..., 0].numel() >= 16 else [])


def test_non_contiguous_tokens(products):
    layer = layer_of(12, 20, bias=False)
    x = torch.randn(12, 3, 7).permute(2, 1, 0)
    assert torch.allclose(layer(x), F.linear(x, layer.weight), atol=1e-5) and len(products) == 1


def test_a_model_keeps_its_weights_names_and_copies(tiny_arch, products):
    plain = FasterViT(tiny_arch).eval()
    fast = use_onednn(copy.deepcopy(plain))
    assert list(fast.state_dict()) == list(plain.state_dict())
    fast.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        expected = plain(image)
        assert products == []
        for model in (fast, copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)),
                      copy.deepcopy(fast).switch_to_deploy()):
            products.clear()
            for a, b in zip(model(image), expected):
                assert ((a - b).abs().max() / b.abs().max()).item() < 1e-5
            assert len(products) >= 20
        products.clear()
        undo_onednn(fast)(image)
    assert products == [] and not any(isinstance(m, OneDnnLinear) for m in fast.modules())


def test_our_tools_also_convert_necks_and_heads(tmp_path):
    cfg = config(DETECTOR, tmp_path)
    model = build_runner(cfg).model
    fast = {name.split('.')[0] for name, m in model.named_modules() if isinstance(m, OneDnnLinear)}
    assert fast == {'backbone', 'roi_head'}
    assert not any(type(m) is torch.nn.Linear for m in model.modules())


def test_layers_of_other_libraries_are_converted_but_not_subclasses():
    class Own(torch.nn.Linear):
        pass

    attention = torch.nn.MultiheadAttention(8, 2)  # its own subclass of Linear is called by nothing
    model = use_onednn(torch.nn.Sequential(torch.nn.Linear(8, 8), Own(8, 8), attention))
    assert [type(m) for m in model[:2]] == [OneDnnLinear, Own]
    assert not isinstance(attention.out_proj, OneDnnLinear)


def test_autocast_gives_what_autocast_gives(products):
    layer = layer_of(12, 20)
    x = torch.randn(40, 12)
    with torch.autocast('cpu', torch.bfloat16):
        got, expected = layer(x), F.linear(x, layer.weight, layer.bias)
    assert len(products) == 1 and got.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02)


def test_types_that_do_not_match_are_refused_as_torch_refuses_them():
    with pytest.raises(RuntimeError, match='dtype'):
        layer_of(12, 20)(torch.randn(40, 12, dtype=torch.double))


@needs_torch(2, 7, 'before, compiled layers are as they are')
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_the_operator_for_compilers(shape):
    """Its fake implementation gives the same shape, strides and type; no aliasing or mutation."""
    arguments = (torch.randn(*shape), torch.randn(20, 12), torch.randn(20))
    torch.library.opcheck(torch.ops.fastervit_mm.linear.default, arguments)
    assert torch.allclose(torch.ops.fastervit_mm.linear(*arguments), F.linear(*arguments),
                          atol=1e-5)


@needs_torch(2, 6, 'before, an exported graph has other operators')
def test_an_exported_graph_holds_a_plain_linear_layer():
    program = torch.export.export(layer_of(12, 20), (torch.randn(40, 12), ))
    names = {str(node.target) for node in program.graph.nodes}
    assert 'aten.linear.default' in names and not any('fastervit' in n for n in names)
