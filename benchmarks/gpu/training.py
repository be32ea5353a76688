"""Step 2: training in 16 bits, recomputed, distributed, compiled."""
import gc
import tempfile
from contextlib import nullcontext
from typing import List, Sequence, Tuple

import torch
import torch.distributed as dist
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from benchmarks.speed.measure import peak_memory

from .networks import TINY, build, distance, exact, images, worst
from .report import Report

FULL = dict(arch='2', batch=16, size=(224, 224), small='0', backend='inductor', steps=20,
            sizes=((224, 224), (230, 333), (256, 384), (320, 480), (384, 512), (448, 448),
                   (480, 640), (512, 768), (608, 800), (640, 672)))
# Inductor takes minutes on two cores; Dynamo alone makes the same graphs.
REHEARSAL = dict(arch=TINY, batch=4, size=(32, 32), small=TINY, backend='eager',
                 sizes=((64, 64), (70, 101)), steps=6)

PARAMWISE = dict(norm_decay_mult=0., bias_decay_mult=0.,  # as configs/_base_/fastervit.py
                 custom_keys=dict(position=dict(decay_mult=0.), carrier_bias=dict(decay_mult=0.),
                                  layer_scale=dict(decay_mult=0.)))


def run(report: Report) -> None:
    plan = REHEARSAL if report.rehearse else FULL
    mixed_precision(report, plan)
    report.run('with_cp', 'eager', recomputing, report, plan, None)
    for case, function in (('gradients', distributed), ('steps', distributed_steps)):
        report.run('DDP', case, function, report, plan, needs=10)
    if not report.cuda:
        report.skip('DDP', 'NCCL and SyncBN', 'needs CUDA; here gloo and BatchNorm')
    if plan['backend'] != 'inductor':
        report.skip('compile', 'inductor', f'rehearsed with {plan["backend"]}')
        report.skip('compile', 'many sizes, evaluation', 'as training, without a backward pass')
    else:
        report.run('compile', 'many sizes, evaluation', ten_sizes, report, plan, False, needs=20)
    # Dynamo alone does not know how a checkpoint in a graph is recomputed.
    report.run('with_cp', 'compiled', recomputing, report, plan,
               'inductor' if plan['backend'] == 'inductor' else 'aot_eager', needs=20)
    report.run('compile', 'many sizes, training', ten_sizes, report, plan, True, needs=20)


class Pooled(nn.Module):
    """Backbone with a loss on the means of its maps."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor, targets: Sequence[Tensor]) -> Tensor:
        maps = self.backbone(x)
        return sum(nn.functional.mse_loss(y.float().mean((2, 3)), target)
                   for y, target in zip(maps, targets))


def problem(plan: dict, report: Report, arch=None, **settings) -> Tuple[Pooled, Tensor, list]:
    """Network to train, images, and targets."""
    network = Pooled(build(arch or plan['arch'], report.device, **settings)).train()
    generator = torch.Generator().manual_seed(3)
    targets = [torch.randn(plan['batch'], width, generator=generator).to(report.device)
               for width in network.backbone.out_channels]
    return network, images(plan['batch'], plan['size'], report.device), targets


def optim_wrapper(network: nn.Module, dtype: torch.dtype, device: torch.device,
                  constructor: str = 'MergedOptimWrapperConstructor') -> OptimWrapper:
    """mmengine's optimizer wrapper as in our configs."""
    cfg = dict(type='OptimWrapper', constructor=constructor, paramwise_cfg=PARAMWISE,
               optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
    if device.type == 'cuda' and dtype != torch.float32:
        cfg.update(type='AmpOptimWrapper', dtype=str(dtype)[6:], loss_scale='dynamic')
    import fastervit_mm.engine  # noqa: F401  registers the constructor
    # Else mmengine prints a line for each setting of each parameter.
    MMLogger.get_instance('gpu', log_level='ERROR')
    return build_optim_wrapper(network, cfg)


def cast(device: torch.device, dtype: torch.dtype):
    """Autocast on CPUs, where AmpOptimWrapper does not work."""
    on = device.type == 'cpu' and dtype != torch.float32
    return torch.autocast('cpu', dtype) if on else nullcontext()


def train(network: nn.Module, image: Tensor, targets: Sequence[Tensor], dtype: torch.dtype,
          steps: int) -> List[float]:
    """The loss of each step."""
    wrapper = optim_wrapper(network, dtype, image.device)
    losses = []
    for _ in range(steps):
        with cast(image.device, dtype), wrapper.optim_context(network):
            loss = network(image, targets)
        wrapper.update_params(loss)
        losses.append(loss.detach())
    return [loss.item() for loss in losses]  # waits for the GPU only once


def mixed_precision(report: Report, plan: dict) -> None:
    """Check that 20 steps' losses fall and end near float32's."""
    if not report.cuda:
        report.skip('mixed precision', 'AmpOptimWrapper', 'needs CUDA; here OptimWrapper under '
                    'autocast, without a loss scale')
    ends = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        ends[dtype] = report.run('mixed precision', str(dtype)[6:], _train_in, report, plan,
                                 dtype, ends.get(torch.float32))


def _train_in(report: Report, plan: dict, dtype: torch.dtype, right) -> float:
    network, image, targets = problem(plan, report, drop_path_rate=0.)
    with exact():
        losses = train(network, image, targets, dtype, plan['steps'])
    name = str(dtype)[6:]
    report.check('mixed precision', f'{name}, {plan["steps"]} steps', losses[-1] / losses[0],
                 at_most=0.95, unit='last / first loss', losses=losses)
    if right is not None:
        report.check('mixed precision', f'{name} beside float32', abs(losses[-1] / right - 1),
                     at_most=0.05, unit='of the last loss')
    return losses[-1]


def _gradients(network: nn.Module, image: Tensor, targets, call=None) -> List[Tensor]:
    torch.manual_seed(5)  # stochastic depth
    network.zero_grad()
    (network if call is None else call)(image, targets).backward()
    return [p.grad for p in network.parameters()]


def recomputing(report: Report, plan: dict, backend) -> None:
    """Check with_cp: same gradients, statistics moved once, less memory."""
    mode = 'compiled' if backend else 'eager'
    arch = plan['small' if backend else 'arch']
    drop = dict(drop_path_rate=0.) if backend else {}  # a compiled network draws other numbers
    with exact():
        plain, image, targets = problem(plan, report, arch, **drop)
        right = _gradients(plain, image, targets)
        network, *_ = problem(plan, report, arch, with_cp=True, **drop)
        call = _compiled(network, backend) if backend else None
        found = _gradients(network, image, targets, call)
    report.check('with_cp', f'{mode}: gradients', distance(torch.cat([g.flatten() for g in found]),
                 torch.cat([g.flatten() for g in right])), at_most=1e-3, unit='relative')
    pairs = [(a, b) for a, b in zip(network.modules(), plain.modules())
             if isinstance(b, _BatchNorm)]
    moved = worst([distance([a.running_mean, a.running_var], [b.running_mean, b.running_var])
                   for a, b in pairs])
    report.check('with_cp', f'{mode}: running statistics', moved, at_most=1e-3, unit='relative')
    report.check('with_cp', f'{mode}: statistics moved',
                 max(int(a.num_batches_tracked) for a, _ in pairs), at_most=1, unit='times')
    memory = [peak_memory(lambda net=net: _gradients(net, image, targets), report.device)
              for net in (network, plain)]
    if report.cuda and not backend:
        report.check('with_cp', 'memory', memory[0] / memory[1], at_most=0.8, unit='of plain',
                     bytes=memory)
    elif not backend:
        report.add('with_cp', 'memory', memory[0] / memory[1], unit='of plain', bytes=memory)


def _compiled(network: nn.Module, backend: str, dynamic=None):
    """Compile; raise an error instead of silently running eagerly."""
    torch._dynamo.reset()
    counters.clear()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(network, backend=backend, dynamic=dynamic)


class _Group:
    """Group of one process, by NCCL or, on CPUs, gloo."""

    def __init__(self, device: torch.device):
        self.backend = 'nccl' if device.type == 'cuda' else 'gloo'

    def __enter__(self):
        store = dist.FileStore(tempfile.mktemp(), 1)
        dist.init_process_group(self.backend, store=store, rank=0, world_size=1)

    def __exit__(self, *_):
        dist.destroy_process_group()


def _distributed(network: Pooled, device: torch.device) -> nn.Module:
    if device.type == 'cuda':  # SyncBN's kernels are CUDA's
        network.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(network.backbone)
    return DistributedDataParallel(network)


def distributed(report: Report, plan: dict) -> None:
    """Compare gradients of DDP and SyncBN with undistributed ones."""
    with exact(), _Group(report.device):
        plain, image, targets = problem(plan, report)
        right = [g.clone() for g in _gradients(plain, image, targets)]
        network, *_ = problem(plan, report)
        found = _gradients(_distributed(network, report.device), image, targets)
    report.check('DDP', 'gradients', distance(torch.cat([g.flatten() for g in found]),
                 torch.cat([g.flatten() for g in right])), at_most=1e-3, unit='relative')


def distributed_steps(report: Report, plan: dict) -> None:
    """Train with DDP, which waits for every parameter's gradient."""
    with _Group(report.device):
        network, image, targets = problem(plan, report, with_cp=True)
        losses = train(_distributed(network, report.device), image, targets, torch.bfloat16,
                       plan['steps'])
    report.check('DDP', f'bfloat16, with_cp, {plan["steps"]} steps', losses[-1] / losses[0],
                 at_most=0.98, unit='last / first loss', losses=losses)


def ten_sizes(report: Report, plan: dict, training: bool) -> None:
    """Compare compiled with eager at many sizes; count graphs."""
    gc.collect()
    mode = 'training' if training else 'evaluation'
    network = build(plan['small'], report.device, drop_path_rate=0.)
    call = _compiled(network, plan['backend'], dynamic=True)

    def outputs(function, image: Tensor) -> List[Tensor]:
        if not training:
            with torch.no_grad():
                return list(function(image))
        network.zero_grad()
        maps = function(image)
        sum(y.float().square().mean() for y in maps).backward()
        return [torch.cat([p.grad.flatten() for p in network.parameters()])]

    found = {}
    with exact():
        for size in plan['sizes']:
            image = images(2, size, report.device)
            network.train(training)
            compiled = outputs(call, image)
            found['{} x {}'.format(*size)] = distance(compiled, outputs(network, image))
    case, breaks = f'{len(found)} sizes, {mode}', dict(counters['graph_break'])
    report.check('compile', f'{case}: outputs', worst(list(found.values())), at_most=1e-3,
                 unit='relative', sizes=found)
    report.check('compile', f'{case}: graphs', counters['stats']['unique_graphs'], at_most=2)
    report.check('compile', f'{case}: breaks', sum(breaks.values()), at_most=0, breaks=breaks)
