"""pad_conv_stages: stages 1 and 2 on maps that are padded to multiples, at any size."""
import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

from fastervit_mm import FasterViT
from fastervit_mm.backbone import windows
from tests.backbone.test_compile import assert_same
from tests.backbone.test_geometry import ARCHS, transposed_error
from tests.conftest import TINY, stir

# Maps of stage 1 of 33 x 46 to 84 x 56 cells. The last needs no padding, as multiples of 56 pixels.
SIZES = [(129, 181), (230, 157), (177, 333), (255, 131), (319, 239), (336, 224)]


@pytest.fixture
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def build(arch=TINY, pad_conv_stages=7, out_indices=(0, 1, 2, 3)):
    model = FasterViT(arch, out_norm=None, pad_conv_stages=pad_conv_stages,
                      out_indices=out_indices).eval()
    stir(model)
    return model


def relative_errors(got, expected):
    return [((a - b).abs().max() / b.abs().max()).item()
            for a, b in zip(got, expected, strict=True)]


@pytest.mark.usefixtures('_fresh_compiler')
def test_sizes_make_at_most_two_graphs():
    """No size asks for another graph, whether its maps need padding or not.

    Of the stages that pad; test_compile.py has the others.
    """
    model = build(out_indices=(0, 1))
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in SIZES:
            image = torch.randn(2, 3, *size)
            assert_same(compiled(image), model(image), 1e-5)
    assert 1 <= counters['stats']['unique_graphs'] <= 2


@pytest.mark.usefixtures('_fresh_compiler')
def test_after_the_first_dynamic_graph_none_is_made():
    """``torch.compile`` as it is: a graph for the first size, one for all, then no more."""
    model = build(out_indices=(0, 1))
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    with torch.no_grad():
        for number, size in enumerate(SIZES):
            image = torch.randn(2, 3, *size)
            assert_same(compiled(image), model(image), 1e-5)
            assert counters['stats']['unique_graphs'] == min(number + 1, 2)


@pytest.mark.parametrize('height, width', [(224, 448), *SIZES[:3]])
def test_it_transposes_with_its_weights(height, width):
    """With padding too, which is at the end of both axes."""
    model, plain = build(ARCHS['propagating']), build(ARCHS['propagating'], 1)
    plain.load_state_dict(model.state_dict())
    assert transposed_error(model, height, width) < 1e-5
    image = torch.randn(1, 3, height, width)
    with torch.no_grad():
        error = max(relative_errors(model(image), plain(image)))
    assert error < 1e-6 if (height, width) == (224, 448) else error > 1e-2


def test_the_transpose_test_notices_padding_of_one_axis(monkeypatch):
    def rows_alone(x, size, symbolic=False):
        return F.pad(x, (0, 0, 0, -x.shape[2] % size))

    model = build(dict(TINY, window_size=(1, 1), ct_size=1))  # no padding but of these stages
    assert transposed_error(model, 129, 181) < 1e-5
    monkeypatch.setattr(windows, 'pad', rows_alone)
    assert transposed_error(model, 129, 181) > 1e-3
