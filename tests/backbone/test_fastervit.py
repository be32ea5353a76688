"""The contract that OpenMMLab users expect of a backbone."""
import copy
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from timm.models._features_fx import create_feature_extractor
from torch.nn.modules.batchnorm import _BatchNorm

from fastervit_mm import FasterViT, SwinHAT
from fastervit_mm.backbone import VARIANTS
from tests.backbone.common import error, gradients, maps, stirred
from tests.conftest import REPO, TINY


def test_found_from_every_child_registry():
    import mmdet.registry
    import mmpretrain.registry
    import mmseg.registry
    for registry in (MODELS, mmdet.registry.MODELS, mmseg.registry.MODELS,
                     mmpretrain.registry.MODELS):
        assert registry.get('FasterViT') is FasterViT and registry.get('SwinHAT') is SwinHAT


@pytest.mark.parametrize('module, without', [
    ('fastervit_mm', ('mmcv', 'mmdet', 'mmseg', 'mmpretrain'))])
def test_runs_without_mmcv_mmdet_and_mmseg(module, without):
    code = (f'import sys\nfor name in {without}: sys.modules[name] = None\n'
            f'import torch, {module}\n'
            f"print(len({module}.FasterViT('0')(torch.rand(1, 3, 64, 64))))")
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout.strip() == '4', done.stderr


MODEL = FasterViT(TINY).eval()


@settings(deadline=None, max_examples=30)
@given(height=st.integers(32, 260), width=st.integers(32, 260), batch=st.integers(1, 2))
def test_any_size_gives_ceil_strided_maps(height, width, batch):
    for i, m in enumerate(maps(MODEL, torch.rand(batch, 3, height, width))):
        stride = 4 * 2**i
        assert m.shape == (batch, MODEL.out_channels[i], math.ceil(height / stride),
                           math.ceil(width / stride))
        assert m.isfinite().all()


@settings(deadline=None, max_examples=15)
@given(height=st.integers(32, 200), width=st.integers(32, 200))
def test_an_image_is_computed_alike_alone_and_in_a_batch(height, width):
    images = torch.rand(2, 3, height, width)
    for both, alone in zip(maps(MODEL, images), maps(MODEL, images[1:])):
        torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('out_indices', [(0, ), (1, ), (0, 2), (3, ), (1, 2, 3)])
def test_every_parameter_has_a_gradient(tiny_arch, out_indices):
    model = FasterViT(tiny_arch, out_indices=out_indices)
    image = torch.rand(2, 3, 70, 50)
    assert [o.shape[1] for o in model(image)] == list(model.out_channels)
    assert gradients(model, image).keys() == dict(model.named_parameters()).keys()


def test_outputs_are_taken_before_the_downsampling_and_normed(tiny_arch):
    model = FasterViT(tiny_arch, out_norm=None)
    normed = FasterViT(tiny_arch, out_norm='BN')
    normed.load_state_dict(model.state_dict(), strict=False)
    image = torch.rand(2, 3, 64, 96)
    for plain, out in zip(model(image), normed(image)):
        expected = torch.nn.functional.batch_norm(plain, None, None, training=True)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_layer_norm_outputs_are_normed_over_channels(tiny_arch):
    for out in FasterViT(tiny_arch, out_norm='LN')(torch.rand(1, 3, 64, 64)):
        torch.testing.assert_close(out.mean(1), torch.zeros_like(out.mean(1)), rtol=0, atol=1e-4)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3, 4])
def test_frozen_stages_stay_frozen_after_train(tiny_arch, frozen_stages):
    model = FasterViT(tiny_arch, frozen_stages=frozen_stages).train()
    model.eval()
    model.train()
    frozen = ['stem.'] if frozen_stages >= 0 else []
    for stage in range(max(frozen_stages, 0)):
        frozen += [f'stages.{stage}.', f'downsamples.{stage}.']
    frozen = tuple(frozen)  # with none, startswith is False
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen), name
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            assert module.training is not f'{name}.'.startswith(frozen), name
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(o.square().mean() for o in model(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    for name, tensor in model.state_dict().items():
        if name.startswith(frozen):
            assert torch.equal(tensor, before[name]), name


def test_norm_eval_keeps_every_batch_norm_on_its_statistics(tiny_arch):
    model = FasterViT(tiny_arch, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(m.training for m in norms)
    assert model.training and model.stages[2].training
    before = [m.running_mean.clone() for m in norms]
    model(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before))


@pytest.mark.parametrize('arch', ['carriers', 'windows'])
def test_timm_s_fx_extractor_gives_the_same_maps_at_two_sizes(tiny_arch, arch):
    tiny_arch['hierarchical'] = arch == 'carriers'
    model = stirred(FasterViT(tiny_arch, out_norm=None))
    traced = create_feature_extractor(model, {f'stages.{i}': str(i) for i in range(4)})
    for size in ((224, 224), (130, 333)):
        image = torch.randn(1, 3, *size)
        assert error(maps(lambda x: tuple(traced(x).values()), image), maps(model, image)) < 1e-6
        slopes = []
        for network in (lambda x: traced(x).values(), model):
            x = image.clone().requires_grad_()
            sum(m.square().mean() for m in network(x)).backward()
            slopes.append(x.grad)
        assert error(slopes[:1], slopes[1:]) < 1e-5


@pytest.mark.parametrize('deployed', [False, True])
def test_the_meta_device_runs(tiny_arch, deployed):
    """As counting tools use it; autocast does not know this device."""
    with torch.device('meta'):
        model = FasterViT(tiny_arch)
        if deployed:
            model.eval().switch_to_deploy()
        else:
            assert model(torch.rand(2, 3, 230, 333))[3].shape == (2, 128, 8, 11)
        assert model.eval()(torch.rand(2, 3, 230, 333))[3].shape == (2, 128, 8, 11)


@pytest.mark.parametrize('fill', ['to_empty', 'assign'])
def test_a_network_made_on_the_meta_device_is_filled(tiny_arch, fill):
    """As large ones are, from a checkpoint."""
    right, image = stirred(FasterViT(tiny_arch)), torch.rand(1, 3, 96, 160)
    with torch.device('meta'):
        model = FasterViT(tiny_arch).eval()
    if fill == 'to_empty':
        model.to_empty(device='cpu').load_state_dict(right.state_dict())
    else:
        model.load_state_dict(right.state_dict(), assign=True)
    assert all(map(torch.equal, maps(model, image), maps(right, image)))


def test_state_dict_does_not_depend_on_window_or_size_seen(tiny_arch):
    model = FasterViT(tiny_arch, window_size=7).eval()
    before = {k: v.shape for k, v in model.state_dict().items()}
    maps(model, torch.rand(1, 3, 200, 64))
    assert {k: v.shape for k, v in model.state_dict().items()} == before
    other = FasterViT(tiny_arch, window_size=(10, 5), ct_size=3)
    assert {k: v.shape for k, v in other.state_dict().items()} == before


@pytest.mark.parametrize('window_size, ct_size', [(7, 2), (8, 1), (5, 3), (4, 4), ((14, 7), 2)])
def test_other_windows_and_carrier_counts_run(tiny_arch, window_size, ct_size):
    model = FasterViT(tiny_arch, window_size=window_size, ct_size=ct_size).eval()
    assert all(m.isfinite().all() for m in maps(model, torch.rand(1, 3, 32, 150)))


@pytest.mark.parametrize('choice', [
    dict(hierarchical=False), dict(ct_size=3), dict(window_size=4), dict(propagate_carriers=True),
    dict(layer_scale=0.5)], ids=str)
def test_fields_of_arch_have_an_effect(choice):
    """Same seed, another network."""
    image, found = torch.rand(1, 3, 288, 480), []
    for arch in (TINY, dict(TINY, **choice)):
        torch.manual_seed(0)
        found.append(maps(FasterViT(arch).eval(), image)[2])
    assert found[0].shape == found[1].shape and not torch.allclose(*found)


def test_images_of_other_channels_run(tiny_arch):
    assert FasterViT(tiny_arch, in_channels=4)(torch.rand(2, 4, 64, 64))[0].shape[1] == 16


@pytest.mark.parametrize('arch', VARIANTS)
def test_every_variant_is_built_to_its_table(arch):
    with torch.device('meta'):
        model = FasterViT(arch)
    variant = VARIANTS[arch]
    assert model.out_channels == tuple(variant.embed_dim * 2**i for i in range(4))
    assert tuple(len(s.blocks) for s in model.stages) == variant.depths


def test_half_precision_and_autocast(tiny_arch):
    model, image = FasterViT(tiny_arch).eval(), torch.rand(1, 3, 64, 100)
    expected = maps(model, image)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = maps(model, image)
    low = maps(copy.deepcopy(model).bfloat16(), image.bfloat16())
    for e, m, b in zip(expected, mixed, low):
        torch.testing.assert_close(m.float(), e, rtol=0.1, atol=0.1)
        torch.testing.assert_close(b.float(), e, rtol=0.1, atol=0.1)


@pytest.mark.parametrize('arguments, message', [
    (dict(arch='7'), r"arch='7': give one of \['0', '1'"),
    (dict(arch=dict(base='9')), r"arch='9': give one of \['0', '1'"),
    (dict(arch=dict(embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1), width=3)),
     r"unknown fields \['width'\]"),
    (dict(arch=dict(embed_dim=16)), r"missing fields \['stem_channels', 'depths'\]"),
    (dict(arch=dict(TINY, num_heads=(1, 1, 3, 4))), 'num_heads=3 must divide dim=64'),
    (dict(arch=dict(TINY, layer_scale='big')), "layer_scale='big': give a number"),
    (dict(out_indices=(4, )), r'out_indices=\(4,\): FasterViT has stages 0 to 3'),
    (dict(out_indices=(-1, )), r'out_indices=\(-1,\): FasterViT has stages 0 to 3'),
    (dict(out_indices=()), r'out_indices=\(\): FasterViT has stages 0 to 3'),
    (dict(out_indices=(2, 1)), 'ascending'),
    (dict(out_indices=(1, 1)), 'ascending'),
    (dict(out_norm='GN'), r"out_norm='GN': give one of \['BN', 'LN', None\]"),
    (dict(frozen_stages=5), 'frozen_stages=5'),
    (dict(frozen_stages=-2), 'frozen_stages=-2'),
    (dict(frozen_stages=3, out_indices=(0, 1)), 'up to 2'),
    (dict(in_channels=0), 'in_channels=0'),
    (dict(window_size=(7, )), r'window_size=\(7,\)'),
    (dict(ct_size=8), 'ct_size=8: at most window_size=7'),
    (dict(drop_path_rate=1.0), 'drop_path_rate=1.0'),
    (dict(pad_conv_stages=0), 'pad_conv_stages=0'),
])
def test_bad_arguments_say_what_would_be_right(arguments, message):
    with pytest.raises(ValueError, match=message):
        FasterViT(**{'arch': TINY, **arguments})


@pytest.mark.parametrize('shape, message', [
    ((1, 3, 31, 64), 'input of shape .*31, 64.*at least 32'),
    ((1, 3, 64, 20), 'at least 32'),
    ((1, 4, 64, 64), r'expected \(B, 3, H, W\)'),
    ((3, 64, 64), r'expected \(B, 3, H, W\)'),
])
def test_bad_images_say_what_would_be_right(shape, message):
    with pytest.raises(ValueError, match=message):
        MODEL(torch.rand(shape))


@pytest.mark.parametrize('out_norm', ['BN', 'LN', None])
@pytest.mark.parametrize('deployed', [False, True])
def test_maps_are_dense_so_that_roi_align_reads_them_right(tiny_arch, out_norm, deployed):
    """mmcv's RoIAlign takes every map for (B, C, H, W) in memory, whatever its strides say."""
    from mmcv.ops import roi_align
    model = FasterViT(tiny_arch, out_norm=out_norm).eval()
    if deployed:
        model.switch_to_deploy()
    image = torch.randn(2, 3, 96, 160)
    boxes = torch.tensor([[1., 2, 3, 60, 70]])
    for x_in in (image, image.contiguous(memory_format=torch.channels_last)):
        for x, stride in zip(maps(model, x_in), (4, 8, 16, 32), strict=True):
            assert x.is_contiguous()
            pooled = roi_align(x, boxes, (7, 7), 1 / stride, 0, 'avg', True)
            expected = roi_align(x.clone(memory_format=torch.contiguous_format), boxes,
                                 (7, 7), 1 / stride, 0, 'avg', True)
            assert torch.equal(pooled, expected) and pooled.abs().max() > 0
