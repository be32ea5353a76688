"""Position terms: where tokens are, their values, and biases in bands."""
import pytest
import torch

from benchmarks.speed.measure import peak_memory
from fastervit_mm import FasterViT
from fastervit_mm.backbone import attention, positions
from fastervit_mm.backbone.attention import Attention
from fastervit_mm.backbone.positions import (
    BandedBias,
    PositionMLP,
    RelativePositionBias,
    biases,
    grid,
)
from tests.backbone.common import error, gradient_error, gradients, maps, stirred
from tests.conftest import TINY

CPU = torch.device('cpu')


@torch.no_grad()
def bias(h, w, size=1, heads=2, carrier_bias=None, carriers=0):
    tokens = grid(h, w, size, CPU)
    torch.manual_seed(0)
    term = RelativePositionBias(1, heads)
    return biases(term(tokens.offsets), tokens.codes, torch.float, carrier_bias, carriers)[0]


def test_coordinates_run_from_the_middle_of_the_grid():
    row, column = grid(4, 7, 1, CPU).coordinates.view(4, 7, 2).unbind(-1)
    assert row[:, 0].tolist() == [-1, -0.5, 0, 0.5] and (row == row[:, :1]).all()
    torch.testing.assert_close(column[0], torch.arange(-3, 4) / 3)


def test_offsets_are_on_the_scale_of_swin_v2():
    offsets = grid(3, 5, 1, CPU).offsets.view(5, 9, 2)
    # 4 of 4 cells: t = 8, log2(9) / 3; 1 of 2 cells: t = 4, log2(5) / 3.
    torch.testing.assert_close(offsets[0, -1, 1], torch.log2(torch.tensor(9.)) / 3)
    torch.testing.assert_close(offsets[1, 0, 0], -torch.log2(torch.tensor(5.)) / 3)
    assert not offsets[2, 4].any() and torch.equal(offsets, -offsets.flip(0, 1))


def test_a_bias_depends_on_the_offset_alone():
    found = bias(3, 5).view(2, 3, 5, 3, 5)
    torch.testing.assert_close(found[:, 1, 1, 0, 2], found[:, 2, 3, 1, 4])
    assert not torch.allclose(found[:, 1, 1, 0, 2], found[:, 0, 2, 1, 1])
    assert 0 < found.min() and found.max() < 16


def test_windows_change_the_order_of_terms_alone():
    """2 x 3 windows of 2 x 2 tokens and one raster of 4 x 6: the same grid."""
    order = torch.arange(24).view(2, 2, 3, 2).transpose(1, 2).flatten()
    assert torch.equal(grid(4, 6, 2, CPU).coordinates, grid(4, 6, 1, CPU).coordinates[order])
    assert torch.equal(bias(4, 6, 2), bias(4, 6)[:, order][:, :, order])


def test_each_block_has_its_own_terms():
    """Computed for the whole stage at once or for one block: the same."""
    together, pairs = PositionMLP(3, 4), torch.randn(10, 2)
    for i, found in enumerate(together(pairs)):
        alone = PositionMLP(1, 4)
        alone.load_state_dict({k: v[i:i + 1] for k, v in together.state_dict().items()})
        torch.testing.assert_close(found, alone(pairs)[0])


@pytest.mark.parametrize('size', [(1, 1), (1, 6), (6, 1)], ids=str)
def test_an_axis_of_one_cell_is_finite(size):
    tokens = grid(*size, 1, CPU)
    assert tokens.coordinates.isfinite().all() and tokens.offsets.isfinite().all()
    assert bias(*size).isfinite().all()


@pytest.mark.parametrize('autocast', [False, True])
def test_16_bits_tell_neighbours_apart(autocast):
    module, pairs = PositionMLP(1, 8), grid(300, 1, 1, CPU).coordinates
    expected = module(pairs)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        rounded = (module if autocast else module.bfloat16())(pairs)[0]
    assert len(rounded.unique(dim=0)) == 300
    torch.testing.assert_close(rounded[None], expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize('cells, carriers', [(9, 4), (49, 4), (49, 0), (49, 1)])
def test_rows_of_a_window_s_bias_are_aligned_in_memory(cells, carriers):
    """53 tokens in rows of 56: fused GPU kernels take them without a copy."""
    side = int(cells**0.5)
    found = bias(side, side, side, carrier_bias=torch.zeros(1, 2, 1, 1), carriers=carriers)
    width = carriers + cells
    assert found.shape == (2, width, width) and found.stride()[1:] == (-width % 8 + width, 1)


def test_changed_weights_are_seen_at_once():
    model, other = (stirred(FasterViT(TINY)) for _ in range(2))
    image = torch.rand(1, 3, 96, 200)
    assert not torch.equal(maps(model, image)[3], maps(other, image)[3])
    for parameter, source in zip(model.parameters(), other.parameters()):
        parameter.data.copy_(source)
    assert all(map(torch.equal, maps(model, image), maps(other, image)))


def test_gradients_reach_the_mlps_of_every_block():
    found = gradients(FasterViT(TINY), torch.rand(2, 3, 96, 200))
    firsts = [g for name, g in found.items() if 'position' in name and name.endswith('weight1')]
    assert len(firsts) == 4 + 2
    assert all(gradient.abs().sum((1, 2)).min() > 0 for gradient in firsts)  # of each block


# Carriers of 4 x 6 windows, then windows without carriers.
@pytest.mark.parametrize('arch, size, tokens, bands', [
    (TINY, (448, 672), 95, (128, 72, 48, 5)),
    (dict(TINY, hierarchical=False), (160, 224), 48, (14,))], ids=['carriers', 'windows'])
def test_bands_equal_the_bias_of_all_pairs(arch, size, tokens, bands, monkeypatch):
    model, image = stirred(FasterViT(arch)), torch.randn(1, 3, *size)
    expected, slopes = maps(model, image), gradients(model, image)
    monkeypatch.setattr(positions, '_DENSE_TOKENS', tokens)
    for queries in bands:  # all at once; several rows of windows, with a rest; few
        monkeypatch.setattr(attention, '_BAND', queries)
        assert error(maps(model, image), expected) < 1e-5
    assert gradient_error(gradients(model, image), slopes) < 1e-5
    assert error(maps(model.switch_to_deploy(), image), expected) < 1e-4


@torch.no_grad()
def test_bands_never_hold_the_bias_of_all_pairs(monkeypatch):
    """Peak memory, counted allocation by allocation."""
    tokens, term = grid(48, 40, 2, CPU), RelativePositionBias(1, 4)
    layer, x, tables = Attention(16, 4), torch.randn(1, 48 * 40, 16), term(tokens.offsets)

    def peak(kind):
        def step():
            found, = biases(tables, tokens.codes, torch.float)
            assert isinstance(found, kind)
            layer(x, found)
        return peak_memory(step, CPU)
    banded = peak(BandedBias)
    monkeypatch.setattr(positions, '_DENSE_TOKENS', 10**6)
    all_pairs = 4 * 4 * (48 * 40)**2  # heads x bytes x pairs
    assert peak(torch.Tensor) > all_pairs > 5 * banded
