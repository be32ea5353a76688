"""torch.compile: one graph, no break, and not one for every image size.

The compiler's own code runs in tests/end_to_end/test_ade20k_tiny.py.
"""
import copy

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from fastervit_mm import FasterViT, SwinHAT
from tests.conftest import needs_torch, stir

pytestmark = needs_torch(2, 6, 'before, its compiler cannot follow this backbone')

# A graph that is made for a square takes squares alone, and a second one the rest; one that is made
# for another shape takes all.
SIZES = [(256, 320), (256, 256), (320, 230), (230, 333), (448, 448), (480, 256), (600, 401),
         (333, 500), (256, 700), (672, 672)]
SQUARE_FIRST = sorted(SIZES, key=lambda size: size != (256, 256))


@pytest.fixture
def tiny_arch(tiny_arch):
    """Shallow: what a compiler takes of a block, it takes of each. Two that hand on carriers."""
    return dict(tiny_arch, depths=(1, 1, 2, 1))


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=[pytest.param('as trained', marks=pytest.mark.long), 'deployed'])
def model(request, tiny_arch):
    if request.param == 'deployed':
        model = FasterViT(tiny_arch)
        stir(model)
        return model.eval().switch_to_deploy()
    # Without the last stage: test_ten_sizes_train_in_at_most_two_graphs has all four.
    model = FasterViT(dict(tiny_arch, depths=(1, 1, 1, 1)), out_indices=(0, 1, 2))
    stir(model)
    return model.eval()


def assert_same(got, expected, limit):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert ((a - b).abs().max() / b.abs().max()).item() < limit


def test_ten_sizes_make_at_most_two_graphs(model):
    """AOTAutograd is part of it: tracing operators asks more of sizes than Python does."""
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in SIZES if model.deployed else SQUARE_FIRST:
            # Two images: for one, PyTorch's CPU convolution asks whether a map is tiny.
            image = torch.randn(2, 3, *size)
            assert_same(compiled(image), model(image), 1e-5)
    assert 1 <= counters['stats']['unique_graphs'] <= 2


@pytest.mark.long
def test_sizes_of_swin_hat_make_at_most_two_graphs():
    # Two stages, the first with carriers: others are for a compiler as these are, and take minutes.
    model = SwinHAT(dict(embed_dims=16, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 4)),
                    out_indices=(0, 1))
    stir(model.eval())
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in ((64, 96), (96, 96), (100, 64), (70, 133)):
            image = torch.randn(2, 3, *size)
            assert_same(compiled(image), model(image), 1e-5)
    assert 1 <= counters['stats']['unique_graphs'] <= 2


def test_ten_sizes_train_in_at_most_two_graphs(tiny_arch):
    model = FasterViT(dict(tiny_arch, layer_scale=0.5, propagate_carriers=True,
                           drop_path_rate=0.2))
    operators = []

    def keep(graph, inputs):
        operators.append({str(node.target) for node in graph.graph.nodes})
        return make_boxed_func(graph.forward)
    compiled = torch.compile(model, fullgraph=True, dynamic=True,
                             backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))
    for size in SIZES:
        sum(m.square().mean() for m in compiled(torch.randn(2, 3, *size))).backward()
    assert 1 <= counters['stats']['unique_graphs'] <= 2 and len(operators) >= 2
    # The gradient of an index is added up by atomics: of padding, crops and carriers there is
    # none. Those of the bias tables stay, in float32.
    assert not any('index_put' in name or 'scatter' in name for names in operators
                   for name in names)


@pytest.mark.long
def test_recomputing_and_compiling_go_together(tiny_arch):
    """The same gradients, and BatchNorm's statistics move once."""
    arch = dict(tiny_arch, layer_scale=0.5, propagate_carriers=True)
    models = [FasterViT(arch, with_cp=with_cp) for with_cp in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    image = torch.randn(2, 3, 230, 333)
    networks = [models[0], torch.compile(models[1], backend='aot_eager', fullgraph=True)]
    for network in networks:
        sum(m.square().mean() for m in network(image)).backward()
    scale = max(p.grad.abs().max() for p in models[0].parameters())
    for plain, recomputed in zip(*(m.parameters() for m in models)):
        assert (plain.grad - recomputed.grad).abs().max() < 1e-5 * scale
    for plain, recomputed in zip(*(m.buffers() for m in models)):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.long
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


@pytest.mark.long
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


def test_weights_are_cast_once_when_deployed(tiny_arch):
    """Under autocast, with Module.compile: a graph that holds no cast of a weight."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = FasterViT(tiny_arch)
    stir(model)
    model.eval().switch_to_deploy()
    image = torch.randn(2, 3, 96, 160)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        expected = model(image)
        fresh = copy.deepcopy(model)  # copies start with nothing kept
        fresh.compile(backend=keep, fullgraph=True)
        assert_same(fresh(image), expected, 1e-2)
    (graph, ) = graphs
    weights = [node.meta['example_value'] for node in graph.graph.nodes
               if node.op == 'placeholder'][1:]
    # Position terms are computed in float32 (512 hidden units), also without autocast.
    assert {w.dtype for w in weights if w.ndim > 1 and 512 not in w.shape} == {torch.bfloat16}
