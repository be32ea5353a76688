"""What a graph for images of every size needs in place of what the network computes with."""
from copy import deepcopy

import torch
from torch import Tensor, nn

from ..backbone import FasterViT
from .parts import Exportable


class AxisPooling(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, for a graph in which sizes are free.

    Args:
        size: Height and width of the output, in cells; one number for both.
    """

    def __init__(self, size):
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *size)."""
        B, C, H, W = x.shape
        rows, columns = (_averages(n, pooled, x) for n, pooled in zip((H, W), self.size))
        # A copy and bmm, because reshape and matmul ask whether an axis is 1.
        x = x.clone(memory_format=torch.contiguous_format).view(B * C, H, W)
        x = torch.bmm(rows.expand(B * C, -1, -1), x)
        x = torch.bmm(x, columns.t().expand(B * C, -1, -1))
        return x.view(B, C, *self.size)


def _averages(cells: int, pooled: int, like: Tensor) -> Tensor:
    """(pooled, cells): row j averages the cells from floor(j n / p) up to ceil((j + 1) n / p)."""
    # Lists of Python's (symbolic) integers: no division of tensors, which TensorRT lacks.
    cell = torch.arange(cells, device=like.device)
    rows = []
    for j in range(pooled):
        start, stop = j * cells // pooled, ((j + 1) * cells + pooled - 1) // pooled
        inside = (cell >= start) & (cell < stop)
        rows.append(inside.to(like.dtype) / (stop - start))
    return torch.stack(rows)


def prepared(model: nn.Module, part: str, labels: bool = False, deploy: bool = True) -> Exportable:
    """A copy of a network's part that can be exported; the network stays as it is."""
    exportable = Exportable(deepcopy(model), part, labels).eval()
    for backbone in [m for m in exportable.modules() if isinstance(m, FasterViT)]:
        if deploy:
            backbone.deploy()
    for module in list(exportable.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(module, name, AxisPooling(child.output_size))
        if isinstance(module, nn.Conv2d):
            # PyTorch asks of a convolution's channels-last input whether the batch is 1, and would
            # bind the graph to the answer.
            module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), ))
    return exportable.requires_grad_(False).to(memory_format=torch.contiguous_format)
