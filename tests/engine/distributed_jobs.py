"""Jobs of test_distributed.py for several processes: ``distributed_jobs.py JOB ARGUMENTS``."""
import copy
import itertools
import sys
from typing import Dict

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from fastervit_mm import FasterViT, SwinHAT
from fastervit_mm.command_line import errors_in_one_line
from fastervit_mm.engine import launch
from fastervit_mm.engine.distributed import exit_without_gloo_teardown
from tests.conftest import TINY, stir

SWIN_HAT = dict(embed_dims=16, depths=(1, 2, 2, 1), num_heads=(1, 1, 2, 4))


@HOOKS.register_module()
class Record(Hook):
    """Write the loss of every iteration, and the weights of the end, to a file."""
    priority = 'LOWEST'

    def __init__(self, out: str):
        self.out, self.losses = out, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss']))

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        weights = {k: v.full_tensor() if hasattr(v, 'full_tensor') else v
                   for k, v in model.state_dict().items()}
        local = sum(getattr(p, '_local_tensor', p).numel() for p in model.parameters())
        torch.save(dict(losses=self.losses, weights=weights, local=local,
                        metrics=runner.message_hub.log_scalars['val/mIoU'].current()), self.out)


def train(config: str, launcher: str, out: str, *settings: str) -> None:
    """Train a config, with Record."""
    cfg = launch.load_config(config, launcher)
    cfg.custom_hooks.append(dict(type='Record', out=out))
    if 'sharded' in settings:
        cfg.runner_type = 'ShardedRunner'
    launch.train(cfg, resume=next((s for s in settings if s.endswith('.pth')), None))


def unused() -> None:
    """Two steps of DDP; in the second it fails if a parameter had no gradient in the first."""
    torch.distributed.init_process_group('gloo')
    subsets = [s for n in (1, 2, 3, 4) for s in itertools.combinations(range(4), n)]
    for indices, with_cp in itertools.product(subsets, (False, True)):
        _two_steps(FasterViT(TINY, out_indices=indices, with_cp=with_cp))
    _two_steps(SwinHAT(SWIN_HAT, with_cp=True))
    print(f'{2 * len(subsets) + 1} networks without unused parameters')


def _two_steps(backbone: FasterViT) -> None:
    model = torch.nn.parallel.DistributedDataParallel(backbone)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(o.square().mean() for o in model(torch.rand(2, 3, 64, 64))).backward()
        optimizer.step()


def gradients() -> None:
    """Gradients of DDP and of one process with all images; BatchNorm in evaluation mode."""
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    images = torch.rand(4, 3, 96, 64)
    tiny = dict(TINY, depths=(1, 1, 1, 1))
    for backbone, compiled in (
            (SwinHAT(SWIN_HAT, drop_path_rate=0., with_cp=True), False),
            (FasterViT(tiny, norm_eval=True), False),
            (FasterViT(tiny, norm_eval=True, with_cp=True), False),
            (FasterViT(tiny, norm_eval=True, with_cp=True), True)):
        stir(backbone)
        expected = _gradients(copy.deepcopy(backbone).train(), images)
        if compiled:  # as tools/train.py --compile does, but for one size and without Inductor
            backbone.compile(dynamic=False, backend='aot_eager')
        model = torch.nn.parallel.DistributedDataParallel(backbone.train())
        got = _gradients(model, images[2 * rank:2 * rank + 2])
        for name, gradient in expected.items():
            torch.testing.assert_close(got[f'module.{name}'], gradient, rtol=1e-4, atol=1e-6,
                                       msg=lambda text: f'{name}: {text}')  # noqa: B023
        with_cp = backbone.stages[0].with_cp
        print(f'{type(backbone).__name__}, with_cp={with_cp}, compiled={compiled}: '
              f'{len(expected)} gradients are equal, '
              f'{torch._dynamo.utils.counters["stats"]["unique_graphs"]} graphs')


def _gradients(model: torch.nn.Module, images: torch.Tensor) -> Dict[str, torch.Tensor]:
    sum(o.square().mean() for o in model(images)).backward()
    return {name: p.grad for name, p in model.named_parameters()}


if __name__ == '__main__':
    with exit_without_gloo_teardown(), errors_in_one_line('job'):
        dict(train=train, unused=unused, gradients=gradients)[sys.argv[1]](*sys.argv[2:])
