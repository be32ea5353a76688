"""Step 3: attention kernels, their times, cost of new shapes."""
import gc
import time
from contextlib import nullcontext
from typing import Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.measure import median_seconds
from fastervit_mm.backbone import VARIANTS

from .networks import KERNELS, ODD, TINY, Call, attentions, build, images, kernel_name, named, sized
from .report import Report

FULL = dict(archs=tuple(VARIANTS), sizes=((224, 224), (800, 1280)), timed='2',
            timed_sizes=(((224, 224), 128), ((448, 448), 16), ((800, 1280), 16)),
            padded='4', padded_batch=128, padded_size=(224, 224), counts=range(3, 203, 10),
            seconds=1.)
REHEARSAL = dict(archs=(TINY, ODD), sizes=((64, 64),), timed=TINY,
                 timed_sizes=(((64, 64), 2),), padded=ODD, padded_batch=1, padded_size=(64, 64),
                 counts=range(1, 21), seconds=0.01)
OPERATORS = {'aten::_scaled_dot_product_attention_math': 'math',
             'aten::_scaled_dot_product_flash_attention_for_cpu': 'flash',
             'aten::_scaled_dot_product_flash_attention': 'flash',
             'aten::_scaled_dot_product_efficient_attention': 'efficient',
             'aten::_scaled_dot_product_cudnn_attention': 'cudnn'}


def run(report: Report) -> None:
    plan = REHEARSAL if report.rehearse else FULL
    if not report.cuda:
        report.skip('chosen', 'no variant on the math kernel', 'needs CUDA; a CPU in training '
                    'has no other kernel for a bias')
    # Large variants last, so that the others are done if memory runs out.
    for name, arch in named(plan['archs']).items():
        for deployed in (False, True):
            report.run('chosen', f'{name}{", deployed" * deployed}', chosen, report, name, arch,
                       plan['sizes'], deployed)
    report.run('plan', 'new window counts', plans, report, plan)
    for size, batch in plan['timed_sizes']:
        report.run('time', f'{sized(size)}, batch {batch}', timed, report, plan, size, batch)
    report.run('padding', 'heads of 49 and 56', padded, report, plan)


def chosen(report: Report, name: str, arch, sizes: Sequence[Tuple[int, int]],
           deployed: bool) -> None:
    """Check the kernel of every attention, by dispatcher and profiler.

    In training (undeployed) a bias needs a gradient, which fewer kernels support.
    """
    gc.collect()
    torch.cuda.empty_cache()
    network = build(arch, report.device)
    if deployed:
        network.switch_to_deploy()
    for training in (False,) if deployed else (False, True):
        shapes, operators, launched = {}, set(), set()
        for size in sizes:
            image = images(2, size, report.device)
            calls = attentions(network, image, torch.bfloat16, training)
            shapes.update({call.shape: call.chosen for call in calls})
            seen, kernels = profiled(network, image, training)
            operators |= seen
            launched |= kernels
        case = f'{name}{", deployed" * deployed}{", training" * training}'
        math = [shape for shape, kernel in shapes.items() if kernel == 'math']
        state = dict(at_most=0) if report.cuda else {}
        (report.check if report.cuda else report.add)(
            'chosen', case, len(math) + ('math' in operators), unit='on math', **state,
            note=', '.join(sorted({*shapes.values(), *operators})), shapes=shapes,
            operators=sorted(operators), kernels=sorted(launched))


def profiled(network: nn.Module, image: Tensor, training: bool) -> Tuple[set, set]:
    """Attention operators of a forward pass, and their CUDA kernels."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * image.is_cuda
    network.train(training)
    with profile(activities=activities) as record, torch.set_grad_enabled(training), \
            torch.autocast(image.device.type, torch.bfloat16):
        network(image)
        if image.is_cuda:
            torch.cuda.synchronize()
    names = {event.key for event in record.key_averages()}
    return ({kernel for operator, kernel in OPERATORS.items() if operator in names},
            {n[:160] for n in names if any(w in n for w in ('fmha', 'flash', 'sdpa', 'cudnn'))
             and not n.startswith(('aten::', 'cuda'))})


def plans(report: Report, plan: dict) -> None:
    """Extra time of first calls at new numbers of windows."""
    network = build(plan['timed'], report.device)
    *_, template = attentions(network, images(1, plan['padded_size'], report.device),
                              torch.bfloat16)  # of stage 4

    def make(count: int):
        q, k, v = (torch.randn(count, *template.q.shape[1:], device=report.device,
                               dtype=torch.bfloat16) for _ in range(3))
        return template._replace(q=q, k=k, v=v).attend

    ways = {'what PyTorch chooses': nullcontext(), **{
        f'{name} kernel': sdpa_kernel(KERNELS[name]) for name in ('cudnn', 'efficient')}}
    for way, context in ways.items():
        try:
            with torch.no_grad(), context:
                make(500 if report.cuda else 2)()  # loads libraries
                extra = [_first_call(make(count), report.device) for count in plan['counts']]
        except RuntimeError as error:
            report.skip('plan', way, str(error).split('\n')[0][:80])
            continue
        report.add('plan', f'{way}, {len(extra)} window counts', 1e3 * sum(extra), unit='ms',
                   note=f'largest {1e3 * max(extra):.1f} ms', extra_seconds=extra)


def _first_call(call, device: torch.device) -> float:
    """Extra seconds of the first call over the second."""
    took = []
    for _ in range(2):
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        took.append(time.perf_counter() - started)
    return took[0] - took[1]


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize()


def timed(report: Report, plan: dict, size: Tuple[int, int], batch: int) -> None:
    """Time every kernel on a network's attentions, forward and backward."""
    network = build(plan['timed'], report.device)
    for training in (False, True):
        for call in attentions(network, images(batch, size, report.device), torch.bfloat16,
                               training):
            times = kernel_times(call.to(torch.bfloat16, training), plan['seconds'])
            best = min(times, key=times.get)
            shape = f'{call.shape}{", training" * training}'
            for kernel, seconds in times.items():
                report.add('time', f'{shape}: {kernel}', 1e6 * seconds, unit='µs',
                           note=' '.join(['chosen'] * (kernel == call.chosen)
                                         + ['fastest'] * (kernel == best)))


def kernel_times(call: Call, seconds: float) -> Dict[str, float]:
    """Time of a call by each possible kernel, over ``seconds``."""
    times = {}
    for name, kernel in KERNELS.items():
        def step() -> None:
            out = call.attend()
            if out.requires_grad:
                leaves = [t for t in (call.q, call.k, call.v, call.bias) if t is not None]
                torch.autograd.grad(out, leaves, out.detach())
        with sdpa_kernel(kernel):
            try:
                step()
            except RuntimeError:
                continue
            times[name] = median_seconds(step, seconds)
    return times


def padded(report: Report, plan: dict) -> None:
    """Time heads of a width not divisible by 8."""
    network = build(plan['padded'], report.device)
    image = images(plan['padded_batch'], plan['padded_size'], report.device)
    calls: List[Call] = attentions(network, image, torch.bfloat16)
    variant = network.variant
    width = variant.stage_dim(2) // variant.num_heads[2]
    call = next(c for c in calls if c.q.shape[1] == variant.num_heads[2])
    narrow = call._replace(**{name: getattr(call, name)[..., :width].contiguous()
                              for name in ('q', 'k', 'v')})
    for case, one in ((f'heads of {width}', narrow), (f'heads of {call.q.shape[-1]}', call)):
        kernel = kernel_name(torch._fused_sdp_choice(one.q, one.k, one.v, one.bias, 0., False,
                                                     scale=one.scale))
        report.add('padding', f'{case}: attention, as PyTorch chooses', 1e6 * median_seconds(
            one.attend, plan['seconds']), unit='µs', note=kernel)
    pads = [t[..., :width] for t in (call.q, call.k, call.v)]
    report.add('padding', f'{width} to {call.q.shape[-1]} and back', 1e6 * median_seconds(
        lambda: [F.pad(t, (0, call.q.shape[-1] - width)) for t in pads], plan['seconds']),
        unit='µs', note='three pads of one attention')
    for deployed in (False, True):
        if deployed:
            network.switch_to_deploy()

        def step() -> None:
            with torch.no_grad(), torch.autocast(report.device.type, torch.bfloat16):
                network.eval()(image)
        step()
        report.add('padding', 'whole network' + ', folded' * deployed, 1e3 * median_seconds(
            step, plan['seconds']), unit='ms')
