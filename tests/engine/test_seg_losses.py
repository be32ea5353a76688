"""Class weights in the loss of a segmentor, where pixels are ignored."""
import pytest
import torch
import torch.nn.functional as F

from fastervit_mm.engine.seg_losses import WeightedCrossEntropyLoss

WEIGHTS = [0.3, 1., 2.5]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(2, 3, 6, 5, generator=generator, requires_grad=True)
    return score, torch.randint(0, 3, (2, 6, 5), generator=generator)


def test_it_is_the_weighted_mean_over_pixels_with_a_class(batch):
    score, label = batch
    label[0, :2] = 255
    ours = WeightedCrossEntropyLoss(class_weight=WEIGHTS, loss_weight=0.4)(score, label)
    right = 0.4 * F.cross_entropy(score, label, torch.tensor(WEIGHTS), ignore_index=255)
    assert torch.allclose(ours, right, atol=1e-6)
    for loss in (ours, right):
        score.grad = None
        loss.backward(retain_graph=True)
        assert not score.grad[0, :, :2].any()


def test_without_void_it_equals_mmsegs(batch):
    from mmseg.models.losses import CrossEntropyLoss
    score, label = batch
    for weights in (WEIGHTS, None):
        ours, theirs = (kind(class_weight=weights, avg_non_ignore=True)(
            score, label, ignore_index=255)
            for kind in (WeightedCrossEntropyLoss, CrossEntropyLoss))
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_an_image_without_any_class_gives_0(batch):
    score, label = batch
    loss = WeightedCrossEntropyLoss(class_weight=WEIGHTS)(score, torch.full_like(label, 255))
    loss.backward()
    assert loss == 0 and torch.isfinite(score.grad).all()
