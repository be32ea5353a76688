"""The published networks in timm's registry, with each file's preprocessing."""
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import get_notrace_functions, get_notrace_modules
from timm.optim import param_groups_layer_decay
from torchvision.models.feature_extraction import create_feature_extractor

from fastervit_mm import FasterViT
from fastervit_mm.backbone import VARIANTS
from fastervit_mm.timm_models import FasterViTClassifier
from fastervit_mm.weights import PUBLISHED, CheckpointError, translate_whole
from tests.conftest import REPO, TINY, stir
from tests.imagenet.conftest import SHALLOW, save_as_published, their_model
from tests.imagenet.test_preprocessing import PUBLISHED as PREPROCESSING

NAMES = [f'fastervit_{arch.replace("-", "_")}' for arch in VARIANTS]


def config_of(name):
    arch = name.removeprefix('fastervit_')
    return PREPROCESSING[f'fastervit-{arch.replace("4_21k", "4-21k")}_in1k']


def test_all_eleven_are_registered_with_weights():
    assert set(timm.list_models('fastervit_*')) == set(NAMES)
    assert {name.partition('.')[0] for name in timm.list_pretrained('fastervit_*')} == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_the_pretrained_cfg_is_the_published_files(name):
    cfg = timm.get_pretrained_cfg(name)
    size, fraction, mode = config_of(name)
    assert cfg.url in PUBLISHED.values() and cfg.custom_load
    data = timm.data.resolve_data_config(pretrained_cfg=cfg.to_dict())
    assert data == dict(input_size=(3, size, size), interpolation='bicubic', crop_pct=fraction,
                        crop_mode=mode, mean=timm.data.IMAGENET_DEFAULT_MEAN,
                        std=timm.data.IMAGENET_DEFAULT_STD)


def tiny(**settings):
    return timm.create_model('fastervit_0', arch=TINY, **settings)


def test_features_are_the_backbones_maps_before_their_norms():
    model = tiny(features_only=True)
    stir(model)
    backbone = FasterViT(TINY, out_norm=None)
    backbone.load_state_dict(model.model.backbone.state_dict())
    image = torch.rand(1, 3, 100, 133)
    with torch.no_grad():
        expected = backbone.eval()(image)
        got = model.eval()(image)
    assert len(got) == 4
    for ours, theirs in zip(got, expected):
        torch.testing.assert_close(ours, theirs)
    assert model.feature_info.channels() == [16, 32, 64, 128]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    some = tiny(features_only=True, out_indices=(0, 2))
    assert [tuple(m.shape[1:]) for m in some(image)] == [(16, 25, 34), (64, 7, 9)]
    assert not any('stages.3' in name for name, _ in some.named_parameters())


@pytest.fixture(scope='module')
def shallow_file(tmp_path_factory):
    theirs = their_model('0', depths=list(SHALLOW), dim=64)
    path = tmp_path_factory.mktemp('timm') / 'fastervit_0_224_1k.pth.tar'
    return save_as_published(theirs, path), theirs, dict(
        embed_dim=64, stem_channels=64, depths=SHALLOW)


def test_pretrained_weights_are_whole(shallow_file):
    path, theirs, arch = shallow_file
    model = timm.create_model('fastervit_0', pretrained=True, arch=arch,
                              pretrained_cfg_overlay=dict(file=path)).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(image)
        assert (model(image) - expected).abs().max() < 1e-5 * expected.abs().max()
    ten = timm.create_model('fastervit_0', pretrained=True, num_classes=10, in_chans=1, arch=arch,
                            pretrained_cfg_overlay=dict(file=path))
    assert torch.equal(ten.backbone.out_norms['3'].running_mean, theirs.norm.running_mean)
    assert ten(image[:, :1]).shape == (1, 10)


def test_another_variant_is_refused_and_nothing_changes(shallow_file):
    model = FasterViTClassifier(TINY)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match='does not fit the model'):
        model.load_pretrained(shallow_file[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_deeper_network_of_the_same_width_is_refused(tmp_path):
    """As FasterViT-6 is FasterViT-5 with more blocks."""
    deeper = FasterViTClassifier(dict(TINY, depths=(1, 2, 3, 1)))
    save_file({k: v.contiguous() for k, v in deeper.state_dict().items()},
              tmp_path / 'deeper.safetensors')
    with pytest.raises(CheckpointError, match='of the file have no place'):
        FasterViTClassifier(TINY).load_pretrained(str(tmp_path / 'deeper.safetensors'))


def test_the_names_are_those_of_configs_mmpretrain(shallow_file):
    model = FasterViTClassifier(shallow_file[2])
    theirs = translate_whole(shallow_file[1].state_dict())
    assert {k for k in model.state_dict()} == set(theirs)


def test_timms_training_options_work():
    model = tiny(drop_path_rate=0.1, drop_rate=0.1)
    model.set_grad_checkpointing()
    model.train()(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters()), 'a part was not used'
    groups = param_groups_layer_decay(model, layer_decay=0.9)
    assert sum(len(g['params']) for g in groups) == len(list(model.parameters()))


@pytest.mark.parametrize('first, second', [('fastervit', 'fastervit_mm'),
                                           ('fastervit_mm', 'fastervit')])
def test_the_authors_package_keeps_its_names(first, second):
    """In either order, without timm's warning about replaced names."""
    code = (f'import warnings\nimport fastervit_mm.compat\nimport {first}, {second}\nimport timm\n'
            'print(timm.model_entrypoint("faster_vit_0_224").__module__)\n'
            'print(timm.model_entrypoint("fastervit_0").__module__)')
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, text=True, capture_output=True)
    assert done.stdout.split() == ['fastervit.models.faster_vit', 'fastervit_mm.timm_models']
    assert 'Overwriting fastervit_' not in done.stderr


def test_the_factorys_device_and_type_are_kept():
    for settings in (dict(), dict(num_classes=0)):
        model = tiny(device='meta', dtype=torch.float64, **settings)
        model.reset_classifier(0)
        model.reset_classifier(3)
        assert {(t.device.type, t.dtype) for t in model.parameters()} == {('meta', torch.float64)}
    with pytest.raises(TypeError, match='not_an_argument'):
        tiny(not_an_argument=1)


def test_another_output_stride_is_refused():
    with pytest.raises(ValueError, match='output_stride=16: give 32'):
        tiny(features_only=True, output_stride=16)


@pytest.mark.parametrize('stage', range(4))
def test_a_pruned_network_gives_the_same_map_and_uses_all_it_has(stage):
    model = tiny().eval()
    stir(model)
    image = torch.rand(2, 3, 70, 96)
    expected = model.forward_intermediates(image, intermediates_only=True)[stage]
    early = model.forward_intermediates(image, [stage], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early, [expected])
    assert model.prune_intermediate_layers([stage], prune_norm=True) == [stage]
    torch.testing.assert_close(model.forward_features(image), expected)
    model(image).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize('prune_head', [False, True])
def test_a_pruned_network_takes_a_new_head_of_its_own_width(prune_head):
    model = tiny().eval()
    image = torch.rand(2, 3, 64, 64)
    model.prune_intermediate_layers([1], prune_head=prune_head)
    assert model(image).shape == (2, 32, 8, 8)
    for pool, width in (('avg', 32), ('catavgmax', 64)):
        model.reset_classifier(7, pool)
        assert model(image).shape == (2, 7)
        pooled = model.forward_head(model.forward_features(image), pre_logits=True)
        assert pooled.shape[1] == model.head_hidden_size == width


def test_fx_traces_it_for_other_sizes_and_with_gradients():
    model = tiny().eval()
    stir(model)
    traced = create_feature_extractor(model, ['head.fc'], tracer_kwargs=dict(
        leaf_modules=get_notrace_modules(), autowrap_functions=get_notrace_functions(),
        param_shapes_constant=True))
    for size in ((64, 64), (97, 150)):
        image = torch.rand(2, 3, *size)
        torch.testing.assert_close(traced(image)['head.fc'], model(image))
    traced(image)['head.fc'].sum().backward()
    assert all(parameter.grad is not None for parameter in traced.parameters())


def test_neither_positions_nor_carrier_biases_decay():
    model = tiny()
    spared = {name for name in dict(model.named_parameters())
              if 'position' in name or name.endswith('carrier_bias')}
    assert spared == model.no_weight_decay() and len(spared) == 6 * 3 + 1
