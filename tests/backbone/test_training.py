"""Training: stochastic depth, recomputing, and several processes."""
import os

import pytest
import torch
from timm.layers import DropPath

from fastervit_mm import FasterViT, HATStage, SwinHAT
from tests.backbone.common import error, gradient_error, gradients, stirred
from tests.conftest import TINY, needs_torch

SWIN = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 4))
NETWORKS = {
    'FasterViT': lambda **more: FasterViT(
        dict(TINY, layer_scale=0.5, propagate_carriers=True), **more),
    'SwinHAT': lambda **more: SwinHAT(SWIN, **more)}


@pytest.fixture(params=NETWORKS.values(), ids=NETWORKS)
def build(request):
    return request.param


@pytest.mark.parametrize('rate', [0., 0.3])
def test_with_cp_gives_the_same_gradients_and_statistics(build, rate):
    """Of the first and of a second step, with the same blocks dropped."""
    plain, saving = (stirred(build(drop_path_rate=rate, with_cp=with_cp)).train()
                     for with_cp in (False, True))
    saving.load_state_dict(plain.state_dict())
    images = torch.rand(2, 4, 3, 96, 64)
    expected, got = (gradients(model, *images, seed=3) for model in (plain, saving))
    assert gradient_error(got, expected) < 1e-5
    for (name, a), b in zip(plain.named_buffers(), saving.buffers()):
        torch.testing.assert_close(b, a, msg=name)


def test_with_cp_saves_activations(build):
    def kept_bytes(model):
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
                lambda t: kept.setdefault(t.data_ptr(), t.nbytes) and t, lambda t: t):
            model(torch.rand(1, 3, 128, 128))
        return sum(kept.values())

    assert kept_bytes(build(with_cp=True)) < 0.5 * kept_bytes(build())


@pytest.mark.parametrize('ct_size, branches', [(0, 2), (2, 4)])
def test_drop_path_drops_whole_images(ct_size, branches):
    """Each branch is dropped in all windows of an image: equal images have few outcomes."""
    stage = stirred(HATStage(8, 1, 2, window_size=4, ct_size=ct_size, drop_paths=(0.5,))).train()
    x = torch.randn(1, 8, 12, 8).expand(200, -1, -1, -1)
    with torch.no_grad():
        found = stage(x).flatten(1)
    outcomes = found.mul(1e3).round().unique(dim=0)
    assert 2**branches / 2 < len(outcomes) <= 2**branches


def test_stochastic_depth_grows_to_the_last_block(build):
    """Every branch of a block has the block's rate, also where the last stages are not built."""
    def rates(**more):
        return [{m.drop_prob for m in block.modules() if isinstance(m, DropPath)}
                for stage in build(drop_path_rate=0.3, **more).stages for block in stage.blocks]
    found = rates()
    assert [list(rate) for rate in found] == [
        pytest.approx([0.3 * i / (len(found) - 1)]) for i in range(len(found))]
    assert rates(out_indices=(0, 1)) == found[:len(rates(out_indices=(0, 1)))]


@pytest.mark.parametrize('hierarchical', [True, False])
def test_a_rate_of_nearly_one_leaves_positions_alone(hierarchical):
    """Every branch has stochastic depth."""
    model = FasterViT(dict(TINY, depths=(1, 1, 1, 1), hierarchical=hierarchical,
                           drop_path_rate=1 - 1e-6), out_norm=None).train()
    stage, seen = model.stages[3], []
    stage.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    model(torch.rand(2, 3, 224, 224))
    (x, out), = seen
    position, = stage.positions(stage.cells.coordinates)
    torch.testing.assert_close(out, x + position.view(1, 7, 7, -1).permute(0, 3, 1, 2))


@needs_torch(2, 7, 'FSDP of this kind is new in 2.6, and on a CPU it needs')
def test_blocks_may_be_sharded_by_fsdp(tmp_path, build):
    """Outputs and gradients stay: a block's weights are used in its own forward alone, position
    terms in the stage's."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    model = stirred(build(drop_path_rate=0.)).train()
    sharded = build(drop_path_rate=0.)
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
        assert error(sharded(image), model(image)) < 1e-5
        found = {name: gradient.full_tensor()
                 for name, gradient in gradients(sharded, image).items()}
        assert gradient_error(found, gradients(model, image)) < 1e-5
    finally:
        dist.destroy_process_group()


def test_distributed_training_needs_no_find_unused_parameters(tmp_path):
    """Two real processes under DDP, two steps: DDP fails in the second if a parameter is unused."""
    torch.multiprocessing.spawn(_train_distributed, (str(tmp_path / 'meet'), ), nprocs=2)


def _train_distributed(rank: int, meeting_point: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'file://{meeting_point}', rank=rank,
                                         world_size=2)
    for network in (FasterViT(TINY, out_indices=(0, 2)), SwinHAT(SWIN, frozen_stages=1)):
        model = torch.nn.parallel.DistributedDataParallel(network)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            sum(o.square().mean() for o in model(torch.rand(2, 3, 64, 64))).backward()
            optimizer.step()
    torch.distributed.barrier()
    # Without destructors: gloo's waits for its thread and keeps the GIL, which that one may want.
    os._exit(0)
