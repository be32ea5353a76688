"""The stage as a module by itself: what it takes, and each of its choices."""
import copy

import pytest
import torch
from torch import nn

from fastervit_mm import FasterViT, HierarchicalAttention
from fastervit_mm.backbone.attention import HierarchicalBlock, WindowBlock
from fastervit_mm.backbone.positions import (
    AbsolutePosition,
    NoRelativePosition,
    RelativePositionTable,
)
from fastervit_mm.insight.attention import attention_at
from fastervit_mm.insight.receptive_field import carriers_cut
from tests.conftest import TINY, stir

CHOICES = {
    'as in FasterViT': {},
    'windows alone': dict(ct_size=None),
    'one carrier': dict(ct_size=1),
    'carriers in every second block': dict(carriers_every=2, drop_paths=(0.1, 0.2, 0.3)),
    'propagation': dict(propagate_carriers=True, layer_scale=0.5),
    'no embedding': dict(absolute_position=False),
    "Swin's table": dict(relative_position='table', padding='block'),
    'padding in every block': dict(padding='block', propagate_carriers=True, layer_scale=0.5),
    'no bias': dict(relative_position=None, carrier_bias=None),
}


def build(**choice):
    stage = HierarchicalAttention(16, 3, 2, **{**dict(window_size=4), **choice})
    stir(stage)
    for name, parameter in stage.named_parameters():
        if name.endswith('table') or name.endswith('carrier_bias'):
            nn.init.normal_(parameter)
    return stage


@pytest.mark.parametrize('choice', CHOICES.values(), ids=CHOICES)
def test_a_map_of_any_size_goes_in_and_comes_out(choice):
    """Trained, deployed, recomputed and compiled alike; every parameter is trained."""
    stage = build(**choice).eval()
    for size in ((1, 1), (8, 12), (9, 13)):
        x = torch.randn(2, 16, *size)
        with torch.no_grad():
            expected = stage(x)
            assert expected.shape == x.shape
            for batch in (1, 2):  # the images do not see each other
                torch.testing.assert_close(stage(x[:batch]), expected[:batch], atol=1e-5, rtol=1e-4)
            deployed = copy.deepcopy(stage)
            deployed.switch_to_deploy()
            torch.testing.assert_close(deployed(x), expected, atol=1e-4, rtol=1e-4)

    def gradients(stage, x):
        stage.zero_grad()
        torch.manual_seed(0)
        (stage(x) * torch.arange(x.shape[-1])).square().mean().backward()
        return [p.grad.clone() for p in stage.parameters()]
    stage.train()
    found = gradients(stage, x)
    assert all(grad.abs().sum() > 0 for grad in found[:-1])
    stage.with_cp = True
    for got, before in zip(gradients(stage, x), found):
        torch.testing.assert_close(got, before)


@torch.no_grad()
@pytest.mark.parametrize('choice', [
    dict(propagate_carriers=True, layer_scale=0.5), dict(carriers_every=2, ct_size=1),
    dict(relative_position='table', absolute_position=False)])
def test_padding_in_every_block(choice, monkeypatch):
    """Attention sees zeros there, MLPs nothing; whole windows are as they are without padding."""
    stage = build(padding='block', **choice).eval()
    other = HierarchicalAttention(16, 3, 2, window_size=4, **choice).eval()
    other.load_state_dict(stage.state_dict())
    whole, part = torch.randn(2, 16, 8, 12), torch.randn(2, 16, 9, 13)
    torch.testing.assert_close(stage(whole), other(whole), atol=1e-5, rtol=1e-4)
    expected = stage(part)
    with monkeypatch.context() as patch:
        # As in a graph for all sizes, where tokens are without padding at every size.
        patch.setattr('fastervit_mm.backbone.stages.is_compiling', lambda: True)
        torch.testing.assert_close(stage(whole), other(whole), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(stage(part), expected, atol=1e-5, rtol=1e-4)

    tokens, values = [], []
    for block in stage.blocks:
        block.mlp.register_forward_pre_hook(lambda _, given: tokens.append(given[0][0].numel()))
        block.attn.register_forward_pre_hook(lambda _, given: values.append(given[0]))
    stage(part)
    for carries, inside, (_, windows, count, _) in zip(
            stage.carries, tokens, [value.shape for value in values], strict=True):
        carriers = stage.ct_size**2 if carries else 0
        assert (windows, count) == (3 * 4, carriers + 16)
        assert inside == 16 * (9 * 13 + windows * carriers)
    for value in values:
        cells = value[:, :, -16:].view(2, 3, 4, 4, 4, 16).transpose(2, 3).reshape(2, 12, 16, 16)
        assert not cells[:, 9:].any() and not cells[:, :, 13:].any()
        assert cells[:, :9, :13].abs().sum(-1).min() > 0
        assert value[:, :, :-16].abs().sum(-1).gt(0).all()


def test_rows_are_columns_of_the_transposed_map():
    """Swin's table too; coordinates, tables and kernels are swapped with the map."""
    for choice in CHOICES.values():
        stage = build(**choice).eval()
        twin = copy.deepcopy(stage)
        with torch.no_grad():
            for module in twin.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.copy_(module.weight.transpose(2, 3).clone())
                elif isinstance(module, RelativePositionTable):
                    table = module.relative_position_bias_table
                    table.copy_(table.view(7, 7, -1).transpose(0, 1).reshape(table.shape).clone())
                elif hasattr(module, 'fc1') and module.fc1.in_features == 2:
                    module.fc1.weight.copy_(module.fc1.weight.flip(1).clone())
            x = torch.randn(1, 16, 12, 20)
            torch.testing.assert_close(twin(x.transpose(2, 3)).transpose(2, 3), stage(x),
                                       atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('choice', ['windows alone', 'one carrier',
                                    'carriers in every second block', 'no bias'])
def test_what_is_far_is_seen_through_carriers_alone(choice):
    stage = build(**CHOICES[choice]).eval()
    x = torch.randn(1, 16, 4, 40)
    changed = x.clone()
    changed[..., 36:] += 5
    same = torch.equal(stage(x)[..., :4], stage(changed)[..., :4])
    assert same == (choice == 'windows alone')


def test_the_choices_make_the_blocks_that_they_name():
    kinds = [type(block) for block in build(carriers_every=2).blocks]
    assert kinds == [WindowBlock, HierarchicalBlock, WindowBlock]
    assert [getattr(b, 'propagate', None) for b in build(
        carriers_every=2, propagate_carriers=True).blocks] == [None, True, None]
    assert not hasattr(build(ct_size=None), 'carrier_init')

    def found(kind, **choice):
        return sum(isinstance(m, kind) for m in build(**choice).modules())
    assert found(AbsolutePosition) == 6 and found(AbsolutePosition, absolute_position=False) == 0
    assert found(NoRelativePosition, relative_position=None) == 6
    assert found(RelativePositionTable, relative_position='table') == 3
    block = build(carrier_bias=2.).blocks[0]
    assert block.carrier_attn.position_bias.carrier_bias is None
    fresh = HierarchicalAttention(16, 1, 2, carrier_bias=2.).blocks[0].attn.position_bias
    assert fresh.carrier_bias.tolist() == [2, 2]


@torch.no_grad()
@pytest.mark.parametrize('kind', ['mlp', 'table', None])
def test_at_the_start_a_carrier_is_heard_as_a_cell_is(kind):
    """Whatever the cells' own bias: that towards carriers is its mean."""
    stage = HierarchicalAttention(16, 1, 2, relative_position=kind)
    bias = stage.blocks[0].attn.position_bias(stage.cells(True).filled(torch.device('cpu')),
                                              torch.float)
    to_carriers, to_cells = bias[:, 4:, :4], bias[:, 4:, 4:53]
    assert to_carriers.unique().numel() == 1 and abs(to_carriers.mean() - to_cells.mean()) < 1


@pytest.mark.parametrize('given, message', [
    (dict(dim=0), 'dim=0: give a whole number of at least 1'),
    (dict(depth=0), 'depth=0: give a whole number'),
    (dict(num_heads=3), 'num_heads=3: they do not divide dim=16'),
    (dict(window_size=2.5), 'window_size=2.5: give a whole'),
    (dict(ct_size=8), 'ct_size=8: a window of 7 cells a side holds 1 to 7 .*None for none'),
    (dict(mlp_ratio=0), 'mlp_ratio=0: give a number'),
    (dict(layer_scale='big'), "layer_scale='big': give a number, or None"),
    (dict(carrier_bias='much'), "carrier_bias='much': give a number, 'equal' for that of cells"),
    (dict(drop_paths=(0.1,)), r'drop_paths=\(0.1,\): give depth=2 rates'),
    (dict(drop_paths=(0.1, 1)), r'drop_paths=\(0.1, 1\): give depth=2 rates from 0'),
    (dict(relative_position='swin'), "relative_position='swin': give 'mlp', 'table' or None"),
    (dict(padding='windows'), "padding='windows': give 'stage' or 'block'"),
    (dict(carriers_every=3), 'carriers_every=3: no block of depth=2 has carriers'),
])
def test_an_argument_out_of_range_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalAttention(**{**dict(dim=16, depth=2, num_heads=2), **given})


def test_another_number_of_channels_is_an_error():
    with pytest.raises(ValueError, match=r'input of shape \(1, 8, 4, 4\): expected \(B, 16, H, W'):
        build()(torch.rand(1, 8, 4, 4))


@torch.no_grad()
@pytest.mark.parametrize('choice', [
    dict(hierarchical=False), dict(ct_size=3), dict(window_size=4), dict(propagate_carriers=True),
    dict(absolute_position=False), dict(relative_position='table'),
    dict(relative_position=None)], ids=str)
def test_ablations_of_fastervit_are_fields_of_its_arch(choice):
    """Each is another network, and tools that look into it take it."""
    model = FasterViT(dict(TINY, **choice)).eval()
    image = torch.rand(1, 3, 288, 480)
    with torch.no_grad():
        maps = model(image)
    names = set(model.state_dict())
    assert [m.shape[1:] for m in maps[2:]] == [(64, 18, 30), (128, 9, 15)]
    if not choice.keys() & {'ct_size', 'window_size', 'propagate_carriers'}:
        assert names != set(FasterViT(TINY).state_dict())
    else:
        other = FasterViT(TINY).eval()
        other.load_state_dict(model.state_dict())
        assert not torch.allclose(other(image)[2], maps[2])
    for block in attention_at(model, image, (200, 100))[0].blocks:
        whole = block.cells.sum() + (0 if block.carriers is None else block.carriers.sum())
        assert whole.item() == pytest.approx(2)  # heads
    if model.variant.hierarchical:
        with carriers_cut(model):
            assert not torch.allclose(model(image)[2], maps[2])
    deployed = model.switch_to_deploy()
    for got, expected in zip(deployed(image), maps):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_field_that_is_no_choice_is_an_error():
    with pytest.raises(ValueError, match="relative_position='swin': give 'mlp'"):
        FasterViT(dict(TINY, relative_position='swin'))
