"""switch_to_deploy(): the same outputs from folded weights; misuse is an error."""
import copy
import pickle

import pytest
import torch
from timm.layers import LayerScale
from timm.utils.model import reparameterize_model
from torch.nn.modules.batchnorm import _BatchNorm

from fastervit_mm import FasterViT, SwinHAT
from tests.backbone.common import error, maps, stirred
from tests.conftest import TINY

DEEP = dict(TINY, layer_scale=0.5, propagate_carriers=True)
NETWORKS = {
    'propagating': lambda: FasterViT(DEEP),
    'layer scale': lambda: FasterViT(dict(TINY, layer_scale=0.5)),
    'windows alone': lambda: FasterViT(dict(DEEP, hierarchical=False)),
    'LN': lambda: FasterViT(TINY, out_norm='LN'),
    'padded': lambda: FasterViT(DEEP, pad_conv_stages=7),
    # FasterViT-4 has heads of 49; fused kernels of GPUs take multiples of 8.
    'heads of 20': lambda: FasterViT(dict(DEEP, embed_dim=20, num_heads=(1, 1, 4, 8))),
    'SwinHAT': lambda: SwinHAT(dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 4)))}
SIZES = [(64, 64), (224, 224), (130, 333)]


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def model(request):
    torch.manual_seed(0)
    return stirred(request.param())


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return stirred(FasterViT(DEEP))


IMAGE = torch.rand(2, 3, 96, 160)


def test_outputs_are_the_same_at_every_size(model):
    images = [torch.randn(2, 3, *size) for size in SIZES]
    expected = [maps(model, image) for image in images]
    assert not model.deployed
    assert model.switch_to_deploy() is model and model.deployed
    for image, outs in zip(images, expected):
        assert error(maps(model, image), outs) < 1e-4


@pytest.mark.parametrize('arch', ['0', '3', '4-21k-224'])
def test_published_variants_too(arch):
    model = stirred(FasterViT(arch))
    image = torch.randn(1, 3, 160, 352)
    expected = maps(model, image)
    assert error(maps(model.switch_to_deploy(), image), expected) < 1e-4


def test_folded_layers_are_removed(model):
    kinds = (_BatchNorm,) if model.stages[2].blocks[-1].__dict__.get('propagate') else (
        _BatchNorm, LayerScale)  # where carriers propagate, one scale has a second use
    norms = list(model.out_norms.modules())
    model.switch_to_deploy()
    assert not any(isinstance(m, kinds) for m in model.modules() if m not in norms)
    assert not any(p.requires_grad for p in model.parameters())


def test_deploying_twice_changes_nothing(model):
    expected = maps(model.switch_to_deploy(), IMAGE)
    assert all(map(torch.equal, maps(model.switch_to_deploy(), IMAGE), expected))


def test_it_refuses_in_training_mode_and_changes_nothing(tiny):
    before = copy.deepcopy(tiny.train().state_dict())
    with pytest.raises(RuntimeError, match='switch_to_deploy.. in training mode.*call eval'):
        tiny.switch_to_deploy()
    after = tiny.state_dict()
    assert not tiny.deployed and after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_deployed_backbone_neither_trains_nor_loads(model):
    tensors = model.state_dict()
    holder = torch.nn.Sequential(model.switch_to_deploy())
    with pytest.raises(RuntimeError, match='cannot be trained'):
        holder.train()
    holder.eval()
    with pytest.raises(RuntimeError, match='load it first'):
        model.load_state_dict(tensors, strict=False)


def test_timm_deploys_what_holds_a_backbone(model):
    holder = torch.nn.Sequential(model).eval()
    expected = maps(holder, IMAGE)
    folded = reparameterize_model(holder)
    assert folded[0].deployed and not model.deployed
    assert error(maps(folded, IMAGE), expected) < 1e-4
    bare = reparameterize_model(model)  # calls each part by itself
    assert bare.deployed and error(maps(bare, IMAGE), expected) < 1e-4


@pytest.mark.parametrize('deployed', [False, True])
def test_casts_and_copies_go_on_working(model, deployed):
    expected = maps(model, IMAGE)
    if deployed:
        model.switch_to_deploy()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)) if deployed else model):
        assert error(maps(copied, IMAGE), expected) < 1e-4
    double = maps(copy.deepcopy(model).double(), IMAGE.double())
    assert double[0].dtype == torch.double and error(double, expected) < 1e-4
    half = maps(model.bfloat16(), IMAGE.bfloat16())
    assert all(m.dtype == torch.bfloat16 for m in half)
    assert error([m.float() for m in half], expected) < 0.1


def test_a_cast_network_has_the_geometry_of_a_fresh_one(tiny):
    """Neither bfloat16() nor half() and back rounds coordinates, nor does to_empty() lose them."""
    right = copy.deepcopy(tiny.stages[2].cells)
    for change in (tiny.bfloat16, tiny.half, tiny.float, lambda: tiny.to_empty(device='cpu'),
                   lambda: tiny.to('meta'), lambda: tiny.to_empty(device='cpu')):
        change()
        for stage in tiny.stages[2:]:
            assert all(map(torch.equal, stage.cells, right))


def test_deployed_in_16_bits_it_is_as_near_float32_as_before(tiny):
    """Constants of windows come from float32 coordinates and are cast once."""
    expected = maps(tiny, IMAGE)
    distances = [error([m.float() for m in maps(network.bfloat16(), IMAGE.bfloat16())], expected)
                 for network in (copy.deepcopy(tiny), copy.deepcopy(tiny).switch_to_deploy())]
    assert distances[1] < 1.5 * distances[0] < 0.1
    with torch.autocast('cpu', torch.bfloat16):
        mixed = maps(tiny.switch_to_deploy(), IMAGE)
    assert error([m.float() for m in mixed], expected) < 0.1
