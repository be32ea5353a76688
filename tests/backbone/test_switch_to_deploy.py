"""switch_to_deploy(): the same numbers from folded weights, and no misuse in silence."""
import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fastervit_mm import FasterViT
from fastervit_mm.backbone import attention, positions
from fastervit_mm.backbone.attention import Attention
from tests.conftest import stir

SIZES = [(64, 64), (224, 224), (130, 333)]


def maps(model, image):
    with torch.no_grad():
        return model(image)


def assert_same(got, expected, limit=1e-4):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert ((a - b).abs().max() / b.abs().max()).item() < limit


@pytest.fixture(params=['tiny', 'no carriers', 'LN'])
def model(request, tiny_arch):
    torch.manual_seed(0)
    settings = {'tiny': {}, 'no carriers': {}, 'LN': dict(out_norm='LN')}[request.param]
    if request.param == 'no carriers':
        tiny_arch['hierarchical'] = False
    model = FasterViT(tiny_arch, **settings)
    stir(model)
    return model.eval()


def test_outputs_are_the_same_at_every_size(model):
    images = [torch.randn(2, 3, *size) for size in SIZES]
    expected = [maps(model, image) for image in images]
    assert model.switch_to_deploy() is model and model.deployed
    for image, outs in zip(images, expected):
        assert_same(maps(model, image), outs)
        assert_same(maps(model, image), outs)  # from what was kept


@pytest.mark.parametrize('arch', ['0', '3', '4-21k-224'])
def test_published_variants_too(arch):
    model = FasterViT(arch)
    stir(model)
    model.eval()
    image = torch.randn(1, 3, 160, 352)
    expected = maps(model, image)
    assert_same(maps(model.switch_to_deploy(), image), expected)


def test_what_was_folded_is_gone(tiny_arch):
    model = FasterViT(tiny_arch).eval()
    assert any(isinstance(m, _BatchNorm) for m in model.modules())
    model.switch_to_deploy()
    assert not any(isinstance(m, _BatchNorm) for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())


def test_deploying_twice_changes_nothing(tiny_arch):
    model = FasterViT(tiny_arch)
    stir(model)
    image = torch.randn(1, 3, 64, 96)
    expected = maps(model.eval().switch_to_deploy(), image)
    assert_same(maps(model.switch_to_deploy(), image), expected, 1e-7)


def test_it_refuses_in_training_mode_and_changes_nothing(tiny_arch):
    model = FasterViT(tiny_arch).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match='switch_to_deploy.. in training mode.*call eval'):
        model.switch_to_deploy()
    assert not model.deployed and model.state_dict().keys() == before.keys()
    model(torch.randn(2, 3, 64, 64))


def test_a_deployed_backbone_neither_trains_nor_loads(tiny_arch):
    model = FasterViT(tiny_arch).eval()
    tensors = model.state_dict()
    holder = torch.nn.Sequential(model.switch_to_deploy())
    with pytest.raises(RuntimeError, match='cannot be trained'):
        holder.train()
    holder.eval()
    with pytest.raises(RuntimeError, match='load it first'):
        model.load_state_dict(tensors, strict=False)


def test_casts_and_copies_go_on_working(model):
    image = torch.randn(1, 3, 96, 160)
    expected = maps(model, image)
    model.switch_to_deploy()
    assert_same(maps(copy.deepcopy(model), image), expected)
    assert_same(maps(model.double(), image.double()), [e.double() for e in expected])
    half = maps(model.bfloat16(), image.bfloat16())
    assert all(h.dtype == torch.bfloat16 for h in half)
    assert_same([h.float() for h in half], expected, 0.1)


def test_timm_deploys_what_holds_a_backbone(tiny_arch):
    from timm.utils.model import reparameterize_model
    model = FasterViT(tiny_arch)
    stir(model)
    image = torch.randn(2, 3, 64, 96)
    holder = torch.nn.Sequential(model).eval()
    expected = maps(holder, image)
    folded = reparameterize_model(holder)
    assert folded[0].deployed and not model.deployed
    assert_same(maps(folded, image), expected)
    bare = reparameterize_model(model)  # calls each part by itself
    assert bare.deployed
    assert_same(maps(bare, image), expected)


def test_bias_rows_are_aligned_in_memory(tiny_arch, monkeypatch):
    """53 tokens in rows of 56: a fused kernel takes them as they are, in 16 bits too."""
    masks = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', lambda *a, **k: (
        masks.append(k['attn_mask']) or fused(*a, **k)))
    model = FasterViT(tiny_arch, out_indices=(2, )).eval()
    image = torch.randn(1, 3, 224, 224)
    maps(model, image)
    maps(model.switch_to_deploy(), image)
    maps(model.bfloat16(), image.bfloat16())
    # Cast before it is deployed, and under autocast without.
    maps(FasterViT(tiny_arch, out_indices=(2, )).eval().bfloat16().switch_to_deploy(),
         image.bfloat16())
    with torch.autocast('cpu', torch.bfloat16):
        maps(FasterViT(tiny_arch, out_indices=(2, )).eval(), image)
    windows = [mask for mask in masks if mask.shape[-1] == 53]
    assert len(windows) == 5 * 2
    assert all(mask.stride()[-2:] == (56, 1) for mask in windows)


@pytest.mark.parametrize('propagate', [True, False])
def test_heads_are_padded_once_in_the_weights(propagate):
    """FasterViT-4 has heads of 49; fused kernels of GPUs take multiples of 8."""
    arch = dict(embed_dim=20, stem_channels=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 4, 8),
                layer_scale=0.5, propagate_carriers=propagate, drop_path_rate=0.)
    model = FasterViT(arch)  # heads of 20
    stir(model)
    model.eval()
    image = torch.randn(2, 3, 230, 333)
    expected = maps(model, image)
    layers = [m for m in model.modules() if isinstance(m, Attention)]
    assert {layer.padding for layer in layers} == {4}
    model.switch_to_deploy()
    assert {layer.padding for layer in layers} == {0}
    assert {layer.qkv.out_features // layer.num_heads for layer in layers} == {3 * 24}
    assert_same(maps(model, image), expected, 1e-5)


def test_kernels_get_heads_of_a_multiple_of_8(monkeypatch):
    """Trained or deployed; what PyTorch falls back to for others keeps all logits."""
    widths = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', lambda q, *a, **k: (
        widths.append(q.shape[-1]) or fused(q, *a, **k)))
    model = FasterViT('4', out_indices=(2, )).eval()
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
        model.switch_to_deploy()(torch.randn(1, 3, 64, 64))
    assert len(widths) == 2 * 2 * 12 and set(widths) == {56}


def test_many_carriers_attend_in_bands_with_the_same_result(tiny_arch, monkeypatch):
    model = FasterViT(tiny_arch)
    stir(model)
    model.eval()
    image = torch.randn(1, 3, 448, 672)  # 4 x 6 windows, 96 carriers
    expected = maps(model, image)
    image.requires_grad_()
    model(image)[2].sum().backward()
    gradient, image.grad = image.grad.clone(), None
    monkeypatch.setattr(positions, '_DENSE_TOKENS', 95)
    for queries in (128, 72, 48, 5):  # all; several rows of windows a band, with a rest; one
        monkeypatch.setattr(attention, '_BAND', queries)
        assert_same(maps(model, image), expected, 1e-5)
    model(image)[2].sum().backward()
    assert_same([image.grad], [gradient], 1e-5)
    assert_same(maps(model.switch_to_deploy(), image), expected)


def test_large_windows_attend_in_bands_with_the_same_result(tiny_arch, monkeypatch):
    """Windows of 48 x 48 cells, of the network for 768 pixels, have 2304 tokens."""
    model = FasterViT(dict(tiny_arch, hierarchical=False, window_size=(7, 7)))
    stir(model)
    model.eval()
    image = torch.randn(1, 3, 160, 224)
    expected = maps(model, image)
    monkeypatch.setattr(positions, '_DENSE_TOKENS', 48)
    monkeypatch.setattr(attention, '_BAND', 14)
    assert_same(maps(model, image), expected, 1e-5)
    assert_same(maps(model.switch_to_deploy(), image), expected)


def test_bands_hold_no_bias_of_all_pairs(monkeypatch):
    """Peak memory, counted allocation by allocation; and a band is where the last one was."""
    from benchmarks.speed.measure import peak_memory
    places_in_memory, fused = [], attention.fused

    def watched(q, k, v, bias, scale):
        places_in_memory.append(bias.data_ptr())
        return fused(q, k, v, bias, scale)
    monkeypatch.setattr(attention, 'fused', watched)
    attn = attention.BandedAttention(16, 4).eval()
    tokens = torch.randn(1, 48 * 40, 16)

    def peak():
        places = positions.Places((24, 20), 2).filled(torch.device('cpu'))

        def step():
            with torch.no_grad():
                attn(tokens, places)
        return peak_memory(step, torch.device('cpu'))
    banded = peak()
    assert len(places_in_memory) > 5 and len(set(places_in_memory)) == 1
    monkeypatch.setattr(positions, '_DENSE_TOKENS', 10**6)
    dense = peak()
    assert dense > 4 * 4 * (48 * 40)**2  # heads x bytes x pairs
    assert banded < 0.3 * dense  # most of it is the MLP over the offsets
