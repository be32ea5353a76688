"""Any shape of image: what no wrong layout of windows and carriers passes."""
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastervit_mm import FasterViT
from fastervit_mm.backbone.carriers import CarrierInitialiser
from fastervit_mm.backbone.positions import Places, PositionTerm
from fastervit_mm.backbone.windows import pad, partition, unpartition
from tests.conftest import TINY, stir


def transposed(model: FasterViT) -> FasterViT:
    """The model that sees rows as columns: kernels transposed, coordinates swapped."""
    twin = deepcopy(model)
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


@settings(deadline=None, max_examples=12)
@given(height=st.integers(1, 3), width=st.integers(1, 3))
def test_every_grid_of_windows_transposes(height, width):
    model = FasterViT(ARCHS['propagating'], out_norm=None).eval()
    stir(model)
    assert transposed_error(model, 224 * height, 224 * width) < 1e-5


def test_the_transpose_test_notices_swapped_carriers(monkeypatch):
    """The fault of the authors' any-resolution code, planted: the test above must see it."""
    from fastervit_mm.backbone import carriers, windows

    def swapped(x, size, symbolic):
        B, C, h, w = x.shape
        return partition(x.reshape(B, C, w, h), size)

    model = FasterViT(ARCHS['propagating'], out_norm=None).eval()
    stir(model)
    monkeypatch.setattr(carriers, 'windows', type('Swapped', (), dict(
        vars(windows), partition=staticmethod(swapped))))
    assert transposed_error(model, 448, 672) > 1e-3


def test_the_transpose_test_notices_positions_in_another_order(monkeypatch):
    """Carriers are in window order; coordinates in raster order would be other carriers'."""
    def in_raster_order(self, row, column):
        shape = (len(row), len(column))
        return torch.stack((row[:, None].expand(shape), column.expand(shape)), -1).view(-1, 2)

    model = FasterViT(ARCHS['propagating'], out_norm=None).eval()
    stir(model)
    with torch.no_grad():
        right = model(torch.ones(1, 3, 448, 672).cumsum(2))
        monkeypatch.setattr(Places, '_in_window_order', in_raster_order)
        wrong = deepcopy(model)(torch.ones(1, 3, 448, 672).cumsum(2))
    assert torch.equal(right[1], wrong[1]) and not torch.allclose(right[2], wrong[2], atol=1e-3)
    assert transposed_error(model, 448, 672) > 1e-3


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), size=st.integers(1, 4))
def test_windows_are_put_together_as_they_were_cut(rows, columns, size):
    x = torch.arange(rows * columns * size**2, dtype=torch.float)
    x = x.view(1, 1, rows * size, columns * size)
    cells, windows = partition(x, size)
    assert windows == (rows, columns) and cells.shape == (1, rows * columns, size**2, 1)
    assert torch.equal(unpartition(cells, windows, size, x.shape[2:]), x)
    # The first window holds the top left corner, row by row.
    assert torch.equal(cells[0, 0, :, 0], x[0, 0, :size, :size].flatten())
    assert torch.equal(cells[0, -1, :, 0], x[0, 0, -size:, -size:].flatten())
    # Places name the same tokens in the same order.
    row, column = Places(windows, size)._in_window_order(
        torch.arange(rows * size), torch.arange(columns * size)).unbind(-1)
    assert torch.equal(x[0, 0, row, column], cells.flatten())


@given(height=st.integers(1, 20), width=st.integers(1, 20), size=st.integers(1, 7))
def test_padding_is_of_zeros_and_is_cropped_again(height, width, size):
    x = torch.randint(1, 9, (2, 3, height, width)).float()
    padded = pad(x, size)
    assert all(n % size == 0 and 0 <= n - m < size for n, m in zip(padded.shape[2:], x.shape[2:]))
    assert torch.equal(padded[:, :, :height, :width], x) and padded.sum() == x.sum()
    assert torch.equal(pad(x, size, symbolic=True), padded)  # as a compiled graph has it
    for symbolic in (False, True):
        cells, windows = partition(padded, size)
        again = unpartition(cells, windows, size, (height, width), symbolic)
        assert torch.equal(again, x)
        assert again.is_contiguous(memory_format=torch.channels_last)


def pooling_matrix(window_size, ct_size, cells):
    like = torch.zeros(1, dtype=torch.double)
    return CarrierInitialiser(1, window_size, ct_size).pooling_matrix(cells, like)


def test_pooling_is_the_authors_on_the_pretraining_grid():
    x = torch.randn(1, 1, 14, 14, dtype=torch.double)
    matrix = pooling_matrix(7, 2, 14)
    expected = torch.nn.functional.avg_pool2d(x, 5, stride=3)
    torch.testing.assert_close(matrix @ x @ matrix.t(), expected)


@given(windows=st.integers(1, 60), ct_size=st.integers(2, 3))
def test_carriers_stay_at_their_own_place(windows, ct_size):
    """Each pools cells around its place in its window, within about one cell."""
    cells, pooled = windows * 7, windows * ct_size
    matrix = pooling_matrix(7, ct_size, cells)
    torch.testing.assert_close(matrix.sum(1), torch.ones(pooled, dtype=torch.double))
    assert ((matrix > 0).sum(1) == {2: 5, 3: 4}[ct_size]).all()
    centre = (matrix * (torch.arange(cells) + 0.5)).sum(1)
    place = (torch.arange(pooled) + 0.5) * 7 / ct_size
    assert (centre - place).abs().max() <= 1.5
    own_window = torch.arange(pooled) // ct_size
    assert ((centre >= 7 * own_window) & (centre <= 7 * (own_window + 1))).all()
