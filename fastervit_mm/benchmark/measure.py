"""Time in turns, memory, and multiply-adds."""
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
        steps: What to time, by name. Each runs once a round; each round starts one name later.
        rounds: Number of rounds.
        device: Where the steps run; a GPU is synchronised before and after each step.
        advance: Called after each step, for a progress bar.

    Returns:
        Seconds of each step in each round, by name.
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
    """Median, lower and upper quartile."""
    if len(seconds) < 2:
        return seconds[0], seconds[0], seconds[0]
    low, _, high = quantiles(seconds, n=4, method='inclusive')
    return median(seconds), low, high


def peak_memory(step: Step, device: torch.device) -> int:
    """Bytes that a step allocates at its peak, beyond what was allocated before.

    On a GPU it is the allocator's own figure. On a CPU it is the running sum of PyTorch's
    allocations and releases: exact, whatever else runs. oneDNN's scratch memory is not measured.
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
    """A large matrix product: the machine's best speed while the other steps are measured.

    On a CPU it is measured as ``torch.mm`` and as a 1 x 1 convolution. PyTorch computes the two
    with different libraries, and either may be faster; the faster one counts.
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
