"""Recomputed attention equals the backbone's own, at the chosen place."""
import pytest
import torch
import torch.nn.functional as F

from fastervit_mm import FasterViT
from fastervit_mm.backbone import positions
from fastervit_mm.backbone.attention import Attention
from fastervit_mm.backbone.positions import biases, grid
from fastervit_mm.insight import attention_at, probabilities, stage_grids
from fastervit_mm.insight.attention import watched
from tests.conftest import TINY, stir

SIZE = (150, 410)  # 10 x 26 cells in stage 3: 2 x 4 windows of 7, padded on both sides


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    model = FasterViT(dict(TINY, num_heads=(1, 1, 2, 4)), init_cfg=None)
    stir(model)
    for module in model.modules():  # contrast that a mix-up of cells would show
        if isinstance(module, Attention):
            torch.nn.init.normal_(module.qkv.weight, std=0.3)
    return model.eval()


@pytest.fixture(scope='module')
def image():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def output_from(layer, given):
    """A layer's output, from our probabilities and its own values."""
    x, bias = given
    found = probabilities(layer, x, bias)
    assert torch.allclose(found.sum(-1), torch.ones(()), atol=1e-5)
    width = x.shape[-1] // layer.num_heads
    v = layer.qkv(x)[..., 2 * x.shape[-1]:].unflatten(-1, (layer.num_heads, width))
    return layer.proj((found @ v.transpose(-3, -2)).transpose(-3, -2).flatten(-2))


@torch.no_grad()
def test_probabilities_times_values_equal_each_layers_output(backbone, image):
    outputs = {}
    layers = [m for m in backbone.modules() if isinstance(m, Attention)]
    hooks = [m.register_forward_hook(lambda m, a, out: outputs.update({m: out})) for m in layers]
    with watched(backbone) as inputs:
        backbone(image)
    for hook in hooks:
        hook.remove()
    assert set(inputs) == set(layers) and len(layers) == 2 * 2 + 1
    for layer in layers:
        torch.testing.assert_close(output_from(layer, inputs[layer]), outputs[layer],
                                   atol=1e-5, rtol=1e-5)
    assert not any(m._forward_pre_hooks for m in layers)  # nothing stays behind


@torch.no_grad()
@pytest.mark.parametrize('size', [(4, 6), (26, 40)], ids=['dense', 'in bands'])
def test_chosen_queries_give_the_rows_of_all(size, monkeypatch):
    layer = Attention(16, 2)
    torch.nn.init.normal_(layer.qkv.weight, std=0.5)
    tokens = grid(*size, 2, torch.device('cpu'))
    tables = torch.randn(1, 2, len(tokens.offsets))
    bias, = biases(tables, tokens.codes, tables.dtype)
    assert isinstance(bias, torch.Tensor) == (size == (4, 6))
    x = torch.randn(1, len(tokens.codes), 16)
    queries = [len(x[0]) - 1, 3, 17]
    found = probabilities(layer, x, bias, queries)
    torch.testing.assert_close(output_from(layer, (x, bias)), layer(x, bias),
                               atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(positions, '_DENSE_TOKENS', 10**6)  # all pairs at once, whatever the size
    bias, = biases(tables, tokens.codes, tables.dtype)
    q, k = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in layer.qkv(x).split(16, -1)[:2])
    everything = torch.softmax(q @ k.transpose(-2, -1) * 8**-0.5 + bias, -1)
    torch.testing.assert_close(found, everything[:, :, queries])


@torch.no_grad()
@pytest.mark.parametrize('point, cell, window', [
    ((0, 0), (0, 0), (0, 0)),
    ((111.9, 111.9), (6, 6), (0, 0)),
    ((112, 111.9), (6, 7), (0, 1)),
    ((250, 140), (8, 15), (1, 2)),
    ((409, 149), (9, 25), (1, 3)),
])
def test_a_point_maps_to_its_own_cell_and_window(backbone, image, point, cell, window):
    """Compared with cells cut from the stage's map in two dimensions, without window order."""
    handed = []
    stage = backbone.stages[2]
    hook = stage.register_forward_pre_hook(lambda m, args: handed.append(args[0]))
    seen = attention_at(backbone, image, point)[0]
    hook.remove()
    assert (seen.cell, seen.window) == (cell, window)
    assert seen.grid.cells == (10, 26) and seen.grid.windows == (2, 4)

    block, found = stage.blocks[0], seen.blocks[0]
    padded = F.pad(handed[0], (0, 28 - 26, 0, 14 - 10))[0].permute(1, 2, 0)
    top, left = window[0] * 7, window[1] * 7
    cells = padded[top:top + 7, left:left + 7]
    cells = cells + stage.positions(stage.cells.coordinates)[0].view(7, 7, -1)
    carriers, _ = stage.carrier_init(padded[None])
    tokens = grid(4, 8, 2, torch.device('cpu'))
    carriers = carriers.flatten(1, 3) + stage.carrier_positions(tokens.coordinates)[0]
    whole = biases(stage.carrier_position_biases(tokens.offsets), tokens.codes, torch.float32)[0]
    mixed = in_raster_order(block.carriers(carriers, whole).view(8, 4, -1))
    rows, columns = (slice(2 * n, 2 * n + 2) for n in window)
    tokens = block.norm1(torch.cat([mixed[rows, columns].flatten(0, 1), cells.flatten(0, 1)]))
    bias = biases(stage.position_biases(stage.cells.offsets), stage.cells.codes, torch.float32,
                  stage.carrier_bias, 4)[0]
    row = 4 + (cell[0] - top) * 7 + cell[1] - left
    for head in range(2):
        q, k = (t[:, 32 * head:32 * head + 32] for t in block.attn.qkv(tokens).split(64, -1)[:2])
        expected = (q @ k.T * 32**-0.5 + bias[head]).softmax(-1)
        torch.testing.assert_close(found.carriers[head].flatten(), expected[row, :4])
        torch.testing.assert_close(found.cells[head].flatten(), expected[row, 4:])
        torch.testing.assert_close(found.window_cells[head].flatten(), expected[4:, 4:].mean(0))
        torch.testing.assert_close(found.window_carriers[head].flatten(), expected[4:, :4].mean(0))

    given = block.carriers.norm1(carriers)
    every = probabilities(block.carriers.attn, given, whole)[0]  # (heads, queries, keys)
    every = torch.stack([torch.stack([in_raster_order(looked.view(8, 4, 1))[..., 0]
                                      for looked in head]) for head in every])
    number = window[0] * 4 + window[1]
    torch.testing.assert_close(found.across, every[:, 4 * number:4 * number + 4])


def in_raster_order(carriers):
    """(2 * 4 windows, 2 * 2 carriers, C) -> (4, 8, C), one window after the other."""
    raster = carriers.new_zeros(4, 8, carriers.shape[-1])
    for number, own in enumerate(carriers):
        row, column = divmod(number, 4)
        raster[2 * row:2 * row + 2, 2 * column:2 * column + 2] = own.view(2, 2, -1)
    return raster


def test_shares_of_a_cell_sum_to_one(backbone, image):
    third, fourth = attention_at(backbone, image, (300, 20))
    for block in third.blocks:
        assert torch.allclose(block.through_carriers.sum((1, 2)), block.carriers.sum((1, 2)))
        total = block.cells.sum((1, 2)) + block.through_carriers.sum((1, 2))
        assert torch.allclose(total, torch.ones(2))
    assert fourth.grid.stage == 4 and (fourth.cell, fourth.window) == ((0, 9), (0, 1))
    for block in fourth.blocks:
        assert block.across is None and block.through_carriers is None
        assert torch.allclose(block.cells.sum((1, 2)), torch.ones(4))


def test_padding_is_distinguished_from_the_image(backbone):
    # 160 x 416 pixels of which 130 x 400 are picture: beyond are the batch's padding (cells of the
    # map that see no picture) and the windows' (cells beyond the map).
    grid = stage_grids(backbone, (160, 416))[0]
    inside = grid.inside((130, 400))
    assert inside.shape == (14, 28)
    assert inside[:9, :25].all() and inside.sum() == 9 * 25


@pytest.mark.parametrize('given, message', [
    (dict(point=(410 + 6, 0)), r'x must be from 0 to 415'),
    (dict(point=(0, -1)), r'point=\(0, -1\): outside'),
    (dict(inputs=torch.zeros(2, 3, 64, 64)), r'\(2, 3, 64, 64\): give one image'),
    (dict(backbone=FasterViT(TINY, out_indices=(0, 1), init_cfg=None).eval()), 'without stages 3'),
    (dict(backbone=FasterViT(TINY, init_cfg=None).train()), 'call eval'),
])
def test_bad_places_are_refused(backbone, image, given, message):
    with pytest.raises(ValueError, match=message):
        attention_at(**{**dict(backbone=backbone, inputs=image, point=(5, 5)), **given})
