"""Network in a checked mode, ready to be timed."""
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Tuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from fastervit_mm.engine.memory import keep_freed_memory
from fastervit_mm.engine.onednn import OneDnnLinear, use_onednn
from fastervit_mm.models import find_backbones, switch_to_deploy

from .measure import Graph, Laps, Matmul, NotMeasured, multiply_adds, peak_memory, peak_of, spread
from .peers import PEERS, Predictor, Size

MODES = ('eager', 'onednn', 'channels_last', 'deployed', 'compiled', 'graph')
PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'amp': torch.bfloat16}


@dataclass
class Result:
    """Case and its figures.

    Attributes:
        model: Key of :data:`~benchmarks.speed.peers.PEERS`.
        mode: Some of :data:`MODES`, joined by ``+``.
        precision: Key of :data:`PRECISIONS`.
        step: ``'forward'`` or ``'train'``, forward and backward.
        size: (height, width) in pixels.
        batch: Images a step.
        top1: The network's published ImageNet-1K accuracy, in per cent.
        group: Number shared by the cases that took turns.
        seconds: Median time of a step.
        low, high: Quartiles, in seconds.
        images_per_second: Batch over median.
        peak_bytes: Peak memory of a step, beyond weights and input; for a CUDA graph what it keeps.
        multiply_adds: Multiply-adds of a step.
        fraction_of_peak: Speed relative to a matrix product's, measured in that precision.
        graphs: Graphs that ``torch.compile`` made; None without it.
        error: Why there are no figures; None if there are.
        all_seconds: Time of a step in each lap.
    """
    model: str
    mode: str
    precision: str
    step: str
    size: Size
    batch: int
    top1: Optional[float] = None
    group: int = 0
    seconds: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None
    images_per_second: Optional[float] = None
    peak_bytes: Optional[int] = None
    multiply_adds: Optional[int] = None
    fraction_of_peak: Optional[float] = None
    graphs: Optional[int] = None
    error: Optional[str] = None
    all_seconds: List[float] = field(default_factory=list)

    def enter(self, seconds: List[float]) -> None:
        """Fill in times, from a step's seconds in each lap."""
        self.all_seconds = [round(s, 6) for s in seconds]
        self.seconds, self.low, self.high = spread(seconds)
        self.images_per_second = self.batch / self.seconds


def modes_of(model: str, device: str, step: str, precision: str) -> List[str]:
    """Modes that may be a network's best: ``--modes all``.

    Only those that make a difference: in training and in 16 bits, compiled linear layers do not
    need our call of oneDNN; only a FasterViT or SwinHAT can be deployed.
    """
    if device == 'cuda':
        modes = ['eager', 'channels_last', 'channels_last+compiled']
        if step == 'forward':
            modes += ['channels_last+graph', 'channels_last+compiled+graph']
    else:
        products = 'onednn+' if step == 'forward' and precision == 'fp32' else ''
        modes = ['eager', 'onednn', 'onednn+channels_last', f'{products}channels_last+compiled']
        if model.startswith(('caformer', 'convformer')):  # few linear layers, none with a bias
            modes = ['eager', 'onednn', 'channels_last', 'channels_last+compiled']
    if ('fastervit' in model or 'swin-hat' in model) and step == 'forward':
        modes += [f'{mode}+deployed' for mode in modes if mode != 'eager']
    return modes


def settle(threads: int) -> Dict[str, object]:
    """Apply and return the settings of a measuring process."""
    warnings.simplefilter('ignore')
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    config = torch._dynamo.config
    if hasattr(config, 'fail_on_recompile_limit_hit'):
        config.fail_on_recompile_limit_hit = True
    return dict(
        threads=threads, freed_memory_kept=keep_freed_memory(),
        inference='torch.inference_mode', tf32=False, cudnn_benchmark=True,
        attention='fused where timm or the network can', compile=dict(
            dynamic=False, backend='inductor', fail_on_recompile_limit_hit=getattr(
                config, 'fail_on_recompile_limit_hit', None)))


class Compiler:
    """Inductor backend that counts graphs and runs.

    Attributes:
        graphs: Graphs compiled.
        runs: Calls of compiled graphs.
        dynamic: Whether a graph has a variable size.
    """

    def __init__(self):
        self.graphs = self.runs = 0
        self.dynamic = False
        self._inductor = torch._dynamo.lookup_backend('inductor')

    def __call__(self, graph: torch.fx.GraphModule, inputs: list) -> Callable:
        self.graphs += 1
        sizes = [size for x in inputs for size in (x.shape if isinstance(x, torch.Tensor) else [x])]
        self.dynamic |= any(isinstance(size, torch.SymInt) for size in sizes)
        compiled = self._inductor(graph, inputs)

        def run(*args):
            self.runs += 1
            return compiled(*args)
        return run

    def compile(self, network: nn.Module) -> nn.Module:
        """Compile a network for one size.

        Of a whole network, backbone and neck, as in ``tools/test.py``.
        """
        if not isinstance(network, Predictor):
            return torch.compile(network, backend=self, dynamic=False)
        for part in ('backbone', 'neck'):
            if getattr(network.model, part, None) is not None:
                getattr(network.model, part).compile(backend=self, dynamic=False)
        return network


class Case:
    """Warmed-up network in one mode, which is checked.

    Args:
        result: The case; its figures are not filled in.
        device: Where it runs.
        warmup: Steps before anything is measured; the first one compiles.
        memory: Whether to measure memory and count multiply-adds as well.
        count: False leaves out the count, which takes a step. Default True.
        burn_in: See :class:`~benchmarks.speed.measure.Laps`.

    Attributes:
        facts: Figures of ``result`` that are known before the first lap.
        checked_seconds: Seconds of the step that checked the use of oneDNN; None without it.

    Raises:
        NotMeasured: If the mode did not take effect.
    """

    def __init__(self, result: Result, device: torch.device, warmup: int = 2, memory: bool = True,
                 burn_in: Optional[float] = None, count: bool = True):
        self.result, self.device, self.calls = result, device, 0
        self._peak: Optional[int] = None
        self.checked_seconds: Optional[float] = None
        self.modes = result.mode.split('+')
        self.graph: Optional[Graph] = None
        self._check_possible()
        self._build()
        for _ in range(warmup):
            self.step()
        if 'graph' in self.modes:
            self.graph = Graph(self._forward)
        self._check_happened()
        self.facts = dict(graphs=self.compiler.graphs if self.compiler else None)
        if memory:
            self.facts['peak_bytes'] = (self.graph.bytes if self.graph
                                        else self._peak or peak_memory(self.step, device))
            # Counted on the network as written: a compiled one is opaque.
            if count and not (self.graph or self.compiler):
                self.facts['multiply_adds'] = multiply_adds(self.step)
        self._laps = Laps(self.step, device, burn_in=burn_in)
        self._compiled_before = self._compiled()

    def _check_possible(self) -> None:
        unknown = [m for m in self.modes if m not in MODES]
        if unknown:
            raise NotMeasured(f'mode={self.result.mode!r}: give {", ".join(MODES)}, joined by "+"')
        if 'onednn' in self.modes and self.device.type != 'cpu':
            raise NotMeasured('onednn: products through oneDNN need a CPU')
        if 'graph' in self.modes and self.device.type != 'cuda':
            raise NotMeasured('graph: CUDA graphs need a GPU')
        if self.result.step == 'train':
            if 'deployed' in self.modes or 'graph' in self.modes:
                raise NotMeasured(f'{self.result.mode}: only the forward step is measured')
            if PEERS[self.result.model].whole:
                raise NotMeasured('whole networks: only the forward step is measured')

    def _build(self) -> None:
        torch.manual_seed(0)
        result, modes = self.result, self.modes
        network = PEERS[result.model].build(result.size).to(self.device)
        network.train(result.step == 'train')
        if 'deployed' in modes:
            switch_to_deploy(network)
        if 'onednn' in modes:  # as our tools do on a CPU; every model gains
            use_onednn(network)
        image = torch.randn(result.batch, 3, *result.size, device=self.device)
        if result.precision == 'bf16':
            network, image = network.bfloat16(), image.bfloat16()
        if 'channels_last' in modes:
            network = network.to(memory_format=torch.channels_last)
            image = image.contiguous(memory_format=torch.channels_last)
        self.plain, self.image = network, image
        self.compiler = Compiler() if 'compiled' in modes else None
        self.network = self.compiler.compile(network) if self.compiler else network

    def step(self) -> None:
        """Forward, or forward and backward."""
        self.calls += 1
        if self.graph:
            self.graph()
        elif self.result.step == 'forward':
            self._forward()
        else:
            with self._cast():
                maps = self.network(self.image)
            sum(m.float().mean() for m in maps).backward()
            self.plain.zero_grad(set_to_none=True)

    def _forward(self):
        with torch.inference_mode(), self._cast():
            return self.network(self.image)

    def _cast(self):
        return (torch.autocast(self.device.type, torch.bfloat16)
                if self.result.precision == 'amp' else nullcontext())

    def _check_happened(self) -> None:
        if 'deployed' in self.modes and not all(b.deployed for b in find_backbones(self.plain)):
            raise NotMeasured('deployed: a backbone is not')
        if 'onednn' in self.modes and not self._used_onednn():
            raise NotMeasured('onednn: no linear layer went through it')
        if self.compiler:
            # A CUDA graph's replay runs no Python, but its capture, just before, did.
            if not (self.compiler.runs if self.graph else self._runs_of_a_step()):
                raise NotMeasured('compiled: torch.compile made nothing that a step runs')
            if self.compiler.dynamic:
                raise NotMeasured('compiled: for any size, not for this one')

    def _used_onednn(self) -> bool:
        """Whether a convolution has the weights of a linear layer."""
        weights = [(*m.weight.shape, 1, 1) for m in self.plain.modules()
                   if isinstance(m, OneDnnLinear)]
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True,
                     profile_memory=True) as record:
            started = time.perf_counter()
            self.step()
            self.checked_seconds = time.perf_counter() - started
        self._peak = peak_of(record)  # saves a further step: a large image's takes a minute
        return any(tuple(event.input_shapes[1]) in weights for event in record.events()
                   if event.name == 'aten::mkldnn_convolution')

    def _runs_of_a_step(self) -> int:
        before = self.compiler.runs
        self.step()
        return self.compiler.runs - before

    def _compiled(self) -> Tuple[int, int, int]:
        if not self.compiler:
            return 0, 0, 0
        a_step = 0 if self.graph else self._runs_of_a_step()
        return self.compiler.graphs, self.compiler.runs - a_step * self.calls, a_step

    def lap(self, burn_in: float = 0) -> float:
        """Seconds per step, over one lap."""
        self._laps.burn(burn_in)
        seconds = self._laps.lap()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the others need the memory
        return seconds

    def verify(self) -> None:
        """Check that every lap ran the graphs compiled before.

        Raises:
            NotMeasured: If not.
        """
        if self._compiled() != self._compiled_before:
            raise NotMeasured('compiled: compiled again, or not run, while it was timed')


class Product:
    """The machine's best speed, measured like a :class:`Case`."""

    facts: dict = {}

    def __init__(self, name: str, device: torch.device, precision: str,
                 burn_in: Optional[float] = None):
        product = Matmul(device, PRECISIONS[precision])
        self.operations, step = product.operations, product.steps[name]
        step()
        self._laps = Laps(step, device, burn_in=burn_in)

    lap = Case.lap

    def verify(self) -> None:
        """Do nothing; there is no mode to check."""
