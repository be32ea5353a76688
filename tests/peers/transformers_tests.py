"""FasterViT in transformers, by `make peers`: mmpretrain fails beside transformers 5."""
import pytest
import torch
import transformers

from fastervit_mm import FasterViT
from fastervit_mm.weights import load_backbone
from tests.peers.conftest import ARCH, CHANNELS, NAME, backbone_of, check_loaded, check_trains

SMALL = dict(d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_layers=1,
             decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
             num_queries=20, num_labels=3, dropout=0.)
# DETRs after RT-DETR.
REAL_TIME = dict(SMALL, encoder_hidden_dim=32, encoder_in_channels=CHANNELS[1:],
                 decoder_in_channels=[32, 32, 32])
MODELS = {
    'UperNetForSemanticSegmentation': ((0, 1, 2, 3), dict(
        hidden_size=16, auxiliary_channels=16, num_labels=3)),
    'Mask2FormerForUniversalSegmentation': ((0, 1, 2, 3), dict(
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        dim_feedforward=32, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
        num_queries=10, train_num_points=100, num_labels=3)),
    'RTDetrForObjectDetection': ((1, 2, 3), REAL_TIME),
    'DFineForObjectDetection': ((1, 2, 3), REAL_TIME),
    'DetrForObjectDetection': ((3,), SMALL),
    'DeformableDetrForObjectDetection': ((1, 2, 3), dict(SMALL, num_feature_levels=3)),
}
FREEZE = [name for name in MODELS if 'Detection' in name]


def build(name, **settings):
    kind = getattr(transformers, name)
    stages, small = MODELS[name]
    return kind(kind.config_class(
        backbone_config=transformers.TimmBackboneConfig(backbone=NAME, out_indices=stages),
        **small, **settings))


def targets(name, size):
    """Arguments of the loss for two images."""
    if 'UperNet' in name:
        return dict(labels=torch.randint(3, (2, *size)))
    classes, masks = torch.tensor([0, 2]), torch.zeros(2, *size)
    masks[0, 5:40, 10:50], masks[1, 30:60, 40:90] = 1, 1
    if 'Mask2Former' in name:
        return dict(mask_labels=[masks] * 2, class_labels=[classes] * 2)
    boxes = torch.tensor([[0.3, 0.3, 0.4, 0.5], [0.6, 0.6, 0.5, 0.4]])
    return dict(labels=[dict(class_labels=classes, boxes=boxes)] * 2)


def predictions(name, model, image):
    with torch.no_grad():
        found = model(pixel_values=image)
    if 'UperNet' in name:
        assert found.logits.shape == (1, 3, *image.shape[2:])
        return [found.logits]
    if 'Mask2Former' in name:
        return [found.class_queries_logits, found.masks_queries_logits]
    return [found.logits, found.pred_boxes]


@pytest.mark.parametrize('name', [
    name if name == 'RTDetrForObjectDetection' else pytest.param(name, marks=pytest.mark.long)
    for name in MODELS])
def test_it_loads_trains_predicts_and_is_saved(name, weights, tmp_path):
    torch.manual_seed(0)
    model = build(name)
    backbone = backbone_of(model)
    load_backbone(backbone, weights)
    check_loaded(backbone, weights)
    # With any backbone RT-DETR and D-FINE refuse sides that are not multiples of 32.
    size, other = ((64, 96), (96, 160)) if MODELS[name][1] is REAL_TIME else ((70, 101), (117, 83))
    images, wanted = torch.rand(2, 3, *size), targets(name, size)
    check_trains(model, backbone, lambda: model(pixel_values=images, **wanted).loss)
    image = torch.rand(1, 3, *other)
    found = predictions(name, model, image)
    assert all(tensor.isfinite().all() for tensor in found)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    for tensor, same in zip(found, predictions(name, again, image)):
        torch.testing.assert_close(same, tensor)


@pytest.mark.parametrize('name', FREEZE)
def test_frozen_batch_norms_do_not_change_the_maps(name, weights):
    """They have eps 1e-5, the stem's BatchNorms 1e-4."""
    backbone = backbone_of(build(name))
    load_backbone(backbone, weights)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
    own = FasterViT(ARCH, out_norm=None).eval()
    load_backbone(own, weights)
    image = torch.rand(1, 3, 70, 101)
    with torch.no_grad():
        torch.testing.assert_close(backbone.stem(image), own.stem(image))
        backbone.train()
        torch.testing.assert_close(backbone.stem(image), own.stem(image))


def test_from_pretrained_keeps_the_running_statistics(weights):
    """transformers sets them to 0 and 1 after loading."""
    check_loaded(backbone_of(transformers.TimmBackbone.from_pretrained(
        NAME, out_indices=(0, 1, 2, 3))), weights)
