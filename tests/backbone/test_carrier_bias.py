"""The learned bias of a window's cells towards its carriers."""
import pytest
import timm
import torch

import fastervit_mm  # noqa: F401  (timm's registry)
from fastervit_mm import FasterViT, HATStage, SwinHAT
from fastervit_mm.backbone.positions import RelativePositionBias, biases, grid
from tests.backbone.common import gradients
from tests.conftest import TINY

IMAGE = torch.rand(2, 3, 130, 200)


@torch.no_grad()
def test_it_is_added_for_cells_towards_carriers_alone():
    tokens = grid(3, 3, 3, torch.device('cpu'))
    tables = RelativePositionBias(2, 3)(tokens.offsets)
    values = torch.randn(2, 3, 1, 1)
    cells = biases(tables, tokens.codes, torch.float)
    for found, plain, value in zip(
            biases(tables, tokens.codes, torch.float, values, 4), cells, values, strict=True):
        assert found.shape == (3, 13, 13) and not found[:, :4].any()
        assert torch.equal(found[:, 4:, 4:], plain)
        assert torch.equal(found[:, 4:, :4], value.expand(3, 9, 4))


@torch.no_grad()
@pytest.mark.parametrize('value, share', [(None, 4 / 53), (8., 4 / 53), (0, 0.)])
def test_initially_a_carrier_weighs_as_much_as_a_cell(value, share):
    """With bias 0 hardly at all. Logits are small initially."""
    arch = TINY if value is None else dict(TINY, carrier_bias=value)
    stage = FasterViT(arch).stages[2]
    stage.position_biases.weight2.zero_()
    tables = stage.position_biases(stage.cells.offsets)
    for bias in biases(tables, stage.cells.codes, torch.float, stage.carrier_bias, 4):
        weights = bias.softmax(-1)[:, 4:, :4].sum(-1)
        torch.testing.assert_close(weights, torch.full_like(weights, share), atol=1e-4, rtol=1e-5)


def test_it_is_in_stages_with_carriers_alone():
    def found(model):
        return {n: tuple(p.shape) for n, p in model.named_parameters() if 'carrier_bias' in n}
    assert found(FasterViT(TINY)) == {'stages.2.carrier_bias': (2, 2, 1, 1)}
    assert found(FasterViT(dict(TINY, hierarchical=False))) == {}
    assert found(HATStage(16, 3, 4)) == {'carrier_bias': (3, 4, 1, 1)}
    assert found(HATStage(16, 3, 4, ct_size=0)) == {}
    tiny = dict(embed_dims=16, depths=(1, 2, 4, 1), num_heads=(1, 1, 2, 4))
    assert found(SwinHAT(tiny)) == {
        'stages.1.carrier_bias': (1, 1, 1, 1), 'stages.2.carrier_bias': (2, 2, 1, 1)}
    assert found(SwinHAT(tiny, ct_size=0)) == {}
    with pytest.raises(ValueError, match="carrier_bias='much': give a number"):
        FasterViT(dict(TINY, carrier_bias='much'))


@pytest.mark.parametrize('model, name', [
    (lambda: FasterViT(TINY), 'stages.2.carrier_bias'),
    (lambda: SwinHAT(dict(embed_dims=16, depths=(2, 2, 4, 2), num_heads=(2, 2, 2, 4))),
     'stages.2.carrier_bias')], ids=['FasterViT', 'SwinHAT'])
def test_gradients_reach_every_head_of_every_block(model, name):
    assert gradients(model(), IMAGE)[name].abs().min() > 0


def test_timm_s_models_load_a_file_without_it(tmp_path):
    def create(**kwargs):
        return timm.create_model('fastervit_0', arch=TINY, num_classes=3, **kwargs).eval()
    old, path = create(), str(tmp_path / 'old.pth')
    with torch.no_grad():
        old.backbone.stages[2].carrier_bias.zero_()
    torch.save({k: v for k, v in old.state_dict().items() if 'carrier_bias' not in k}, path)
    new = create(pretrained=True, pretrained_cfg_overlay=dict(file=path))
    assert torch.equal(new(IMAGE), old(IMAGE))
