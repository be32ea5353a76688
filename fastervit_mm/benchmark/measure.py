"""Timing side by side, memory, and multiply-adds."""
import gc
import time
from statistics import median, quantiles
from typing import Callable, Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

Step = Callable[[], object]


def interleave(steps: Dict[str, Step], rounds: int, device: torch.device,
               advance: Callable[[], None] = lambda: None) -> Dict[str, List[float]]:
    """Seconds of every step, taken in turns, so that a noisy machine disturbs all alike.

    Args:
        steps: What to time, by name. Each runs once a round; the order turns with the rounds.
        rounds: How often.
        device: Where the steps run; a GPU is waited for.
        advance: Called after each step, for a progress bar.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds):
        for name in names[number % len(names):] + names[:number % len(names)]:
            _wait(device)
            started = time.perf_counter()
            steps[name]()
            _wait(device)
            seconds[name].append(time.perf_counter() - started)
            advance()
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def spread(seconds: List[float]) -> Tuple[float, float, float]:
    """Median and quartiles."""
    if len(seconds) < 2:
        return seconds[0], seconds[0], seconds[0]
    low, _, high = quantiles(seconds, n=4, method='inclusive')
    return median(seconds), low, high


def peak_memory(step: Step, device: torch.device) -> int:
    """Bytes that a step allocates at its height, over what was there before.

    On a GPU the allocator's own figure. On a CPU the sum of PyTorch's allocations and releases in
    their order: exact, and untouched by whatever else runs. Scratch memory of oneDNN is not seen.
    """
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    changes = sorted((event.start_ns(), event.nbytes())
                     for event in record.profiler.kineto_results.events()
                     if event.name() == '[memory]')
    level = peak = 0
    for _, change in changes:
        level += change
        peak = max(peak, level)
    return peak


def multiply_adds(step: Step) -> int:
    """Multiply-adds of a step: convolutions and every matrix product, attention's included."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() // 2


class Matmul:
    """A large matrix product: what the machine can do at best while the others are measured.

    On a CPU it is taken twice, as ``torch.mm`` and as a 1 x 1 convolution, since PyTorch sends the
    two to different libraries of which either may be the faster one; the better counts.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        # Some tenths of a second on a CPU, long enough to fill a GPU.
        size = 8192 if device.type == 'cuda' else 2048
        self.factors = [torch.randn(size, size, device=device).to(dtype) for _ in range(2)]
        self.operations = 2 * size**3  # two for each multiply-add, as manufacturers count
        pixels = self.factors[0][None, None].permute(0, 3, 1, 2)
        self.steps: Dict[str, Step] = {'mm': lambda: torch.mm(*self.factors)}
        if device.type == 'cpu':
            self.steps['conv'] = lambda: F.conv2d(pixels, self.factors[1][:, :, None, None])
