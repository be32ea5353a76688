"""Replacements for layers that bind a graph to one size."""
from copy import deepcopy
from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import StagedBackbone
from ..backbone.attention import Attention
from ..backbone.windows import dense
from ..engine.onednn import undo_onednn
from .parts import Exportable


class AxisPooling(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products.

    A graph with it takes images of any size.

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
        # A copy and bmm: reshape and matmul would check whether an axis is 1.
        x = x.clone(memory_format=torch.contiguous_format).view(B * C, H, W)
        x = torch.bmm(rows.expand(B * C, -1, -1), x)
        x = torch.bmm(x, columns.t().expand(B * C, -1, -1))
        return x.view(B, C, *self.size)


class ShuffledConv(nn.ConvTranspose2d):
    """Transposed convolution without overlap, as a convolution and a shuffle.

    That can be quantized, and is faster in onnxruntime.
    """

    def forward(self, x: Tensor, output_size: Optional[List[int]] = None) -> Tensor:
        """(B, C, H, W) -> (B, D, side H, side W)."""
        side = self.stride[0]
        weight = self.weight.permute(1, 2, 3, 0).flatten(0, 2)[..., None, None]
        bias = None if self.bias is None else self.bias.repeat_interleave(side**2)
        return F.pixel_shuffle(F.conv2d(x, weight, bias), side)


def _averages(cells: int, pooled: int, like: Tensor) -> Tensor:
    """(pooled, cells) matrix that averages cells.

    Row j averages the cells from floor(j n / p) up to ceil((j + 1) n / p).
    """
    # Python's (symbolic) integers, so that the graph divides no tensors, which TensorRT cannot.
    cell = torch.arange(cells, device=like.device)
    rows = []
    for j in range(pooled):
        start, stop = j * cells // pooled, ((j + 1) * cells + pooled - 1) // pooled
        inside = (cell >= start) & (cell < stop)
        rows.append(inside.to(like.dtype) / (stop - start))
    return torch.stack(rows)


class SpeltOutAttention(Attention):
    """Attention as products and a softmax.

    The fused function checks whether the batch is 1, to broadcast the bias, and a reshape checks
    whether it has to copy. The outcome would bind the graph to some batch sizes and image sizes.
    """

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, N, C), (num_heads, N, N or more) -> (B, N, C)."""
        B, N, C = x.shape
        qkv = self.qkv(x).view(B, N, 3, self.num_heads, self.width).permute(2, 0, 3, 1, 4)
        q, k, v = (dense(t) for t in qkv)
        logits = (q * self.width**-0.5) @ dense(k.transpose(-2, -1)) + bias[..., :N].to(q.dtype)
        x = dense((logits.softmax(dim=-1) @ v).transpose(1, 2))
        return self.proj(x.view(B, N, C))


# Only the class is swapped: weights and names stay, and copies work.
_SWAPS = {Attention: SpeltOutAttention}


def prepared(model: nn.Module, part: str, labels: bool = False, deploy: bool = True,
             input: Optional[str] = None) -> Exportable:
    """Exportable copy of a part; the network stays unchanged."""
    exportable = undo_onednn(Exportable(deepcopy(model), part, labels, input)).eval()
    if deploy:
        for backbone in [m for m in exportable.modules() if isinstance(m, StagedBackbone)]:
            backbone.switch_to_deploy()
    for module in list(exportable.modules()):
        module.__class__ = _SWAPS.get(type(module), type(module))
        if (isinstance(module, nn.ConvTranspose2d)
                and module.kernel_size == module.stride == 2 * module.stride[:1]
                and module.padding == module.output_padding == (0, 0) and module.groups == 1):
            module.__class__ = ShuffledConv
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(module, name, AxisPooling(child.output_size))
        if isinstance(module, nn.Conv2d):
            # For a channels-last input a convolution checks whether the batch is 1, which would
            # bind the graph to the result.
            module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), ))
    return exportable.requires_grad_(False).to(memory_format=torch.contiguous_format)
