"""HATStage as a module by itself."""
import copy

import pytest
import torch

from fastervit_mm import HATStage
from tests.backbone.common import error, gradient_error, gradients, maps, stirred

CHOICES = {
    'as in FasterViT': {},
    'windows alone': dict(ct_size=0),
    'one carrier': dict(ct_size=1),
    'drop path': dict(drop_paths=(0.1, 0.2, 0.3)),
    'propagation': dict(propagate_carriers=True, layer_scale=0.5),
}


@pytest.fixture(params=CHOICES.values(), ids=CHOICES)
def stage(request):
    return stirred(HATStage(16, 3, 2, **{'window_size': 4, **request.param}))


def test_a_map_of_any_size_goes_in_and_comes_out(stage):
    """Deployed alike; the images do not see each other."""
    deployed = copy.deepcopy(stage)
    deployed.switch_to_deploy()
    for size in ((1, 1), (8, 12), (9, 13)):
        x = torch.randn(2, 16, *size)
        expected, = maps(stage, x)
        assert expected.shape == x.shape
        assert error(maps(stage, x[:1]), [expected[:1]]) < 1e-5
        assert error(maps(deployed, x), [expected]) < 1e-4


def test_every_parameter_is_trained_recomputed_or_not(stage):
    stage.train()
    x = torch.randn(2, 16, 9, 13)
    expected = gradients(stage, x)
    assert expected.keys() == dict(stage.named_parameters()).keys()
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())
    stage.with_cp = True
    assert gradient_error(gradients(stage, x), expected) < 1e-5


@pytest.mark.parametrize('choice', [dict(ct_size=0), dict(ct_size=1), dict(ct_size=2)], ids=str)
def test_distant_cells_are_seen_only_through_carriers(choice):
    stage = stirred(HATStage(16, 3, 2, window_size=4, **choice))
    x = torch.randn(1, 16, 4, 40)
    changed = x.clone()
    changed[..., 36:] += 5
    same = torch.equal(maps(stage, x)[0][..., :4], maps(stage, changed)[0][..., :4])
    assert same == (choice['ct_size'] == 0)


def test_propagation_adds_the_last_block_s_carriers_to_the_map():
    plain, other = (stirred(HATStage(16, 2, 2, window_size=4, propagate_carriers=propagate))
                    for propagate in (False, True))
    other.load_state_dict(plain.state_dict())
    x, seen = torch.randn(1, 16, 8, 12), []
    other.blocks[1].register_forward_hook(lambda block, args, out: seen.append(out[1]))
    difference = maps(other, x)[0] - maps(plain, x)[0]
    carriers = seen[0].view(1, 2, 3, 2, 2, 16).transpose(2, 3).reshape(1, 4, 6, 16)
    expected = torch.nn.functional.interpolate(carriers.permute(0, 3, 1, 2), scale_factor=2)
    torch.testing.assert_close(difference, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('given, message', [
    (dict(dim=0), 'dim=0: give a whole number of at least 1'),
    (dict(depth=0), 'depth=0: give a whole number'),
    (dict(num_heads=3), 'num_heads=3 must divide dim=16'),
    (dict(window_size=2.5), 'window_size=2.5: give a whole'),
    (dict(ct_size=8), 'ct_size=8: at most window_size=7; 0 for none'),
    (dict(ct_size=-1), 'ct_size=-1: give a whole number'),
    (dict(drop_paths=(0.1,)), r'drop_paths=\(0.1,\): give depth=2 rates'),
    (dict(drop_paths=(0.1, 1)), r'drop_paths=\(0.1, 1\): give depth=2 rates from 0'),
])
def test_an_argument_out_of_range_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        HATStage(**{**dict(dim=16, depth=2, num_heads=2), **given})
