"""The same weights give the authors' numbers at their training size."""
import pytest
import torch

from fastervit_mm import FasterViT
from fastervit_mm.weights import translate
from tests.backbone.common import error, maps
from tests.imagenet.conftest import their_model


def authors_maps(model, image):
    """The four maps before each downsampling, and the last before the classifier's norm."""
    found = []
    handles = [level.downsample.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
               for level in list(model.levels)[:3]]
    handles.append(model.norm.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])))
    model(image)
    for handle in handles:
        handle.remove()
    return found


def with_weights_of(theirs, arch):
    """Our network sharing their tensors, so that the largest fit in memory."""
    with torch.device('meta'):
        ours = FasterViT(arch, out_norm=None)
    ours.load_state_dict(translate(theirs.state_dict()), strict=True, assign=True)
    return ours.eval()


WHOLE = ('0', '1', '2')
SHORT = dict(depths=(1, 1, 2, 1))


@pytest.mark.parametrize('arch', [
    '0', '1', '2', '3', '4',
    *(pytest.param(arch, marks=pytest.mark.long) for arch in ('5', '6'))])
def test_maps_and_input_gradient_equal_the_authors(arch, authors):
    """0, 1 and 2 as they are; the others at their width, with fewer blocks, which are alike."""
    theirs = authors(arch, **({} if arch in WHOLE else SHORT)).requires_grad_(False)
    ours = with_weights_of(theirs, arch if arch in WHOLE else dict(base=arch, **SHORT))
    ours.requires_grad_(False)
    image = torch.randn(1, 3, 224, 224, requires_grad=True)
    same_image = image.detach().clone().requires_grad_()

    expected, got = authors_maps(theirs, image), ours(same_image)
    assert error(got, expected) < 1e-5
    directions = [torch.randn_like(m) for m in expected]
    torch.autograd.backward(expected, directions)
    torch.autograd.backward(got, directions)
    assert error([same_image.grad], [image.grad]) < 1e-5


@pytest.mark.parametrize('arch, pixels', [
    ('4-21k-224', 224), pytest.param('4-21k-384', 384, marks=pytest.mark.long),
    pytest.param('4-21k-512', 512, marks=pytest.mark.long),
    pytest.param('4-21k-768', 768, marks=pytest.mark.long)])
def test_windows_without_carriers_equal_the_authors(arch, pixels):
    """The 21K variants: windows of 14 to 48 cells in stage 3. Two blocks of each stage."""
    theirs = their_model(arch, depths=(2, 2, 2, 2))
    ours = with_weights_of(theirs, dict(base=arch, depths=(2, 2, 2, 2)))
    image = torch.randn(1, 3, pixels, pixels)
    with torch.no_grad():
        assert error(ours(image), authors_maps(theirs, image)) < 1e-5


@pytest.mark.parametrize('arch, pixels', [('4-21k-384', 384), ('4-21k-512', 512),
                                          ('4-21k-768', 768)])
def test_large_windows_equal_the_authors_in_a_narrow_network(arch, pixels):
    narrow = dict(depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))
    theirs = their_model(arch, dim=16, in_dim=8, **narrow)
    ours = with_weights_of(theirs, dict(base=arch, embed_dim=16, stem_channels=8, **narrow))
    image = torch.randn(1, 3, pixels, pixels)
    with torch.no_grad():
        assert error(ours(image), authors_maps(theirs, image)) < 1e-5


@pytest.mark.parametrize('arch', ['3', '4', '5', '6', '4-21k-224'])
def test_every_tensor_has_the_authors_shape(arch, monkeypatch):
    """At full depth: names and shapes only, in memory that is never written."""
    import fastervit.models.faster_vit as module
    for place, name in ((module, 'trunc_normal_'), (torch.nn.init, 'kaiming_uniform_'),
                        (torch.nn.init, 'uniform_')):
        monkeypatch.setattr(place, name, lambda tensor, *args, **kwargs: tensor)
    theirs = their_model(arch)
    with torch.device('meta'):
        ours = FasterViT(arch, out_norm=None)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in translate(theirs.state_dict()).items()}


def test_training_mode_equals_the_authors_without_drop_path(authors):
    theirs = authors('0', **SHORT)
    for module in theirs.modules():
        if type(module).__name__ == 'DropPath':
            module.drop_prob = 0.0
    ours = FasterViT(dict(base='0', **SHORT), out_norm=None, drop_path_rate=0.0)
    ours.load_state_dict(translate(theirs.state_dict()), strict=True)
    image = torch.randn(2, 3, 224, 224)
    assert error(ours.train()(image), authors_maps(theirs.train(), image)) < 1e-5
    now = translate(theirs.state_dict())
    for name, tensor in ours.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            torch.testing.assert_close(tensor, now[name], msg=name)


@pytest.mark.parametrize('arch, millions', [
    ('0', 31.4), ('1', 53.4), ('2', 75.9), ('3', 159.5), ('4-21k-224', 271.9)])
def test_parameters_with_the_classifier_are_as_published(arch, millions):
    with torch.device('meta'):
        model = FasterViT(arch, out_norm=None)
    width = model.out_channels[-1]
    classifier = 2 * width + width * 1000 + 1000
    total = sum(p.numel() for p in model.parameters()) + classifier
    assert round(total / 1e6, 1) == pytest.approx(millions, abs=0.051)


def test_the_authors_state_dict_loads_where_the_module_loads(authors):
    """Names are translated on loading; strict loading still reports the rest."""
    tensors = authors('0').state_dict()
    ours = FasterViT('0')
    norms = {k: v.clone() for k, v in ours.state_dict().items() if k.startswith('out_norms.')}
    assert ours.load_state_dict(tensors).missing_keys == [] and norms
    expected = translate(tensors)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, norms[name] if name in norms else expected[name]), name
    # In a larger model too, as its own checkpoints are not concerned.
    holder = torch.nn.ModuleDict(dict(backbone=FasterViT('0'), head=torch.nn.Linear(2, 2)))
    holder.load_state_dict({**{f'backbone.{k}': v for k, v in tensors.items()},
                            'head.weight': torch.ones(2, 2), 'head.bias': torch.zeros(2)})
    image = torch.rand(1, 3, 64, 64)
    assert all(map(torch.equal, maps(holder.backbone.eval(), image), maps(ours.eval(), image)))

    key, ours = 'levels.2.blocks.3.hat_attn.qkv.weight', r'stages\.2\.blocks\.3\.carriers\.attn'
    with pytest.raises(RuntimeError, match=rf'Missing.*{ours}\.qkv'):
        FasterViT('0').load_state_dict({k: v for k, v in tensors.items() if k != key})
    with pytest.raises(RuntimeError, match=rf'Unexpected.*{ours}\.no'):
        FasterViT('0').load_state_dict({**tensors, key.replace('qkv', 'no'): tensors[key]})
    with pytest.raises(RuntimeError, match='size mismatch'):
        FasterViT('2').load_state_dict(tensors)


def test_weights_of_other_windows_are_refused_unless_they_are_asked_for():
    narrow = dict(depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))
    tensors = their_model('4-21k-224', dim=16, in_dim=8, **narrow).state_dict()
    arch = dict(base='4-21k-384', embed_dim=16, stem_channels=8, **narrow)
    with pytest.raises(RuntimeError, match=r'windows of 14 and 7 .* has 24 and 12, .*'
                       r'window_size=\(14, 7\).*other_windows=True'):
        FasterViT(arch).load_state_dict(tensors)
    for settings in (dict(other_windows=True), dict(window_size=(14, 7))):
        FasterViT(arch, **settings).load_state_dict(tensors)
    FasterViT(arch, out_indices=(0, 1)).load_state_dict(tensors, strict=False)  # has no windows
