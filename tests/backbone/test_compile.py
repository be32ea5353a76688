"""torch.compile: no graph break, and no graph for each image size.

AOTAutograd is part of it: tracing operators asks more of sizes than Python does. The compiler's own
code runs in tests/end_to_end/test_ade20k_tiny.py.
"""
import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from fastervit_mm import FasterViT, HATStage, SwinHAT
from tests.backbone.common import error, gradient_error, gradients, maps, stirred
from tests.conftest import TINY, needs_torch

pytestmark = needs_torch(2, 6, 'before, its compiler cannot follow this backbone')

# Shallow: what a compiler takes of a block, it takes of each. Two that hand on carriers.
SHALLOW = dict(TINY, depths=(1, 1, 2, 1), layer_scale=0.5, propagate_carriers=True)
SWIN = dict(embed_dims=16, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 4))

# A graph that is made for a square takes squares alone, and a second one the rest; one that is made
# for another shape takes all.
SIZES = [(256, 320), (256, 256), (320, 230), (230, 333), (448, 448), (480, 256), (600, 401),
         (333, 500), (256, 700), (672, 672)]
SQUARE_FIRST = sorted(SIZES, key=lambda size: size != (256, 256))
# Maps of a stage, as many cells: two that fill windows, then others.
CELLS = [(14, 21), (14, 14), (20, 15), (8, 21), (28, 28), (30, 16)]
# Maps of stage 1 of 33 x 46 to 84 x 56 cells. The last needs no padding, as multiples of 56 pixels.
PADDED = [(129, 181), (230, 157), (177, 333), (255, 131), (319, 239), (336, 224)]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs():
    return counters['stats']['unique_graphs']


def check_sizes(model, sizes, backend='aot_eager'):
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    for size in sizes:
        # Two images: for one, PyTorch's CPU convolution asks whether a map is tiny.
        image = torch.randn(2, 3, *size)
        assert error(maps(compiled, image), maps(model, image)) < 1e-5
    assert 1 <= graphs() <= 2


def check_training(model, sizes, channels=3):
    """Check equal gradients; padding and crops add up nothing by atomics."""
    names = []

    def keep(graph, inputs):
        names.append({str(node.target) for node in graph.graph.nodes})
        return make_boxed_func(graph.forward)
    compiled = torch.compile(model, fullgraph=True, dynamic=True,
                             backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))
    for size in sizes:
        image = torch.randn(2, channels, *size)
        found = gradients(compiled, image)
        found = {name.removeprefix('_orig_mod.'): gradient for name, gradient in found.items()}
        assert gradient_error(found, gradients(model, image)) < 1e-4
    assert 1 <= graphs() <= 2 and len(names) >= 2
    # Atomic adds are left for tables of biases (scatter_add, in float32) and for carriers' places
    # (index_add, nearly all distinct).
    assert not any('index_put' in name or 'scatter' in name and 'scatter_add' not in name
                   for graph in names for name in graph)


def test_a_stage_trains_in_at_most_two_graphs_at_every_size():
    stage = stirred(HATStage(16, 2, 2, propagate_carriers=True, layer_scale=0.5))
    check_training(stage.train(), CELLS, channels=16)


@pytest.mark.parametrize('backend', [
    'eager', pytest.param('aot_eager', marks=pytest.mark.long)])
def test_a_deployed_network_is_at_most_two_graphs_at_every_size(backend):
    model = stirred(FasterViT(dict(SHALLOW, depths=(1, 1, 1, 1)))).switch_to_deploy()
    check_sizes(model, SIZES, backend)


@pytest.mark.long
def test_stages_that_pad_are_at_most_two_graphs_at_every_size():
    """With and without padding."""
    check_sizes(stirred(FasterViT(SHALLOW, pad_conv_stages=7, out_indices=(0, 1))), PADDED)


def test_stages_that_pad_need_no_graph_after_the_first_dynamic_one():
    """With ``torch.compile``'s defaults: a graph for the first size, one for all others."""
    model = stirred(FasterViT(SHALLOW, pad_conv_stages=7, out_indices=(0, 1)))
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    for number, size in enumerate(PADDED):
        image = torch.randn(2, 3, *size)
        assert error(maps(compiled, image), maps(model, image)) < 1e-5
        assert graphs() == min(number + 1, 2)


@pytest.mark.long
def test_a_network_in_evaluation_is_at_most_two_graphs_at_every_size():
    check_sizes(stirred(FasterViT(SHALLOW)), SQUARE_FIRST)


@pytest.mark.long
def test_a_network_trains_in_at_most_two_graphs_at_every_size():
    check_training(FasterViT(SHALLOW), SIZES)


@pytest.mark.long
def test_swin_hat_is_at_most_two_graphs_at_every_size():
    # Two stages, the first with carriers: others are for a compiler as these are.
    check_sizes(stirred(SwinHAT(SWIN, out_indices=(0, 1))),
                ((64, 96), (96, 96), (100, 64), (70, 133)))


@pytest.mark.long
def test_stochastic_depth_is_in_the_graph():
    model = FasterViT(SHALLOW, drop_path_rate=0.5).train()
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    image = torch.randn(2, 3, 64, 96)
    assert not torch.equal(compiled(image)[3], compiled(image)[3])


@pytest.mark.long
def test_recomputing_and_compiling_go_together():
    """The same gradients, and BatchNorm's statistics move once."""
    models = [stirred(FasterViT(SHALLOW, with_cp=with_cp)).train() for with_cp in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    image = torch.randn(2, 3, 230, 333)
    expected = gradients(models[0], image)
    found = gradients(torch.compile(models[1], backend='aot_eager', fullgraph=True), image)
    found = {name.removeprefix('_orig_mod.'): gradient for name, gradient in found.items()}
    assert gradient_error(found, expected) < 1e-5
    for plain, recomputed in zip(*(m.buffers() for m in models)):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.long
def test_a_compiled_graph_sees_changed_weights():
    """Position terms of a network that is not deployed are computed in the graph, not frozen."""
    model = FasterViT(SHALLOW).eval()
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    image = torch.randn(1, 3, 256, 320)
    before = maps(compiled, image)
    torch.nn.init.normal_(model.stages[2].carrier_position_biases.weight2, std=2)
    after = maps(compiled, image)
    assert error(after, maps(model, image)) < 1e-5 and not torch.equal(before[2], after[2])
