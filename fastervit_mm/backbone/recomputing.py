"""Recomputing a block's activations in the backward pass (``with_cp``)."""
from contextlib import contextmanager, nullcontext
from typing import Callable, List

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..compat import TORCH, is_compiling


def run(block: nn.Module, with_cp: bool, *args):
    """The block's output, its activations recomputed in the backward pass if ``with_cp``."""
    if not (with_cp and torch.is_grad_enabled()) or _moves_statistics_twice(block):
        return block(*args)
    # Nothing in a block is random. A compiled graph holds its own second pass, which computes
    # activations alone, and its compiler knows no context_fn of a closure.
    options = dict(use_reentrant=False, preserve_rng_state=False)
    if not is_compiling():
        options['context_fn'] = _once_only_statistics(block)
    return checkpoint(block, *args, **options)


def _moves_statistics_twice(block: nn.Module) -> bool:
    """Whether a compiled block has to keep its activations for right statistics.

    torch 2.6 compiles BatchNorm's update into the second pass too; 2.13 does not. What lies between
    was not tried.
    """
    # The length: the compiler of torch 2.6 does not know whether a list is true.
    return is_compiling() and TORCH < (2, 13) and len(_norms(block)) > 0


def _norms(block: nn.Module) -> List[_BatchNorm]:
    return [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _once_only_statistics(block: nn.Module) -> Callable:
    """Contexts of a checkpointed block: the second pass leaves BatchNorm's statistics alone.

    Otherwise each running mean and variance would move twice a step, and a network trained with
    ``with_cp`` would differ from one trained without.
    """
    norms = _norms(block)

    @contextmanager
    def recomputing():
        saved = [(m.momentum, m.num_batches_tracked) for m in norms]
        for m in norms:
            # With momentum 0 an update is the identity; the counter is a copy.
            m.momentum, m.num_batches_tracked = 0.0, m.num_batches_tracked.clone()
        try:
            yield
        finally:
            for m, (momentum, count) in zip(norms, saved):
                m.momentum, m.num_batches_tracked = momentum, count

    return lambda: (nullcontext(), recomputing())
