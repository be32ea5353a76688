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
    if not (with_cp and torch.is_grad_enabled()):
        return block(*args)
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not is_compiling():
        return checkpoint(block, *args, use_reentrant=False, context_fn=_statistics_once(norms))
    # A compiled graph holds its own second pass, which computes activations alone; that of torch
    # 2.6 updates statistics too, that of 2.13 does not, and between them was not tried. The length:
    # the compiler of torch 2.6 does not know whether a list is true.
    if TORCH < (2, 13) and len(norms) > 0:
        return block(*args)
    return checkpoint(block, *args, use_reentrant=False)


def _statistics_once(norms: List[_BatchNorm]) -> Callable:
    """Contexts of a checkpointed block: the second pass leaves BatchNorm's statistics alone.

    Otherwise each running mean and variance would move twice a step, and a network trained with
    ``with_cp`` would differ from one trained without.
    """
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
