"""Images of any shape: tests that every wrong layout of windows and carriers fails."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastervit_mm import FasterViT, HATStage, SwinHAT
from fastervit_mm.backbone import carriers, windows
from fastervit_mm.backbone.carriers import CarrierInitialiser, nearest, places
from fastervit_mm.backbone.positions import grid
from fastervit_mm.backbone.windows import pad, partition, unpartition
from tests.backbone.common import ARCHS, error, maps, stirred, transposed_error
from tests.conftest import TINY

SWIN = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 4))


# Multiples of 7 x 32: no padding anywhere, so the equality is exact up to rounding.
@pytest.mark.parametrize('arch', ARCHS)
@pytest.mark.parametrize('size', [(224, 448), (672, 224), (448, 672), (224, 224)], ids=str)
def test_a_transposed_image_has_transposed_maps(arch, size):
    model = stirred(FasterViT(ARCHS[arch], out_norm=None))
    assert transposed_error(model, torch.randn(2, 3, *size)) < 1e-5


@pytest.mark.parametrize('model, size', [
    (lambda: FasterViT('0', out_norm=None), (224, 448)),
    (lambda: SwinHAT(SWIN), (224, 448)),
    # Zeros at the end of both axes, with padding inside windows too.
    (lambda: FasterViT(ARCHS['propagating'], pad_conv_stages=7), (129, 181)),
    (lambda: SwinHAT(SWIN, ct_size=2), (131, 333))],
    ids=['0', 'SwinHAT', 'padded', 'SwinHAT padded'])
def test_other_networks_have_transposed_maps(model, size):
    assert transposed_error(stirred(model()), torch.randn(2, 3, *size)) < 1e-5


@settings(deadline=None, max_examples=12)
@given(height=st.integers(1, 30), width=st.integers(1, 30), propagate=st.booleans())
def test_a_stage_of_any_size_has_a_transposed_map(height, width, propagate):
    stage = stirred(HATStage(16, 2, 2, window_size=4, propagate_carriers=propagate))
    assert transposed_error(stage, torch.randn(2, 16, height, width)) < 1e-5


def swapped_carriers(x, size):
    """The fault of the authors' any-resolution code."""
    B, h, w, C = x.shape
    right = partition(x, size)
    return partition(x.reshape(B, w, h, C), size).view(right.shape) if size == 2 else right


def rows_alone(x, size):
    return torch.nn.functional.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % size))


def in_raster_order(h, w, size, device):
    """Coordinates in raster order, so wrong ones: carriers are in window order."""
    right = grid(h, w, size, device)
    return right._replace(coordinates=grid(h, w, 1, device).coordinates)


def transposed_codes(h, w, size, device):
    right = grid(h, w, size, device)
    return right._replace(codes=grid(w, h, size, device).codes)


@pytest.mark.parametrize('module, name, fault', [
    (windows, 'partition', swapped_carriers), (windows, 'pad', rows_alone),
    (carriers, 'grid', in_raster_order), (carriers, 'grid', transposed_codes)],
    ids=lambda value: getattr(value, '__name__', value))
def test_the_transposed_network_shows_a_planted_fault(monkeypatch, module, name, fault):
    """The tests above would notice it."""
    settings = dict(pad_conv_stages=7) if fault is rows_alone else {}
    arch = dict(TINY, window_size=(1, 1), ct_size=1) if settings else ARCHS['propagating']
    model = stirred(FasterViT(arch, out_norm=None, **settings))
    image = torch.randn(1, 3, 129, 181) if settings else torch.randn(1, 3, 448, 672)
    right = maps(model, image)
    assert transposed_error(model, image) < 1e-5
    monkeypatch.setattr(module, name, fault)
    assert transposed_error(model, image) > 1e-3 and error(maps(model, image), right) > 1e-3


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), size=st.integers(1, 4))
def test_windows_are_put_together_as_they_were_cut(rows, columns, size):
    x = torch.arange(rows * columns * size**2, dtype=torch.float)
    x = x.view(1, rows * size, columns * size, 1)
    cells = partition(x, size)
    assert cells.shape == (1, rows, columns, size**2, 1)
    assert torch.equal(unpartition(cells, size, *x.shape[1:3]), x)
    # The first window holds the top left corner, row by row.
    assert torch.equal(cells[0, 0, 0, :, 0], x[0, :size, :size, 0].flatten())
    assert torch.equal(cells[0, -1, -1, :, 0], x[0, -size:, -size:, 0].flatten())
    # Codes and coordinates name the same tokens in the same order.
    tokens = grid(*x.shape[1:3], size, x.device)
    places = torch.stack(torch.meshgrid(*map(torch.arange, x.shape[1:3]), indexing='ij'), -1)
    row, column = partition(places[None], size).flatten(0, 3).unbind(-1)
    assert torch.equal(x[0, row, column, 0], cells.flatten())
    width = x.shape[2]
    assert torch.equal(tokens.codes, row * (2 * width - 1) + column)
    for axis, (index, count) in enumerate(zip((row, column), x.shape[1:3])):
        torch.testing.assert_close(tokens.coordinates[:, axis],
                                   (index - count // 2) / max(count // 2, 1))


@given(height=st.integers(1, 20), width=st.integers(1, 20), size=st.integers(1, 7))
def test_padding_is_of_zeros_and_is_cropped_again(height, width, size):
    x = torch.randint(1, 9, (2, height, width, 3)).float()
    padded = pad(x, size)
    assert all(n % size == 0 and 0 <= n - m < size
               for n, m in zip(padded.shape[1:3], x.shape[1:3]))
    assert torch.equal(padded[:, :height, :width], x) and padded.sum() == x.sum()
    again = unpartition(partition(padded, size), size, height, width)
    assert torch.equal(again, x) and again.is_contiguous()


def test_carriers_of_the_pretraining_grid_are_the_authors():
    x = torch.randn(1, 14, 14, 3, dtype=torch.double)
    carriers = CarrierInitialiser(3, 7, 2).double()
    expected = torch.nn.functional.avg_pool2d(carriers.conv(x.permute(0, 3, 1, 2)), 5, stride=3)
    torch.testing.assert_close(unpartition(carriers(x)[0], 2, 4, 4), expected.permute(0, 2, 3, 1))


@given(windows=st.integers(1, 60), ct_size=st.integers(1, 3), window_size=st.integers(3, 9))
def test_carriers_stay_at_their_own_place(windows, ct_size, window_size):
    """Each pools cells around its place in its window, within about a cell and a half."""
    made = CarrierInitialiser(1, window_size, ct_size)
    cells, carriers = windows * window_size, windows * ct_size
    begin = places(cells - made.region + 1, carriers, torch.device('cpu'))
    # As documented, in exact arithmetic, halves up.
    last = max(carriers - 1, 1)
    assert begin.tolist() == [(2 * j * (cells - made.region) + last) // (2 * last)
                              for j in range(carriers)]
    assert 0 <= begin[0] and begin[-1] + made.region <= cells
    if window_size == 7:
        centre = begin + made.region / 2
        place = (torch.arange(carriers) + 0.5) * 7 / ct_size
        assert (centre - place).abs().max() <= 1.5
        own_window = torch.arange(carriers) // ct_size
        assert ((centre >= 7 * own_window) & (centre <= 7 * (own_window + 1))).all()


@pytest.mark.parametrize('ct_size, window_size', [(1, 7), (2, 7), (3, 7), (2, 8), (4, 4)])
def test_each_cell_gets_its_nearest_carrier(ct_size, window_size):
    x = torch.randn(2, ct_size**2, 3)
    expected = torch.nn.functional.interpolate(
        x.view(2, ct_size, ct_size, 3).permute(0, 3, 1, 2), size=(window_size,) * 2)
    assert torch.equal(nearest(x, ct_size, window_size), expected.flatten(2).transpose(1, 2))
