"""Replacements for layers that would bind an exported graph to one image size."""
from copy import deepcopy

import torch
from torch import Tensor, nn

from ..backbone import FasterViT
from ..backbone.attention import Attention, BandedAttention
from ..backbone.carriers import CarrierInitialiser
from ..backbone.positions import Places
from ..engine.onednn import undo_onednn
from .parts import Exportable


class AxisPooling(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, for a graph of any image size.

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


class SpeltOutAttention(BandedAttention):
    """Attention as products and a softmax.

    The fused function checks whether the batch is 1, to broadcast the bias, and a reshape checks
    whether it has to copy. The results would bind the graph to some batches and sizes.
    """

    def forward(self, x: Tensor, places: Places) -> Tensor:
        """(..., N, C) -> (..., N, C)."""
        *batch, N, _ = x.shape
        qkv = self.qkv(x).view(-1, N, 3, self.num_heads, self.qkv.out_features // (
            3 * self.num_heads))
        q, k, v = (_dense(t) for t in qkv.permute(2, 0, 3, 1, 4))
        bias = self.position_bias(places, q.dtype)[..., :N]
        logits = (q * self.scale) @ _dense(k.transpose(-2, -1)) + bias
        x = _dense((logits.softmax(dim=-1) @ v).transpose(1, 2))
        return self.proj(x.reshape(*batch, N, self.proj.in_features))


class TruncatingInitialiser(CarrierInitialiser):
    """Carriers from averages over regions, with divisions that ONNX has.

    No dividend is negative, so truncating rounds down. Rounding down is exported as a remainder,
    which TensorRT lacks; truncation as a plain division. Inductor of torch 2.13 fails on
    truncation, so it is used only here. ``pool`` makes a contiguous copy, since a product would
    check whether an axis is 1.
    """

    @staticmethod
    def pool(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        return _dense(rows.expand(*x.shape[:2], -1, -1)) @ x @ columns.t()

    @staticmethod
    def quotient(numerator: Tensor, denominator: int) -> Tensor:
        return torch.div(numerator, denominator, rounding_mode='trunc')


def _dense(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


# Only the class is swapped: weights and names stay the same, and copies work.
_SWAPS = {Attention: SpeltOutAttention, BandedAttention: SpeltOutAttention,
          CarrierInitialiser: TruncatingInitialiser}


def prepared(model: nn.Module, part: str, labels: bool = False, deploy: bool = True) -> Exportable:
    """A copy of a network's part that can be exported; the network stays as it is."""
    exportable = undo_onednn(Exportable(deepcopy(model), part, labels)).eval()
    if deploy:
        for backbone in [m for m in exportable.modules() if isinstance(m, FasterViT)]:
            backbone.switch_to_deploy()
    for module in list(exportable.modules()):
        module.__class__ = _SWAPS.get(type(module), type(module))
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(module, name, AxisPooling(child.output_size))
        if isinstance(module, nn.Conv2d):
            # For a channels-last input a convolution checks whether the batch is 1, which would
            # bind the graph to the result.
            module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), ))
    return exportable.requires_grad_(False).to(memory_format=torch.contiguous_format)
