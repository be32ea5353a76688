"""Position terms: where tokens are, their values, and what a deployed network keeps of them."""
import copy
import gc
import pickle
import weakref

import pytest
import torch

from fastervit_mm import FasterViT
from fastervit_mm.backbone import keeping, positions
from fastervit_mm.backbone.keeping import Kept
from fastervit_mm.backbone.positions import AbsolutePosition, Places, RelativePositionBias
from tests.conftest import TINY

CPU = torch.device('cpu')
CELLS = Places((3, 5), 1)  # one window of 3 x 5 cells
IMAGE = torch.rand(1, 3, 96, 200)


def term(kind, places, width=2):
    with torch.no_grad():
        return kind(width)(places.filled(CPU), torch.float)


def test_coordinates_run_from_the_middle_of_the_grid():
    row, column = Places((4, 7), 1).filled(CPU).coordinates.view(4, 7, 2).unbind(-1)
    assert row[:, 0].tolist() == [-1, -0.5, 0, 0.5] and (row == row[:, :1]).all()
    torch.testing.assert_close(column[0], torch.arange(-3, 4) / 3)


def test_offsets_are_on_the_scale_of_swin_v2():
    offsets = CELLS.filled(CPU).offsets.view(5, 9, 2)
    # 4 of 4 cells: t = 8, log2(9) / 3; 1 of 2 cells: t = 4, log2(5) / 3.
    torch.testing.assert_close(offsets[0, -1, 1], torch.log2(torch.tensor(9.)) / 3)
    torch.testing.assert_close(offsets[1, 0, 0], -torch.log2(torch.tensor(5.)) / 3)
    assert not offsets[2, 4].any() and torch.equal(offsets, -offsets.flip(0, 1))


def test_relative_bias_depends_on_the_offset_alone():
    bias = term(RelativePositionBias, CELLS)
    assert bias.shape == (2, 15, 15)
    bias = bias.view(2, 3, 5, 3, 5)
    torch.testing.assert_close(bias[:, 1, 1, 0, 2], bias[:, 2, 3, 1, 4])
    assert not torch.allclose(bias[:, 1, 1, 0, 2], bias[:, 0, 2, 1, 1])
    assert 0 < bias.min() and bias.max() < 16


@pytest.mark.parametrize('kind', [AbsolutePosition, RelativePositionBias])
def test_windows_do_not_change_a_token_s_terms_but_their_order(kind):
    """2 x 3 windows of 2 x 2 tokens and one raster of 4 x 6: the same grid."""
    module = kind(2)
    with torch.no_grad():
        windows, raster = (module(Places(*places).filled(CPU), torch.float)
                           for places in (((2, 3), 2), ((4, 6), 1)))
    order = torch.arange(24).view(2, 2, 3, 2).transpose(1, 2).flatten()
    if kind is AbsolutePosition:
        assert torch.equal(windows, raster[order])
    else:
        assert torch.equal(windows, raster[:, order][:, :, order])


def test_carriers_that_ride_along_have_no_bias():
    bias = term(RelativePositionBias, Places((3, 3), 1, num_prefix=4))
    assert bias.shape == (2, 13, 13) and bias.stride()[1:] == (16, 1)  # rows are aligned
    assert not bias[:, :4].any() and not bias[:, :, :4].any() and bias[:, 4:, 4:].all()


@pytest.mark.parametrize('grid', [(1, 1), (1, 6), (6, 1)])
@pytest.mark.parametrize('kind', [AbsolutePosition, RelativePositionBias])
def test_an_axis_of_one_cell_divides_by_nothing(kind, grid):
    assert term(kind, Places(grid, 1)).isfinite().all()


def test_sixteen_bits_do_not_blur_coordinates():
    module = AbsolutePosition(8)
    expected = module(Places((300, 1), 1).filled(CPU), torch.float)
    rounded = module.bfloat16()(Places((300, 1), 1).filled(CPU), torch.float)
    assert len(rounded.unique(dim=0)) == 300
    torch.testing.assert_close(rounded, expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize('event', ['in_place', 'data', 'load_state_dict'])
def test_changed_weights_are_seen_at_once(event):
    model = FasterViT(TINY).eval()
    other = FasterViT(TINY).eval()
    with torch.no_grad():
        model(IMAGE)
        if event == 'load_state_dict':
            model.load_state_dict(other.state_dict())
        for parameter, source in zip(model.parameters(), other.parameters()):
            if event == 'in_place':
                parameter.copy_(source)
            elif event == 'data':
                parameter.data.copy_(source)
        for got, expected in zip(model(IMAGE), other(IMAGE)):
            assert torch.equal(got, expected)


def test_gradients_reach_the_mlps():
    model = FasterViT(TINY).eval()
    sum(o.square().mean() for o in model(IMAGE)).backward()
    firsts = [p for n, p in model.named_parameters() if 'position' in n and 'fc1.weight' in n]
    assert len(firsts) == 2 * (2 + 2 + 1) and all(p.grad.abs().sum() > 0 for p in firsts)


@pytest.fixture
def deployed():
    return FasterViT(TINY).eval().switch_to_deploy()


@pytest.fixture
def computed(monkeypatch):
    """Which position MLPs are run, each time that some are."""
    counts, original = [], positions._features
    monkeypatch.setattr(positions, '_features',
                        lambda terms, pairs: counts.append(terms) or original(terms, pairs))
    return counts


@torch.no_grad()
def test_deployed_terms_are_computed_once_for_an_image_size(deployed, computed):
    expected = deployed(IMAGE)
    # The carriers' two, of both blocks at once; windows' are constants.
    assert [len(terms) for terms in computed] == [2, 2]
    computed.clear()
    for got, before in zip(deployed(IMAGE), expected):
        assert torch.equal(got, before)
    assert computed == []
    deployed(torch.rand(1, 3, 200, 64))
    assert len(computed) == 2
    for got, before in zip(deployed(IMAGE), expected):
        assert torch.equal(got, before)


def kept_tensors(value):
    """All tensors inside what a Kept keeps."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from kept_tensors(item)


@torch.no_grad()
@pytest.mark.parametrize('deploy', [True, False])
def test_one_size_is_kept_however_many_were_seen(deploy):
    model = FasterViT(TINY).eval()
    if deploy:
        model.switch_to_deploy()

    def kept():
        return sum(t.numel() for m in model.modules() if isinstance(m, Kept)
                   for t in kept_tensors(m._kept))
    model(IMAGE)
    once = kept()
    for side in range(64, 400, 48):
        model(torch.rand(1, 3, side, 64))
    model(IMAGE)
    assert kept() == once > 0


@pytest.fixture
def capturing(monkeypatch):
    """As if kernels were recorded for a CUDA graph while ``capturing.append(True)``."""
    state = []
    monkeypatch.setattr(keeping, 'is_capturing', lambda device: bool(state))
    return state


@torch.no_grad()
@pytest.mark.parametrize('autocast', [False, True])
def test_what_a_cuda_graph_has_read_outlives_other_sizes(deployed, capturing, autocast):
    """Its replays read the same memory, which a second size must not free."""
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        deployed(IMAGE)  # warm
        network = deployed.kept_cast._kept[1] if autocast else deployed
        keepers = [m for m in network.modules() if isinstance(m, Kept) and m._kept]
        read = [t for m in keepers for t in kept_tensors(m._kept)]
        references = [weakref.ref(t) for t in read]
        del read
        capturing.append(True)
        deployed(IMAGE)
        deployed(IMAGE)  # of the same values: held once
        capturing.clear()
        deployed(torch.rand(1, 3, 200, 64))
    gc.collect()
    assert references and all(reference() is not None for reference in references)
    assert all(len(m._captured) == 1 for m in keepers)


@torch.no_grad()
def test_without_a_capture_another_size_frees_the_last_one_s(deployed):
    deployed(IMAGE)
    references = [weakref.ref(t) for m in deployed.modules() if isinstance(m, Kept)
                  for t in kept_tensors(m._kept)]
    deployed(torch.rand(1, 3, 200, 64))
    gc.collect()
    assert references and all(reference() is None for reference in references)


@torch.no_grad()
def test_what_a_capture_computes_first_is_not_kept(deployed, capturing):
    """No kernel has run then; the values are there in replays of that graph alone."""
    expected = deployed(IMAGE)
    deployed(torch.rand(1, 3, 200, 64))
    capturing.append(True)
    for got, before in zip(deployed(IMAGE), expected):
        assert torch.equal(got, before)
    fresh = FasterViT(TINY).eval().switch_to_deploy()
    fresh(IMAGE)
    assert not any(m._kept or m._captured for m in fresh.modules() if isinstance(m, Kept))


def test_a_term_kept_in_inference_mode_serves_gradients_later(deployed):
    with torch.inference_mode():
        deployed(IMAGE)
    image = IMAGE.clone().requires_grad_()
    deployed(image)[-1].sum().backward()
    assert image.grad.abs().sum() > 0


@torch.no_grad()
def test_copies_and_casts_keep_nothing_of_the_original(deployed):
    expected = deployed(IMAGE)
    for copied in (copy.deepcopy(deployed), pickle.loads(pickle.dumps(deployed))):
        assert all(m._kept is None for m in copied.modules() if isinstance(m, Kept))
        for got, before in zip(copied(IMAGE), expected):
            assert torch.equal(got, before)
    for got, before in zip(deployed.double()(IMAGE.double()), expected):
        torch.testing.assert_close(got, before.double(), rtol=1e-4, atol=1e-5)
