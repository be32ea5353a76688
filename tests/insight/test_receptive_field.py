"""Receptive fields: bounded by windows and convolutions without carriers, unbounded with them."""
import pytest
import torch

from fastervit_mm import FasterViT
from fastervit_mm.insight import carriers_cut, effective_receptive_field, reach
from tests.conftest import TINY, stir

# In stage 3: 14 x 23 cells (of 16 pixels, the last not whole), 2 x 4 windows of 7.
SIZE = (219, 361)


def network(**settings):
    torch.manual_seed(0)
    model = FasterViT({**TINY, 'propagate_carriers': True, 'layer_scale': 0.5, **settings},
                      init_cfg=None)
    stir(model)
    return model.eval().double()  # what is zero is zero: far pixels matter little, and do matter


@pytest.fixture(scope='module')
def image():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(2)).double()


def extent(field):
    rows, columns = field.nonzero().T
    return (int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)


@pytest.mark.parametrize('stage, cell', [
    (1, (20, 33)), (2, (13, 1)), (3, (3, 9)), (3, (13, 22)), (4, (2, 8))])
def test_without_carriers_the_field_ends_with_windows_and_convolutions(stage, cell, image):
    """To the pixel: nothing beyond, and the outermost pixels still matter."""
    model = network(window_size=(7, 3))
    field = effective_receptive_field(model, [image], stage, cell, draws=2, carriers=False)
    assert extent(field) == reach(model, SIZE, stage, cell)
    assert field.shape == SIZE


@pytest.mark.parametrize('propagate', [False, True])
def test_with_carriers_the_field_is_the_image(propagate, image):
    model = network(propagate_carriers=propagate)
    cell = (3, 9)
    inner = reach(model, SIZE, 3, cell)
    assert (inner.bottom - inner.top) * (inner.right - inner.left) < 0.6 * SIZE[0] * SIZE[1]
    field = effective_receptive_field(model, [image], 3, cell, draws=2)
    assert extent(field) == (0, SIZE[0], 0, SIZE[1])
    assert (field > 0).double().mean() > 0.99


@torch.no_grad()
def test_cutting_carriers_equals_the_network_without_them(image):
    model = network()
    before = model(image)
    plain = network(hierarchical=False, propagate_carriers=False)
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all('carrier' in name for name in unexpected)
    with carriers_cut(model):
        cut = model(image)
    for ours, theirs in zip(cut, plain(image), strict=True):
        torch.testing.assert_close(ours, theirs)
    after = model(image)
    assert not torch.allclose(cut[2], before[2])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # as it was


def test_the_field_is_the_norm_of_the_jacobian(image):
    """Random signs stand for all channels: their average gives the same result."""
    small = image[..., :64, :64]
    model = network()
    found = effective_receptive_field(model, [small], 3, (1, 2), draws=400)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: model.stages[2](model.downsamples[1](model.stages[1](model.downsamples[0](
            model.stages[0](model.stem(x))))))[0, :, 1, 2], small)
    expected = jacobian[:, 0].square().sum((0, 1)).sqrt()
    assert torch.allclose(found.mean(), expected.mean(), rtol=0.05)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99


def test_fields_are_averaged_over_images(image):
    model = network()
    other = image.flip(-1)
    fields = [effective_receptive_field(model, images, 2, (5, 5), draws=2)
              for images in ([image], [other], [image, other])]
    torch.testing.assert_close(fields[2], (fields[0] + fields[1]) / 2)
    assert not torch.allclose(fields[0], fields[1])


@pytest.mark.parametrize('given, message', [
    (dict(stage=5), 'stage=5: this backbone has stages 1 to 4'),
    (dict(cell=(14, 0)), r'cell=\(14, 0\): the map of stage 3 has 14 x 23 cells'),
    (dict(draws=0), 'draws=0'),
    (dict(images=[]), 'give one or more'),
])
def test_bad_arguments_are_named(given, message, image):
    with pytest.raises(ValueError, match=message):
        effective_receptive_field(**{**dict(
            backbone=network(), images=[image], stage=3, cell=(0, 0), draws=1), **given})
