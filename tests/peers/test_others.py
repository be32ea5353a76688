"""FasterViT in timm, torchvision's detectors and segmentation_models_pytorch."""
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from fastervit_mm import FasterViT
from fastervit_mm.weights import load_backbone
from tests.peers.conftest import ARCH, CHANNELS, NAME, backbone_of, check_loaded, check_trains

IMAGES = torch.rand(2, 3, 70, 101)


class Frozen(nn.Module):
    """BatchNorm as transformers' DETRs freeze it: with all of it but its eps."""

    def __init__(self, norm):
        super().__init__()
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            self.register_buffer(name, getattr(norm, name).data)

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return (x - self.running_mean[:, None, None]) * scale[:, None, None] + (
            self.bias[:, None, None])


def test_batch_norms_frozen_without_their_eps_change_the_maps(weights):
    network = FasterViT(ARCH, out_norm=None).eval()
    load_backbone(network, weights)
    with torch.no_grad():
        expected = network.stem(IMAGES)
        for module in list(network.modules()):
            for name, norm in module.named_children():
                if isinstance(norm, nn.BatchNorm2d):
                    setattr(module, name, Frozen(norm))
        torch.testing.assert_close(network.stem(IMAGES), expected)


@pytest.mark.parametrize('kind', ['classifier', 'features_only', 'forward_intermediates'])
def test_timm_loads_trains_and_predicts(kind, weights):
    torch.manual_seed(0)
    model = timm.create_model(NAME, pretrained=True, features_only=kind == 'features_only')
    backbone = backbone_of(model)
    check_loaded(backbone, weights)

    def outputs(images):
        if kind == 'forward_intermediates':
            last, maps = model.forward_intermediates(images)
            return [*maps, model.forward_head(last)]
        found = model(images)
        return found if kind == 'features_only' else [found]

    check_trains(model, backbone, lambda: sum(y.square().mean() for y in outputs(IMAGES)))
    maps = [(16, 12, 21), (32, 6, 11), (64, 3, 6), (128, 2, 3)]
    assert [tuple(y.shape[1:]) for y in outputs(torch.rand(1, 3, 45, 83))] == dict(
        classifier=[(1000,)], features_only=maps, forward_intermediates=[*maps, (1000,)])[kind]


def test_torchvisions_detector_loads_trains_and_predicts(weights):
    torch.manual_seed(0)
    network = timm.create_model(NAME, pretrained=True, features_only=True).model.backbone
    check_loaded(network, weights)
    body = nn.Sequential(*(nn.Sequential(
        network.downsamples[i - 1] if i else network.stem, stage)
        for i, stage in enumerate(network.stages)))
    backbone = BackboneWithFPN(body, {str(i): str(i) for i in range(4)}, CHANNELS, 16)
    image = torch.rand(1, 3, 75, 110)
    maps = network.eval()(image)[-1]
    torch.testing.assert_close(backbone.eval().body(image)['3'], maps)
    model = FasterRCNN(backbone, num_classes=3, min_size=70, max_size=128)
    target = dict(boxes=torch.tensor([[10., 5, 50, 40]]), labels=torch.tensor([1]))
    check_trains(model, network, lambda: sum(model(list(IMAGES), [target] * 2).values()))
    found, = model([image[0]])
    assert set(found) == {'boxes', 'labels', 'scores'} and found['boxes'].isfinite().all()


@pytest.mark.parametrize('kind, size', [
    ('Unet', (75, 110)), pytest.param('UPerNet', (96, 128), marks=pytest.mark.long)])
def test_smp_loads_trains_and_predicts(kind, size, weights):
    torch.manual_seed(0)
    model = getattr(smp, kind)(f'tu-{NAME}', encoder_weights=True, classes=3)
    backbone = backbone_of(model)
    check_loaded(backbone, weights)
    images, labels = torch.rand(2, 3, *size), torch.randint(3, (2, *size))
    check_trains(model, backbone, lambda: nn.functional.cross_entropy(model(images), labels))
    assert model(images[:1]).shape == (1, 3, *size)
