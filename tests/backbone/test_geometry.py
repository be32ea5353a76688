"""Any shape of image: what no wrong layout of windows and carriers passes."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastervit_mm import FasterViT
from fastervit_mm.backbone.carriers import pooling_matrix, raster_to_windows, windows_to_raster
from fastervit_mm.backbone.positions import PositionTerm
from tests.conftest import TINY, stir


def transposed(model: FasterViT) -> FasterViT:
    """The model that sees rows as columns: kernels transposed, coordinates swapped."""
    twin = FasterViT(model.arch, out_norm=None).eval()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(module.weight.transpose(2, 3).clone())
            elif isinstance(module, PositionTerm):
                module.mlp.fc1.weight.copy_(module.mlp.fc1.weight.flip(1).clone())
    return twin


def transposed_error(model, height, width):
    image = torch.randn(2, 3, height, width)
    with torch.no_grad():
        outs = model(image)
        twins = transposed(model)(image.transpose(2, 3).contiguous())
    return max(((o - t.transpose(2, 3)).abs().max() / o.abs().max()).item()
               for o, t in zip(outs, twins))


ARCHS = {'propagating': dict(TINY, layer_scale=0.5, propagate_carriers=True),
         'three carriers': dict(TINY, ct_size=3), 'plain windows': dict(TINY, hierarchical=False)}


# Multiples of 7 x 32: no padding anywhere, so the equality is exact up to rounding.
@pytest.mark.parametrize('arch', ARCHS)
@pytest.mark.parametrize('height, width', [(224, 448), (672, 224), (448, 672), (224, 224)])
def test_non_square_input_transposes_with_its_weights(arch, height, width):
    model = FasterViT(ARCHS[arch], out_norm=None).eval()
    stir(model)
    assert transposed_error(model, height, width) < 1e-5


def test_published_variant_transposes_with_its_weights():
    model = FasterViT('0', out_norm=None).eval()
    stir(model)
    assert transposed_error(model, 224, 448) < 1e-5


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 4), width=st.integers(1, 4))
def test_every_grid_of_windows_transposes(height, width):
    model = FasterViT(ARCHS['propagating'], out_norm=None).eval()
    stir(model)
    assert transposed_error(model, 224 * height, 224 * width) < 1e-5


def test_the_transpose_test_notices_swapped_carriers(monkeypatch):
    """The fault of the authors' any-resolution code, planted: the test above must see it."""
    from fastervit_mm.backbone import attention

    def swapped(x, windows, size):
        return raster_to_windows(x, windows[::-1], size)

    model = FasterViT(ARCHS['propagating'], out_norm=None).eval()
    stir(model)
    monkeypatch.setattr(attention, 'raster_to_windows', swapped)
    assert transposed_error(model, 448, 672) > 1e-3


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), size=st.integers(1, 4))
def test_window_order_returns_to_raster_order(rows, columns, size):
    x = torch.arange(rows * columns * size**2, dtype=torch.float).view(1, -1, 1)
    windows = raster_to_windows(x, (rows, columns), size)
    assert torch.equal(windows_to_raster(windows, (rows, columns), size), x)
    # The first window holds the top left corner, row by row.
    grid = x.view(rows * size, columns * size)
    assert torch.equal(windows[0, 0, :, 0], grid[:size, :size].flatten())
    assert torch.equal(windows[0, -1, :, 0], grid[-size:, -size:].flatten())


def test_pooling_is_the_authors_on_the_pretraining_grid():
    x = torch.randn(1, 1, 14, 14, dtype=torch.double)
    matrix = pooling_matrix(14, 4, 5, x)
    expected = torch.nn.functional.avg_pool2d(x, 5, stride=3)
    torch.testing.assert_close(matrix @ x @ matrix.t(), expected)


@given(windows=st.integers(1, 60), ct_size=st.integers(2, 3))
def test_carriers_stay_at_their_own_place(windows, ct_size):
    """Each pools cells around its place in its window, within about one cell."""
    cells, pooled, kernel = windows * 7, windows * ct_size, {2: 5, 3: 4}[ct_size]
    matrix = pooling_matrix(cells, pooled, kernel, torch.zeros(1, dtype=torch.double))
    torch.testing.assert_close(matrix.sum(1), torch.ones(pooled, dtype=torch.double))
    centre = (matrix * (torch.arange(cells) + 0.5)).sum(1)
    place = (torch.arange(pooled) + 0.5) * 7 / ct_size
    assert (centre - place).abs().max() <= 1.5
    own_window = torch.arange(pooled) // ct_size
    assert ((centre >= 7 * own_window) & (centre <= 7 * (own_window + 1))).all()
