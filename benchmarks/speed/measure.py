"""Measurement of time, in laps and turns, memory and multiply-adds."""
import gc
import math
import time
from statistics import median, quantiles
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from fastervit_mm.complexity import ATTENTION

Step = Callable[[], object]

LAP_SECONDS = 0.05
"""Least seconds of a lap, well above a clock's resolution."""

BURN_IN = {'cuda': 2.0}
"""Seconds of calls before the first lap: an idle GPU runs at a low clock."""


class NotMeasured(Exception):
    """Reason why a case has no figures."""


class Laps:
    """Timer of a call, lap by lap.

    ``torch.utils.benchmark`` measures one call after the other, and begins each measurement with
    two calls that do not count. Here several calls take turns, so that noise affects all alike, and
    no calls are wasted: a step with a large image takes a minute.

    Args:
        call: The call to time.
        device: Where it runs.
        lap_seconds: Least duration of a lap, filled by calls. Default 50 ms; 0 for one call.
        burn_in: Seconds of calls before the first lap. Default :data:`BURN_IN`.
    """

    def __init__(self, call: Step, device: torch.device, lap_seconds: float = LAP_SECONDS,
                 burn_in: Optional[float] = None):
        self.call, self.device, self.lap_seconds = call, torch.device(device), lap_seconds
        self.calls = 1
        self.burn(BURN_IN.get(self.device.type, 0) if burn_in is None else burn_in)

    def burn(self, seconds: float) -> None:
        """Call for some seconds without timing."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self.call()
            _wait(self.device)

    def lap(self) -> float:
        """Seconds per call, over one lap."""
        while (took := self._took()) < self.lap_seconds:
            self.calls = max(self.calls + 1,
                             math.ceil(1.2 * self.calls * self.lap_seconds / max(took, 1e-6)))
        return took / self.calls

    def _took(self) -> float:
        if self.device.type != 'cuda':
            started = time.perf_counter()
            for _ in range(self.calls):
                self.call()
            return time.perf_counter() - started
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        _wait(self.device)
        started.record()
        for _ in range(self.calls):
            self.call()
        ended.record()
        ended.synchronize()
        return started.elapsed_time(ended) / 1e3


def median_seconds(call: Step, at_least: float = 1.) -> float:
    """Median time of a call alone, by PyTorch's timer.

    Args:
        call: The call to time. Warm it up (compile it) before.
        at_least: Seconds of calls. Default 1.
    """
    timer = Timer('call()', globals=dict(call=call), num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=at_least).median


def interleave(steps: Dict[str, Step], rounds: int, device: torch.device,
               advance: Callable[[], None] = lambda: None, lap_seconds: float = LAP_SECONDS,
               burn_in: Optional[float] = None) -> Dict[str, List[float]]:
    """Time steps in turns, so that noise affects all alike.

    Args:
        steps: Steps to time, by name. Each has one lap per round; each round starts one name later.
        rounds: Number of rounds.
        device: Where the steps run.
        advance: Called after each lap, for a progress bar.
        lap_seconds, burn_in: See :class:`Laps`.

    Returns:
        Seconds per call in each round, by name.
    """
    timers = {name: Laps(step, device, lap_seconds, burn_in) for name, step in steps.items()}
    seconds: Dict[str, List[float]] = {name: [] for name in steps}
    for turn in turns(list(steps), rounds):
        for name in turn:
            seconds[name].append(timers[name].lap())
            advance()
    return seconds


def turns(names: Sequence, rounds: int) -> List[list]:
    """Order of every round; each starts one name later."""
    return [[*names[n % len(names):], *names[:n % len(names)]] if names else []
            for n in range(rounds)]


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def spread(seconds: List[float]) -> Tuple[float, float, float]:
    """Median, lower and upper quartile."""
    if len(seconds) < 2:
        return seconds[0], seconds[0], seconds[0]
    low, _, high = quantiles(seconds, n=4, method='inclusive')
    return median(seconds), low, high


class Graph:
    """CUDA graph of a call, replayed when called.

    Args:
        call: Gives a sequence of tensors, from inputs that stay in place. It is called three times
            before the capture, so that compiling and tuning are not in the graph.

    Attributes:
        bytes: Memory that the graph keeps while it exists.

    Raises:
        NotMeasured: If a replay does not give the call's results.
    """

    def __init__(self, call: Callable[[], Sequence[Tensor]]):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                expected = [t.clone() for t in call()]
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.outputs = call()
        torch.cuda.synchronize()
        self.bytes = torch.cuda.memory_reserved() - before
        check_replay(self._graph.replay, self.outputs, expected)

    def __call__(self) -> Sequence[Tensor]:
        self._graph.replay()
        return self.outputs


def check_replay(replay: Step, outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Raise :class:`NotMeasured` unless a replay gives the expected outputs."""
    with torch.inference_mode():
        for output in outputs:
            output.fill_(math.nan)
        replay()
        for output, right in zip(outputs, expected, strict=True):
            if not (output - right).abs().max() <= 0.02 * right.abs().max():  # NaN fails too
                raise NotMeasured('graph: a replay does not give the outputs of the network')


def peak_memory(step: Step, device: torch.device) -> int:
    """Peak bytes that a step allocates.

    On a GPU it is the allocator's figure. On a CPU it is the largest running sum of PyTorch's
    allocations and releases: exact, whatever else runs. oneDNN's scratch memory is not included.
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
    return peak_of(record)


def peak_of(record: profile) -> int:
    """Peak bytes of a CPU's memory profile, above its start."""
    changes = sorted((event.start_ns() if hasattr(event, 'start_ns') else event.start_us(),  # 2.1
                      event.nbytes())
                     for event in record.profiler.kineto_results.events()
                     if event.name() == '[memory]')
    level = peak = 0
    for _, change in changes:
        level += change
        peak = max(peak, level)
    return peak


def multiply_adds(step: Step) -> int:
    """Multiply-adds of a step's convolutions and matrix products."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        step()
    return counter.get_total_flops() // 2


class Matmul:
    """Large matrix product, to measure the machine's speed.

    On a CPU it is measured as ``torch.mm`` and as a 1 x 1 convolution, which PyTorch computes with
    different libraries; the faster one counts.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype):
        # Some tenths of a second on a CPU, long enough to fill a GPU.
        size = 8192 if device.type == 'cuda' else 2048
        self.factors = [torch.randn(size, size, device=device).to(dtype) for _ in range(2)]
        self.operations = 2 * size**3  # two per multiply-add, as manufacturers count
        pixels = self.factors[0][None, None].permute(0, 3, 1, 2)
        self.steps: Dict[str, Step] = {'mm': lambda: torch.mm(*self.factors)}
        if device.type == 'cpu':
            self.steps['conv'] = lambda: F.conv2d(pixels, self.factors[1][:, :, None, None])

    @staticmethod
    def names(device: torch.device) -> Tuple[str, ...]:
        """Keys of ``steps``."""
        return ('mm', 'conv') if device.type == 'cpu' else ('mm',)
