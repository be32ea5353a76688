"""deploy(): the same numbers from folded weights, and no way to misuse them in silence."""
import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fastervit_mm import FasterViT
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
    assert model.deploy() is model and model.deployed
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
    assert_same(maps(model.deploy(), image), expected)


def test_what_was_folded_is_gone(tiny_arch):
    model = FasterViT(tiny_arch).eval()
    before = sum(isinstance(m, _BatchNorm) for m in model.modules())
    model.deploy()
    # The output norms stand behind a sum; there is no weight to fold them into.
    assert before > 4 and sum(isinstance(m, _BatchNorm) for m in model.modules()) == 4
    assert not any(p.requires_grad for p in model.parameters())


def test_deploying_twice_changes_nothing(tiny_arch):
    model = FasterViT(tiny_arch)
    stir(model)
    image = torch.randn(1, 3, 64, 96)
    expected = maps(model.eval().deploy(), image)
    assert_same(maps(model.deploy(), image), expected, 1e-7)


def test_it_refuses_in_training_mode_and_changes_nothing(tiny_arch):
    model = FasterViT(tiny_arch).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match='deploy.. in training mode.*call eval'):
        model.deploy()
    assert not model.deployed and model.state_dict().keys() == before.keys()
    model(torch.randn(2, 3, 64, 64))


def test_a_deployed_backbone_neither_trains_nor_loads(tiny_arch):
    model = FasterViT(tiny_arch).eval()
    tensors = model.state_dict()
    holder = torch.nn.Sequential(model.deploy())
    with pytest.raises(RuntimeError, match='cannot be trained'):
        holder.train()
    holder.eval()
    with pytest.raises(RuntimeError, match='load it first'):
        model.load_state_dict(tensors, strict=False)


def test_casts_and_copies_go_on_working(model):
    image = torch.randn(1, 3, 96, 160)
    expected = maps(model, image)
    model.deploy()
    assert_same(maps(copy.deepcopy(model), image), expected)
    assert_same(maps(model.double(), image.double()), [e.double() for e in expected])
    half = maps(model.bfloat16(), image.bfloat16())
    assert all(h.dtype == torch.bfloat16 for h in half)
    assert_same([h.float() for h in half], expected, 0.1)


def test_memory_does_not_grow_with_the_sizes_seen(tiny_arch):
    """One image size is kept, deployed or not."""
    def kept(model):
        return sum(m._kept[1].numel() for m in model.modules()
                   if getattr(m, '_kept', None) is not None)
    model = FasterViT(tiny_arch).eval().deploy()
    maps(model, torch.randn(1, 3, 224, 448))
    once = kept(model)
    for size in [(64, 64), (448, 224), (96, 320), (224, 448)]:
        maps(model, torch.randn(1, 3, *size))
    assert kept(model) == once > 0


def test_bias_rows_are_aligned_in_memory(tiny_arch):
    """53 tokens in rows of 56: a fused kernel takes them as they are, in 16 bits too."""
    model = FasterViT(tiny_arch).eval()
    bias = model.stages[2].blocks[0].attn.position_bias
    for state in (lambda: bias, lambda: model.deploy() and bias, lambda: model.bfloat16() and bias):
        term = state()((7, 7), torch.bfloat16, 4)
        assert term.shape[1:] == (53, 53) and term.stride(-2) == 56 and term.stride(-1) == 1


def test_many_carriers_attend_in_bands_with_the_same_result(tiny_arch, monkeypatch):
    from fastervit_mm.backbone import attention
    model = FasterViT(tiny_arch)
    stir(model)
    model.eval()
    image = torch.randn(1, 3, 448, 672)  # 8 x 12 carriers
    expected = maps(model, image)
    image.requires_grad_()
    model(image)[2].sum().backward()
    gradient, image.grad = image.grad.clone(), None
    monkeypatch.setattr(attention, '_DENSE_TOKENS', 95)
    for queries in (128, 95, 40, 5):  # all; several rows a band, with a rest; one row
        monkeypatch.setattr(attention, '_CPU_BAND', queries)
        assert_same(maps(model, image), expected, 1e-5)
    model(image)[2].sum().backward()
    assert_same([image.grad], [gradient], 1e-5)


def test_bands_hold_no_bias_of_all_pairs(tiny_arch, monkeypatch):
    """Peak memory, counted allocation by allocation."""
    from fastervit_mm.backbone import attention
    from fastervit_mm.benchmark.measure import peak_memory
    attn = attention.Attention(16, 4).eval()
    tokens = torch.randn(1, 48 * 40, 16)

    def peak():
        def step():
            with torch.no_grad():
                attn(tokens, (48, 40))
        return peak_memory(step, torch.device('cpu'))
    banded = peak()
    monkeypatch.setattr(attention, '_DENSE_TOKENS', 10**6)
    dense = peak()
    assert dense > 4 * 4 * (48 * 40)**2  # heads x bytes x pairs
    assert banded < 0.3 * dense  # most of it is the MLP over the offsets
