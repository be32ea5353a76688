"""The contract that OpenMMLab users expect of a backbone."""
import copy
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from fastervit_mm import FasterViT
from fastervit_mm.backbone import VARIANTS
from fastervit_mm.compat import TORCH
from tests.conftest import REPO, TINY, stir


def test_found_from_every_child_registry():
    import mmdet.registry
    import mmpretrain.registry
    import mmseg.registry
    for registry in (MODELS, mmdet.registry.MODELS, mmseg.registry.MODELS,
                     mmpretrain.registry.MODELS):
        assert registry.get('FasterViT') is FasterViT


def test_runs_without_mmcv_mmdet_and_mmseg():
    code = ("import sys\n"
            "for name in ('mmcv', 'mmdet', 'mmseg', 'mmpretrain'): sys.modules[name] = None\n"
            "import torch, fastervit_mm\n"
            "print(len(fastervit_mm.FasterViT('0')(torch.rand(1, 3, 64, 64))))")
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout.strip() == '4', done.stderr


MODEL = FasterViT(TINY).eval()


@settings(deadline=None, max_examples=30)
@given(height=st.integers(32, 260), width=st.integers(32, 260), batch=st.integers(1, 2))
def test_any_size_gives_ceil_strided_maps(height, width, batch):
    with torch.no_grad():
        maps = MODEL(torch.rand(batch, 3, height, width))
    for i, m in enumerate(maps):
        stride = 4 * 2**i
        assert m.shape == (batch, MODEL.out_channels[i], math.ceil(height / stride),
                           math.ceil(width / stride))
        assert m.isfinite().all()


@settings(deadline=None, max_examples=15)
@given(height=st.integers(32, 200), width=st.integers(32, 200))
def test_an_image_is_computed_alike_alone_and_in_a_batch(height, width):
    images = torch.rand(2, 3, height, width)
    with torch.no_grad():
        for both, alone in zip(MODEL(images), MODEL(images[1:])):
            torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('out_indices', [(0, ), (1, ), (0, 2), (3, ), (1, 2, 3)])
def test_no_parameter_is_without_a_gradient(tiny_arch, out_indices):
    model = FasterViT(tiny_arch, out_indices=out_indices)
    outs = model(torch.rand(2, 3, 70, 50))
    assert [o.shape[1] for o in outs] == list(model.out_channels)
    sum(o.square().mean() for o in outs).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


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
def test_frozen_stages_hold_after_train(tiny_arch, frozen_stages):
    model = FasterViT(tiny_arch, frozen_stages=frozen_stages).train()
    model.eval()
    model.train()
    frozen = ['stem.'] if frozen_stages >= 0 else []
    for stage in range(max(frozen_stages, 0)):
        frozen += [f'stages.{stage}.', f'downsamples.{stage}.']
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is not name.startswith(tuple(frozen) or ('-', )), name
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            assert module.training is not f'{name}.'.startswith(tuple(frozen) or ('-', )), name
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(o.square().mean() for o in model(torch.rand(2, 3, 64, 64))).backward()
    optimizer.step()
    for name, tensor in model.state_dict().items():
        if name.startswith(tuple(frozen) or ('-', )):
            assert torch.equal(tensor, before[name]), name


def test_norm_eval_keeps_every_batch_norm_on_its_statistics(tiny_arch):
    model = FasterViT(tiny_arch, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(m.training for m in norms)
    assert model.training and model.stages[2].training
    before = [m.running_mean.clone() for m in norms]
    model(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before))


def test_with_cp_gives_the_same_gradients_and_statistics(tiny_arch):
    plain = FasterViT(tiny_arch, drop_path_rate=0.3)
    stir(plain)
    saving = FasterViT(tiny_arch, drop_path_rate=0.3, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    image = torch.rand(2, 3, 96, 64)
    for model in (plain, saving):
        torch.manual_seed(3)  # the same blocks dropped
        sum(o.square().mean() for o in model(image)).backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters()):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, a), b in zip(plain.named_buffers(), saving.buffers()):
        torch.testing.assert_close(b, a, msg=name)


def test_with_cp_saves_activations(tiny_arch):
    def kept_bytes(model):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
                lambda t: kept.setdefault(t.data_ptr(), t.nbytes) and t, lambda t: t):
            model(torch.rand(1, 3, 128, 128))
        return sum(kept.values())

    assert kept_bytes(FasterViT(tiny_arch, with_cp=True)) < 0.5 * kept_bytes(FasterViT(tiny_arch))


def test_drop_path_drops_whole_images(tiny_arch):
    """An image either gets a block's branch or does not, in all of its windows alike."""
    from fastervit_mm.backbone.attention import WindowBlock
    from fastervit_mm.backbone.positions import Places
    from fastervit_mm.backbone.stochastic_depth import StochasticDepth
    block = WindowBlock(8, 2)
    x = torch.rand(64, 5, 4, 8)
    cells = Places((2, 2), 1).filled(torch.device('cpu'))
    keep, = StochasticDepth([0.5], block.branches)(x)
    changed = (block.mix(x, cells, keep) != x).flatten(2).any(-1)
    assert (changed.all(1) | ~changed.any(1)).all()
    assert torch.equal(changed[:, 0], keep.any(0))
    assert changed.any() and not changed.all()


def test_stochastic_depth_is_timm_s():
    """Each branch of each block by itself: 0, or what keeps the mean; nothing in evaluation."""
    from fastervit_mm.backbone.stochastic_depth import StochasticDepth
    depth = StochasticDepth([0., 0.2, 0.5], branches=4)
    first, second, third = depth(torch.rand(5000, 1, dtype=torch.double))
    assert first.shape == (4, 5000) and first.dtype == torch.double and (first == 1).all()
    assert second.unique().tolist() == pytest.approx([0, 1.25])
    assert third.unique().tolist() == [0, 2]
    means = torch.stack((second, third)).mean(-1)
    torch.testing.assert_close(means, torch.ones_like(means), atol=0.06, rtol=0)
    assert len({tuple(branch[:64].tolist()) for branch in (*second, *third)}) == 8
    assert depth.eval()(torch.rand(2, 1)) == [None] * 3
    assert StochasticDepth([0., 0.], 2)(torch.rand(2, 1)) == [None] * 2


def test_stochastic_depth_survives_the_meta_device(tiny_arch):
    """Large networks are made there, and filled from a checkpoint."""
    from fastervit_mm.backbone.stochastic_depth import StochasticDepth
    tiny_arch.update(drop_path_rate=0.2)
    with torch.device('meta'):
        model = FasterViT(tiny_arch)
    model.to_empty(device='cpu').load_state_dict(FasterViT(tiny_arch).state_dict())
    depths = [m for m in model.modules() if isinstance(m, StochasticDepth)]
    assert len(depths) == 4 and depths[3].rates == (0.2, )
    assert set(depths[3](torch.rand(200, 1))[0].unique().tolist()) == {0, 1.25}


@pytest.mark.parametrize('arch', ['carriers', 'windows'])
def test_a_rate_of_nearly_one_leaves_the_first_block_alone(tiny_arch, arch):
    """Rates reach the blocks that they are meant for."""
    tiny_arch.update(drop_path_rate=1 - 1e-6, depths=(1, 1, 1, 1), hierarchical=arch == 'carriers')
    model = FasterViT(tiny_arch, out_norm=None).train()
    stage = model.stages[3]
    seen = []
    stage.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    model(torch.rand(2, 3, 224, 224))
    (x, out), = seen
    with torch.no_grad():
        position = stage.blocks[0].position(stage.cells(False).filled(x.device), x.dtype)
    torch.testing.assert_close(out, x + position.view(1, 7, 7, -1).permute(0, 3, 1, 2))


def test_the_meta_device_runs(tiny_arch):
    """As tools that count or plan use it; autocast knows no such device."""
    with torch.device('meta'):
        model = FasterViT(tiny_arch)
        for mode in (model.train(), model.eval()):
            assert mode(torch.rand(2, 3, 230, 333))[3].shape == (2, 128, 8, 11)
        assert model.switch_to_deploy()(torch.rand(2, 3, 64, 64))[3].shape == (2, 128, 2, 2)


@pytest.mark.skipif(TORCH < (2, 6), reason='FSDP of this kind needs torch 2.6')
@pytest.mark.parametrize('propagate', [True, False])
def test_blocks_may_be_sharded_by_fsdp(tmp_path, tiny_arch, propagate):
    """A block's weights are used in its own forward alone: there they are whole."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    arch = dict(tiny_arch, depths=(1, 1, 2, 1), layer_scale=0.5, propagate_carriers=propagate)
    model = FasterViT(arch)
    stir(model)
    sharded = FasterViT(arch)
    sharded.load_state_dict(model.state_dict())
    for network in (model, sharded):
        network.to(memory_format=torch.contiguous_format)  # FSDP takes no other parameters
    image = torch.rand(2, 3, 224, 320)
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh('cpu', (1, ))
        for stage in sharded.stages:
            for block in stage.blocks:
                fully_shard(block, mesh=mesh)
        fully_shard(sharded, mesh=mesh)

        def step(network):
            outs = network(image)
            sum(out.square().mean() for out in outs).backward()
            return outs
        for got, expected in zip(step(sharded), step(model), strict=True):
            torch.testing.assert_close(got, expected)
        plain = dict(model.named_parameters())
        for name, parameter in sharded.named_parameters():
            torch.testing.assert_close(parameter.grad.full_tensor(), plain[name].grad, msg=name,
                                       rtol=1e-4, atol=1e-5)
    finally:
        dist.destroy_process_group()


def test_state_dict_does_not_depend_on_window_or_size_seen(tiny_arch):
    model = FasterViT(tiny_arch, window_size=7).eval()
    before = {k: v.shape for k, v in model.state_dict().items()}
    with torch.no_grad():
        model(torch.rand(1, 3, 200, 64))
    assert {k: v.shape for k, v in model.state_dict().items()} == before
    other = FasterViT(tiny_arch, window_size=(10, 5), ct_size=3)
    assert {k: v.shape for k, v in other.state_dict().items()} == before


@pytest.mark.parametrize('window_size, ct_size', [(7, 2), (8, 1), (5, 3), (4, 4), ((14, 7), 2)])
def test_other_windows_and_carrier_counts_run(tiny_arch, window_size, ct_size):
    model = FasterViT(tiny_arch, window_size=window_size, ct_size=ct_size).eval()
    assert all(m.isfinite().all() for m in model(torch.rand(1, 3, 32, 150)))


def test_other_channels(tiny_arch):
    assert FasterViT(tiny_arch, in_channels=4)(torch.rand(2, 4, 64, 64))[0].shape[1] == 16


@pytest.mark.parametrize('arch', VARIANTS)
def test_every_variant_is_built_to_its_table(arch):
    with torch.device('meta'):
        model = FasterViT(arch)
    variant = VARIANTS[arch]
    assert model.out_channels == tuple(variant.embed_dim * 2**i for i in range(4))
    assert tuple(len(s.blocks) for s in model.stages) == variant.depths


def test_half_precision_and_autocast(tiny_arch):
    model = FasterViT(tiny_arch).eval()
    image = torch.rand(1, 3, 64, 100)
    with torch.no_grad():
        expected = model(image)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = model(image)
        low = copy.deepcopy(model).bfloat16()(image.bfloat16())
    for e, m, b in zip(expected, mixed, low):
        torch.testing.assert_close(m.float(), e, rtol=0.1, atol=0.1)
        torch.testing.assert_close(b.float(), e, rtol=0.1, atol=0.1)


@pytest.mark.parametrize('arguments, message', [
    (dict(arch='7'), r"arch='7': give one of \['0', '1'"),
    (dict(arch=dict(embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1), width=3)),
     r"unknown fields \['width'\]"),
    (dict(arch=dict(embed_dim=16)), r"missing fields \['stem_channels', 'depths'\]"),
    (dict(arch=dict(TINY, num_heads=(1, 1, 3, 4))), '3 heads do not divide'),
    (dict(out_indices=(4, )), r'out_indices=\(4,\): FasterViT has stages 0 to 3'),
    (dict(out_indices=(-1, )), r'out_indices=\(-1,\): FasterViT has stages 0 to 3'),
    (dict(out_indices=()), r'out_indices=\(\): FasterViT has stages 0 to 3'),
    (dict(out_indices=(2, 1)), 'ascending'),
    (dict(out_indices=(1, 1)), 'ascending'),
    (dict(out_norm='GN'), r"out_norm='GN': give one of \['BN', 'LN'\]"),
    (dict(frozen_stages=5), 'frozen_stages=5'),
    (dict(frozen_stages=-2), 'frozen_stages=-2'),
    (dict(frozen_stages=3, out_indices=(0, 1)), 'up to 2'),
    (dict(in_channels=0), 'in_channels=0'),
    (dict(window_size=(7, )), r'window_size=\(7,\)'),
    (dict(ct_size=8), 'ct_size=8'),
    (dict(drop_path_rate=1.0), 'drop_path_rate=1.0'),
])
def test_bad_arguments_say_what_would_be_right(arguments, message):
    with pytest.raises(ValueError, match=message):
        FasterViT(**{'arch': TINY, **arguments})


@pytest.mark.parametrize('shape, message', [
    ((1, 3, 31, 64), 'input of 31 x 64 pixels'),
    ((1, 3, 64, 20), 'at least 32'),
    ((1, 4, 64, 64), r'expected \(B, 3, H, W\)'),
    ((3, 64, 64), r'expected \(B, 3, H, W\)'),
])
def test_bad_images_say_what_would_be_right(shape, message):
    with pytest.raises(ValueError, match=message):
        MODEL(torch.rand(shape))


def test_distributed_training_needs_no_find_unused_parameters(tmp_path):
    """Two real processes under DDP, two steps: DDP fails in the second if a parameter is unused."""
    torch.multiprocessing.spawn(_train_distributed, (str(tmp_path / 'meet'), ), nprocs=2)


def _train_distributed(rank: int, meeting_point: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{meeting_point}', rank=rank,
                                         world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(FasterViT(TINY, out_indices=(0, 2)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(o.square().mean() for o in model(torch.rand(2, 3, 64, 64))).backward()
        optimizer.step()
    torch.distributed.barrier()
    # Without destructors: gloo's waits for its thread and keeps the GIL, which that one may want.
    os._exit(0)


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
        with torch.no_grad():
            for x, stride in zip(model(x_in), (4, 8, 16, 32), strict=True):
                assert x.is_contiguous()
                pooled = roi_align(x, boxes, (7, 7), 1 / stride, 0, 'avg', True)
                expected = roi_align(x.clone(memory_format=torch.contiguous_format), boxes,
                                     (7, 7), 1 / stride, 0, 'avg', True)
                assert torch.equal(pooled, expected) and pooled.abs().max() > 0
