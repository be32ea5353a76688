"""The learned bias of a window's cells towards its carriers: what it is, and who has none."""
import copy

import pytest
import timm
import torch

import fastervit_mm  # noqa: F401  (timm's registry)
from fastervit_mm import FasterViT
from fastervit_mm.backbone.positions import Places, RelativePositionBias, with_terms
from fastervit_mm.models import check_complete
from fastervit_mm.weights import CheckpointError, load_backbone
from tests.conftest import TINY, stir

IMAGE = torch.rand(2, 3, 130, 200)
NAME = 'stages.2.blocks.{}.attn.position_bias.carrier_bias'
NAMES = [NAME.format(0), NAME.format(1)]  # of TINY
CELLS = Places((3, 3), 1, num_prefix=4).filled(torch.device('cpu'))


def maps(model, image=IMAGE):
    with torch.no_grad():
        return torch.cat([m.flatten() for m in model.eval()(image)])


def trained(arch=TINY):
    """A network whose carrier biases differ from each other and from any initial value."""
    model = FasterViT(arch)
    stir(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in NAMES:
                parameter.copy_(torch.tensor([3., -2.]) + int(name[16]))
    return model


@torch.no_grad()
def test_it_is_added_for_cells_towards_carriers_alone():
    plain, term = RelativePositionBias(2), RelativePositionBias(2, carrier_bias=8.)
    plain.mlp.load_state_dict(term.mlp.state_dict())
    term.carrier_bias.copy_(torch.tensor([8., 5.]))
    bias, without = (t(CELLS, torch.float) for t in (term, plain))
    assert bias.stride() == without.stride() == (13 * 16, 16, 1)
    expected = without.clone()
    expected[:, 4:, :4] = torch.tensor([8., 5.])[:, None, None]
    assert torch.equal(bias, expected)
    together = with_terms(CELLS, [], [term, term], torch.float, torch.float)
    assert all(torch.equal(places.bias, expected) for places in together)


@torch.no_grad()
def test_at_the_start_a_carrier_is_heard_as_a_cell_is():
    """Logits of the products are small then: all biases are 8, or 8 and 0."""
    for value, share in ((8., 4 / 53), (0., 0.), (None, 0.)):
        bias = FasterViT(dict(TINY, carrier_bias=value)).stages[2].blocks[0].attn.position_bias
        bias.mlp.fc2.weight.zero_()
        places = Places((7, 7), 1, num_prefix=4).filled(torch.device('cpu'))
        weights = bias(places, torch.float).softmax(-1)[:, 4:, :4].sum(-1)
        torch.testing.assert_close(weights, torch.full_like(weights, share), atol=1e-4, rtol=1e-5)


def test_it_is_in_blocks_with_carriers_alone_and_can_be_left_out():
    def found(arch):
        with torch.device('meta'):
            return [n for n, _ in FasterViT(arch).named_parameters() if 'carrier_bias' in n]
    assert found(TINY) == NAMES
    assert len(found(dict(base='0'))) == 6 and not found(dict(base='0', carrier_bias=None))
    with pytest.raises(ValueError, match=r"arch.base='9': give one of \['0', '1'"):
        FasterViT(dict(base='9'))
    assert found(dict(TINY, carrier_bias=None)) == found(dict(TINY, hierarchical=False)) == []
    with pytest.raises(ValueError, match=r"carrier_bias='much': give a number, 'equal'"):
        FasterViT(dict(TINY, carrier_bias='much'))


def test_0_computes_what_none_does_and_each_loads_the_other():
    zero, none = FasterViT(dict(TINY, carrier_bias=0)), FasterViT(dict(TINY, carrier_bias=None))
    none.load_state_dict(zero.state_dict())
    assert torch.equal(maps(none), maps(zero))
    default = FasterViT(TINY)
    default.load_state_dict(none.state_dict())
    assert torch.equal(maps(default), maps(zero))
    with torch.device('meta'):
        empty = FasterViT(TINY)
    empty.load_state_dict(none.state_dict(), assign=True)
    assert torch.equal(maps(empty), maps(zero))
    default.load_state_dict(trained().state_dict())
    assert not torch.allclose(maps(default), maps(zero))
    with pytest.raises(RuntimeError, match='Unexpected.*carrier_bias'):
        none.load_state_dict(trained().state_dict())
    with pytest.raises(RuntimeError, match='Missing.*carrier_bias'):  # a hole, not an old file
        default.load_state_dict({k: v for k, v in none.state_dict().items()
                                 if not k.startswith('stages.2.blocks.0.attn.position_bias')})


def test_gradients_reach_it_in_every_head():
    model = FasterViT(TINY)
    sum(o.square().mean() for o in model(IMAGE)).backward()
    for name in NAMES:
        assert model.get_parameter(name).grad.abs().min() > 0


def test_a_deployed_and_a_bfloat16_network_have_it():
    model = trained()
    expected = maps(model)
    with torch.no_grad():
        for name in NAMES:
            model.get_parameter(name).add_(4)
    assert not torch.allclose(maps(model), expected, rtol=1e-2)
    expected = maps(model)
    deployed = copy.deepcopy(model).eval().switch_to_deploy()
    torch.testing.assert_close(maps(deployed), expected, rtol=1e-4, atol=1e-4)
    half = maps(copy.deepcopy(model).bfloat16(), IMAGE.bfloat16()).float()
    assert (half - expected).norm() < 0.05 * expected.norm()


def test_an_older_file_counts_as_whole_and_gives_0(tmp_path, monkeypatch):
    old = {k: v for k, v in trained(dict(TINY, carrier_bias=None)).state_dict().items()}
    path = str(tmp_path / 'old.pth')
    torch.save(old, path)
    lines = []
    monkeypatch.setattr('fastervit_mm.weights.loading.print_log',
                        lambda line, **kwargs: lines.append(line))
    model = FasterViT(TINY)
    report = load_backbone(model, path)
    assert report.fresh == report.unused == [] and not report.mismatched
    assert lines[-1].endswith(f'loaded from {path}; 2 carrier biases absent, set to 0')
    assert len(report.loaded) == len(model.state_dict()) - 2
    expected = FasterViT(dict(TINY, carrier_bias=None))
    assert load_backbone(expected, path).fresh == []
    assert 'carrier bias' not in lines[-1]
    assert torch.equal(maps(model), maps(expected))
    check_complete(FasterViT(TINY), old, path)

    source = trained()
    torch.save(source.state_dict(), path)
    assert load_backbone(model, path).fresh == [] and 'carrier bias' not in lines[-1]
    assert torch.equal(maps(model), maps(source))
    with pytest.raises(CheckpointError, match='2 tensors of the file have no place.*carrier_bias'):
        load_backbone(expected, path)
    hole = {k: v for k, v in old.items() if not k.startswith('stages.2.blocks.0.attn.position')}
    with pytest.raises(CheckpointError, match='stages.2.blocks.0.attn.position_bias.carrier_bias'):
        check_complete(FasterViT(TINY), hole, path)


def test_timm_s_models_load_an_older_file(tmp_path):
    def create(**kwargs):
        return timm.create_model('fastervit_0', arch=TINY, num_classes=3, **kwargs)
    old = create()
    with torch.no_grad():
        for name in NAMES:
            old.backbone.get_parameter(name).zero_()
    path = str(tmp_path / 'old.pth')
    torch.save({k: v for k, v in old.state_dict().items() if 'carrier_bias' not in k}, path)
    new = create(pretrained=True, pretrained_cfg_overlay=dict(file=path))
    assert torch.equal(new.eval()(IMAGE), old.eval()(IMAGE))
