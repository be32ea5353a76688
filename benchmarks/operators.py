"""Count operators and compiled kernels of backbones.

A GPU launches about as many kernels, and their number limits small batches. Two images of 224 x
224. oneDNN is off, since it would hide a convolution's bias. In training a CPU has no fused kernel
for attention with a trained bias, so several operators count for one.
"""
import argparse
import warnings
from collections import Counter
from pathlib import Path
from typing import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.reports import origin, save
from benchmarks.speed.peers import PEERS
from fastervit_mm import FasterViT

SIZE = (224, 224)
MODELS = ['fastervit-0', 'fastervit-1', 'fastervit-2', 'authors-2', 'swin-t', 'swin-hat-t',
          'convnext-t']
# These allocate, rename or query, and run no kernel.
_FREE = {'aten::empty', 'aten::empty_like', 'aten::empty_strided', 'aten::new_empty',
         'aten::detach', 'aten::alias', 'aten::_unsafe_view', 'aten::_reshape_alias',
         'aten::promote_types', 'aten::_local_scalar_dense'}


def operators(call: Callable[[], object]) -> Counter:
    """Count the non-view operators of a call.

    Args:
        call: Runs once; backward passes inside count too. Not compiled, since a graph is one call.

    Returns:
        Numbers by name, such as ``{'aten::addmm': 84}``; ``.total()`` is their sum.
    """
    with _Count() as count:
        call()
    return count.numbers


class _Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numbers: Counter = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._schema.name
        if not operator.is_view and name not in _FREE:
            self.numbers[name] += 1
        return operator(*args, **(kwargs or {}))


def build(name):
    """Network by name; ours with output norms, as in detectors."""
    family, arch = name.split('-', 1)
    return FasterViT(arch) if family == 'fastervit' else PEERS[name].build(SIZE)


def counted(name):
    """Operators of one network in each mode."""
    network = build(name)
    image = torch.rand(2, 3, *SIZE)
    outs = []

    def forward():
        with torch.autocast('cpu', torch.bfloat16):
            outs[:] = network(image)
    row = {}
    network.train()
    forward()
    row['training forward, autocast'] = operators(forward)
    loss = sum(out.float().mean() for out in outs)
    network.zero_grad(set_to_none=True)
    row['backward'] = operators(loss.backward)
    with torch.no_grad():
        network.eval()
        forward()
        row['evaluation, autocast'] = operators(forward)
        if hasattr(network, 'switch_to_deploy'):
            network.switch_to_deploy()
            forward()
            row['deployed, autocast'] = operators(forward)
        network.bfloat16()
        half = image.bfloat16()
        network(half)
        row['deployed, bf16' if hasattr(network, 'switch_to_deploy') else 'evaluation, bf16'] = (
            operators(lambda: network(half)))
    if hasattr(network, 'switch_to_deploy'):
        network = build(name).eval().bfloat16()
        with torch.no_grad():
            network(half)
            row['evaluation, bf16'] = operators(lambda: network(half))
    return {mode: dict(total=count.total(), of=dict(count.most_common()))
            for mode, count in row.items()}


def compiled_kernels(name):
    """Count kernels that Inductor generates, without matrix products."""
    from torch._inductor import metrics
    torch._dynamo.reset()
    metrics.reset()
    network = build(name).eval().bfloat16()
    if hasattr(network, 'switch_to_deploy'):
        network.switch_to_deploy()
    with torch.no_grad():
        torch.compile(network, dynamic=False)(torch.rand(2, 3, *SIZE).bfloat16())
    return metrics.generated_kernel_count


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--models', nargs='+', default=MODELS, choices=list(PEERS),
                        metavar='NAME', help=f'default {" ".join(MODELS)}')
    parser.add_argument('--compiled', action='store_true',
                        help='also count kernels that Inductor generates, minutes each')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/operators.json'))
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    modes = ['evaluation, bf16', 'evaluation, autocast', 'deployed, bf16', 'deployed, autocast',
             'training forward, autocast', 'backward']
    rows = {}
    for name in args.models:
        with torch.backends.mkldnn.flags(enabled=False):
            rows[name] = counted(name)
        if args.compiled:
            rows[name]['compiled, bf16: generated'] = dict(total=compiled_kernels(name))
    table = Table(title='Operators that are not views, two images of 224 x 224')
    table.add_column('')
    shown = modes + ['compiled, bf16: generated'] * args.compiled
    for mode in shown:
        table.add_column(mode, justify='right')
    for name, row in rows.items():
        table.add_row(name, *(str(row[mode]['total']) if mode in row else '' for mode in shown))
    Console(width=140).print(table)
    save(dict(origin(), rows=rows), args.out)


if __name__ == '__main__':
    main()
