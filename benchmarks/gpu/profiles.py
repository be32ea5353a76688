"""Step 6: kernels, launches, and cost of a training step."""
import gc
from collections import Counter
from typing import Callable, Dict, List

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.measure import median_seconds

from .networks import TINY, build, images, sized
from .report import Report
from .training import Pooled, cast, optim_wrapper, problem

FULL = dict(arch='2', size=(224, 224), batches=(1, 128), compiled=True, batch=16, top=40,
            seconds=1.5)
REHEARSAL = dict(arch=TINY, size=(64, 64), batches=(1, 2), compiled=False, batch=2, top=40,
                 seconds=0.01)


def run(report: Report) -> None:
    plan = REHEARSAL if report.rehearse else FULL
    if not report.cuda:
        report.skip('profile', 'CUDA kernels', 'needs CUDA; here operators')
        report.skip('step', 'AmpOptimWrapper and fused AdamW', 'needs CUDA')
    report.run('step', 'merged groups and mmengine\'s', steps, report, plan)
    modes = ['eager', 'deployed'] + ['deployed and compiled'] * plan['compiled']
    if not plan['compiled']:
        report.skip('profile', 'compiled', 'Inductor takes minutes on two cores')
    for mode in modes:
        for batch in plan['batches']:
            report.run('profile', f'{mode}, batch {batch}', forward, report, plan, mode, batch,
                       needs=30 if 'compiled' in mode else 0)
    report.run('profile', 'training step', training, report, plan)


def forward(report: Report, plan: dict, mode: str, batch: int) -> None:
    """Profile a forward pass in bfloat16."""
    gc.collect()
    network = build(plan['arch'], report.device, out_norm=None)
    if 'deployed' in mode:
        network.switch_to_deploy()
    network.bfloat16().to(memory_format=torch.channels_last)
    image = images(batch, plan['size'], report.device).bfloat16()
    image = image.contiguous(memory_format=torch.channels_last)
    call: nn.Module = network
    if 'compiled' in mode:
        torch._dynamo.reset()
        call = torch.compile(network, dynamic=False)

    def step() -> None:
        with torch.inference_mode():
            call(image)
    add(report, plan, f'{mode}, {sized(plan["size"])}, batch {batch}', step)


def add(report: Report, plan: dict, case: str, step: Callable) -> None:
    """Add a step's rows: launches, device and total time, kernels."""
    for _ in range(3):
        step()
    found = kernels(step, report.device)
    launches = sum(kernel['calls'] for kernel in found)
    busy = sum(kernel['seconds'] for kernel in found)
    took = median_seconds(step, plan['seconds'])
    what = 'kernels' if report.cuda else 'operators'
    report.add('profile', f'{case}: {what}', launches, unit='a step',
               note=', '.join(f'{n} {k}' for k, n in by_kind(found).most_common(6)),
               kernels=found[:plan['top']])
    report.add('profile', f'{case}: time in {what}', 1e3 * busy, unit='ms',
               note=found[0]['name'][:60])
    report.add('profile', f'{case}: time', 1e3 * took, unit='ms',
               note=f'{100 * busy / took:.0f} % in {what}')


def kernels(step: Callable, device: torch.device) -> List[Dict[str, object]]:
    """CUDA kernels, or operators on a CPU, the longest first."""
    cuda = device.type == 'cuda'
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=activities) as record:
        step()
        if cuda:
            torch.cuda.synchronize()
    count, seconds = Counter(), Counter()
    for event in record.events():
        on_device = event.device_type == torch.autograd.DeviceType.CUDA
        if on_device != cuda:
            continue
        count[event.name] += 1
        seconds[event.name] += (event.device_time_total if cuda
                                else event.self_cpu_time_total) / 1e6
    return [dict(name=name[:200], calls=count[name], seconds=took)
            for name, took in seconds.most_common()]


KINDS = {'attention': ('fmha', 'flash', 'sdpa', 'scaled_dot'), 'triton': ('triton_',),
         'convolution': ('conv', 'fprop', 'dgrad', 'wgrad'),
         'product': ('gemm', 'nvjet', 'cutlass', 'addmm', '::mm', 'bmm', 'linear'),
         'norm': ('norm',), 'copy': ('copy', 'memcpy', 'cat', 'clone'), 'memset': ('memset',),
         'elementwise': ('elementwise', 'add', 'mul', 'gelu', 'relu'), 'reduction': ('reduce',)}


def by_kind(found: List[Dict[str, object]]) -> Counter:
    """Calls by kind, from kernels' names."""
    counted: Counter = Counter()
    for kernel in found:
        name = str(kernel['name']).lower()
        kind = next((k for k, words in KINDS.items() if any(w in name for w in words)), 'other')
        counted[kind] += kernel['calls']
    return counted


def _training_step(report: Report, plan: dict, constructor: str, dtype=torch.bfloat16):
    network, image, targets = problem(plan, report)
    wrapper = optim_wrapper(network, dtype, report.device, constructor)

    def step() -> None:
        with cast(report.device, dtype), wrapper.optim_context(network):
            loss = network(image, targets)
        wrapper.update_params(loss)
    return step, wrapper, network, (image, targets)


def steps(report: Report, plan: dict) -> None:
    """Time training step and optimizer with both constructors."""
    took = {}
    for constructor in ('DefaultOptimWrapperConstructor', 'MergedOptimWrapperConstructor'):
        step, wrapper, network, given = _training_step(report, plan, constructor)
        name = constructor.replace('OptimWrapperConstructor', '').lower()
        for _ in range(3):
            step()
        groups = len(wrapper.optimizer.param_groups)
        whole = median_seconds(step, plan['seconds'])
        _gradients(network, *given)  # update_params has set them to None
        update = median_seconds(wrapper.optimizer.step, plan['seconds'])
        took[name] = whole
        report.add('step', f'{name}: {groups} groups: training step', 1e3 * whole, unit='ms')
        report.add('step', f'{name}: {groups} groups: optimizer', 1e3 * update, unit='ms',
                   note='fused' if wrapper.optimizer.defaults.get('fused') else '', groups=groups)
    ratio = took['default'] / took['merged']
    if report.cuda:  # a CPU has no launches to save
        report.check('step', 'merged beside default', ratio, at_least=1, unit='times the speed')
    else:
        report.add('step', 'merged beside default', ratio, unit='times the speed')


def _gradients(network: Pooled, image, targets) -> None:
    network(image, targets).backward()


def training(report: Report, plan: dict) -> None:
    """Profile a whole training step."""
    step, *_ = _training_step(report, plan, 'MergedOptimWrapperConstructor')
    add(report, plan, f'training step, {sized(plan["size"])}, batch {plan["batch"]}', step)
