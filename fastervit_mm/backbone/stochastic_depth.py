"""Stochastic depth (arXiv 1603.09382), drawn once for all blocks of a stage."""
from typing import List, Optional, Sequence

import torch
from torch import Tensor, nn

from ..compat import is_compiling
from .keeping import Kept


class StochasticDepth(nn.Module):
    """What the residual branches of a stage's blocks are multiplied by.

    0 for an image whose branch is dropped, else 1 / (1 - rate), as timm's ``DropPath``. One draw
    for a stage takes three kernels, where one for each branch takes three a branch.

    Args:
        rates: Rate of each block.
        branches: Residual branches of a block. Each is drawn by itself.
    """

    def __init__(self, rates: Sequence[float], branches: int):
        super().__init__()
        self.branches = branches
        self.rates = tuple(rates)
        self.kept = Kept()

    def forward(self, x: Tensor) -> List[Optional[Tensor]]:
        """For each block (branches, B) in x's type, or None if no branch may be dropped.

        Args:
            x: (B, ...).
        """
        if not self.training or not any(self.rates):
            return [None] * len(self.rates)

        def to_keep() -> Tensor:
            return 1 - torch.tensor(self.rates, device=x.device)[:, None, None]
        # No buffer, which a network made on the meta device would not fill.
        keep = to_keep() if is_compiling() else self.kept(
            x.device, x.device, to_keep)
        keep = keep.expand(-1, self.branches, x.shape[0])
        return list((torch.bernoulli(keep) / keep).to(x.dtype))


def add(x: Tensor, branch: Tensor, scale: Optional[Tensor]) -> Tensor:
    """``x + scale * branch``.

    Args:
        x: (B, ...).
        branch: As ``x``.
        scale: (B,), one number for each image; None for 1.
    """
    if scale is None:
        return x + branch
    return x + branch * scale.view(-1, *[1] * (x.ndim - 1))
