"""A small network by a name of timm's, with a file of weights."""
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import register_model

from fastervit_mm import FasterViT
from fastervit_mm.timm_models import FasterViTClassifier
from tests.conftest import TINY, stir

NAME = 'tiny_fastervit'
CHANNELS = [16, 32, 64, 128]
ARCH = dict(TINY, layer_scale=0.5, propagate_carriers=True)
_file = {}


@register_model
def tiny_fastervit(pretrained=False, **settings):
    """For libraries that take a name and no arguments of the network."""
    return timm.create_model('fastervit_0', pretrained, arch=ARCH,
                             **{**settings, 'pretrained_cfg_overlay': _file})


@pytest.fixture(scope='session', autouse=True)
def weights(tmp_path_factory):
    """File of ``pretrained=True``, with a stem in whose norms ``eps`` counts."""
    torch.manual_seed(0)
    model = FasterViTClassifier(ARCH)
    stir(model)
    for norm in (model.backbone.stem.norm1, model.backbone.stem.norm2):
        norm.running_var.mul_(1e-3)
    path = tmp_path_factory.mktemp('peers') / 'tiny.safetensors'
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    _file['file'] = str(path)
    return str(path)


def backbone_of(model):
    backbone, = (module for module in model.modules() if isinstance(module, FasterViT))
    return backbone


def check_loaded(backbone, weights):
    """Every tensor of the backbone is the file's."""
    found, own = load_file(weights), backbone.state_dict()
    assert len(own) > 100
    for name, tensor in own.items():
        assert torch.equal(tensor, found[f'backbone.{name}']), name


def check_trains(model, backbone, loss_of):
    """Train for some steps: the loss falls, and each parameter of the backbone takes part.

    Args:
        model: Left in evaluation mode.
        backbone: The part of it that is ours.
        loss_of: Gives the loss, of the same images each time.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        torch.manual_seed(0)  # the same denoising queries and sampled points
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        for name, parameter in backbone.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        optimizer.step()
    assert losses[-1] < losses[0], losses
    model.eval()
