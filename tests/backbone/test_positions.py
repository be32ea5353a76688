"""Position terms: their values, and when they are computed anew."""
import copy
import pickle

import pytest
import torch
from mmengine.model import ExponentialMovingAverage

from fastervit_mm import FasterViT
from fastervit_mm.backbone.positions import AbsolutePosition, PositionTerm, RelativePositionBias
from tests.conftest import TINY


@pytest.fixture
def evaluations(monkeypatch):
    """Counts how often a position MLP is run."""
    counts = []
    original = PositionTerm.coordinates_to_features
    monkeypatch.setattr(PositionTerm, 'coordinates_to_features',
                        lambda self, *a: counts.append(self) or original(self, *a))
    return counts


IMAGE = torch.rand(1, 3, 96, 200)


@pytest.fixture
def model():
    model = FasterViT(TINY).eval()
    with torch.no_grad():
        model(IMAGE)
    return model


def fresh_outputs(model, image=IMAGE):
    """What a new model with the same weights, that never kept a term, gives."""
    other = FasterViT(TINY)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        return other.eval().to(next(model.parameters()).dtype)(
            image.to(next(model.parameters()).dtype))


def assert_correct(model):
    with torch.no_grad():
        for got, expected in zip(model(IMAGE.to(next(model.parameters()).dtype)),
                                 fresh_outputs(model)):
            torch.testing.assert_close(got, expected)


def change(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def test_terms_are_kept_while_nothing_changes(model, evaluations):
    with torch.no_grad():
        model(IMAGE)
    assert evaluations == []


def test_inference_mode_keeps_terms_and_gives_the_same(model, evaluations):
    with torch.inference_mode():
        first = model(IMAGE)
        evaluations.clear()
        second = model(IMAGE)
    assert evaluations == []
    torch.testing.assert_close(first, second)


def test_another_size_is_computed_anew_and_correct(model):
    with torch.no_grad():
        other = torch.rand(1, 3, 200, 64)
        for got, expected in zip(model(other), fresh_outputs(model, other)):
            torch.testing.assert_close(got, expected)
    assert_correct(model)


def test_one_term_is_kept_however_many_sizes_were_seen(model):
    with torch.no_grad():
        for side in range(64, 400, 48):
            model(torch.rand(1, 3, side, 64))
    kept = [m._kept for m in model.modules() if isinstance(m, PositionTerm)]
    assert all(len(k) == 2 and isinstance(k[1], torch.Tensor) for k in kept)


@pytest.mark.parametrize('event', ['in_place', 'optimizer', 'load_state_dict', 'new_data'])
def test_changed_weights_are_seen(model, event):
    if event == 'in_place':
        change(model)
    elif event == 'optimizer':
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        sum(o.square().mean() for o in model(IMAGE)).backward()  # still in eval mode
        optimizer.step()
    elif event == 'load_state_dict':
        other = FasterViT(TINY)
        change(other)
        model.load_state_dict(other.state_dict())
    else:
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.1
    assert_correct(model)


@pytest.mark.parametrize('switch', ['train_eval', 'eval'])
def test_a_write_through_data_is_seen_after_a_mode_switch(model, switch):
    for parameter in model.parameters():  # as mmengine's EMAHook swaps weights
        parameter.data.add_(0.1)
    if switch == 'train_eval':
        model.train()
    model.eval()
    assert_correct(model)


def test_another_type_is_seen(model):
    model.double()
    assert_correct(model)
    model.float()
    assert_correct(model)


def test_copies_keep_nothing_of_the_original(model):
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(m._kept is None for m in copied.modules() if isinstance(m, PositionTerm))
        change(copied)
        assert_correct(copied)
    assert_correct(model)


def test_moving_averages_are_seen_at_every_update(model):
    average = ExponentialMovingAverage(model, momentum=0.5)
    average.eval()
    for _ in range(3):
        change(model)
        average.update_parameters(model)
        assert_correct(average.module)


def test_gradients_reach_the_mlps_in_eval_mode(model):
    sum(o.square().mean() for o in model(IMAGE)).backward()
    assert all(m.mlp.fc1.weight.grad.abs().sum() > 0 for m in model.modules()
               if isinstance(m, PositionTerm))


def test_gradients_reach_the_input_after_terms_were_kept(model):
    image = IMAGE.clone().requires_grad_()
    model(image)[-1].sum().backward()
    assert image.grad.abs().sum() > 0


def test_absolute_coordinates(monkeypatch):
    seen = {}
    monkeypatch.setattr(AbsolutePosition, 'coordinates_to_features',
                        lambda self, rows, columns: seen.update(rows=rows, columns=columns)
                        or torch.zeros(len(rows), len(columns), 4))
    AbsolutePosition(4)((4, 7), torch.float)
    assert seen['rows'].tolist() == [-1, -0.5, 0, 0.5]
    torch.testing.assert_close(seen['columns'], torch.arange(-3, 4) / 3)


def test_relative_bias_depends_on_the_offset_alone():
    h, w = 3, 5
    bias = RelativePositionBias(2)((h, w), torch.float)
    assert bias.shape == (2, 15, 15)
    bias = bias.view(2, h, w, h, w)
    torch.testing.assert_close(bias[:, 1, 1, 0, 2], bias[:, 2, 3, 1, 4])
    assert not torch.allclose(bias[:, 1, 1, 0, 2], bias[:, 0, 2, 1, 1])
    assert 0 < bias.min() and bias.max() < 16


def test_carriers_in_front_have_no_bias():
    bias = RelativePositionBias(2)((3, 3), torch.float, 4)
    assert bias.shape == (2, 13, 13)
    assert not bias[:, :4].any() and not bias[:, :, :4].any() and bias[:, 4:, 4:].all()


@pytest.mark.parametrize('grid', [(1, 1), (1, 6), (6, 1)])
def test_an_axis_of_one_cell_divides_by_nothing(grid):
    assert RelativePositionBias(2)(grid, torch.float).isfinite().all()
    assert AbsolutePosition(4)(grid, torch.float).isfinite().all()
