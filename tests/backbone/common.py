"""Helpers of the backbones' tests."""
import copy
from collections import Counter

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastervit_mm.backbone.positions import PositionMLP
from fastervit_mm.backbone.swin_hat import PatchMerging, SwinBlock
from tests.conftest import TINY, stir

ARCHS = {'propagating': dict(TINY, layer_scale=0.5, propagate_carriers=True),
         'three carriers': dict(TINY, ct_size=3), 'plain windows': dict(TINY, hierarchical=False)}


def stirred(module):
    """The module in evaluation mode, with distinct norms, scales and biases."""
    stir(module)
    for name, parameter in module.named_parameters():
        if name.endswith(('carrier_bias', 'bias_table')):
            nn.init.normal_(parameter)
        elif name.endswith('position_biases.weight2'):
            nn.init.normal_(parameter, std=0.2)
    return module.eval()


def maps(model, image):
    """Outputs without gradients, as a tuple."""
    with torch.no_grad():
        found = model(image)
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


def error(got, expected):
    """Largest difference, relative to the largest value of its map."""
    return max(relative(a, b) for a, b in zip(got, expected, strict=True))


def relative(a, b):
    assert a.shape == b.shape
    return ((a - b).abs().max() / b.abs().max()).item()


def gradients(model, *images, seed=0):
    """Gradients by name, after one backward pass from all outputs of each image."""
    model.zero_grad()
    for image in images:
        torch.manual_seed(seed)
        outs = model(image)
        outs = (outs,) if isinstance(outs, torch.Tensor) else outs
        sum((out.float() * torch.arange(out.shape[-1])).square().mean() for out in outs).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def gradient_error(got, expected):
    """Largest difference, relative to the largest gradient of all."""
    assert got.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    return max(((got[name] - expected[name]).abs().max() / scale).item() for name in expected)


@torch.no_grad()
def transposed(model):
    """The model with rows and columns exchanged in kernels, tables and coordinates."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.transpose(2, 3).clone())
        elif isinstance(module, PositionMLP):
            module.weight1.copy_(module.weight1.flip(-1).clone())
        elif isinstance(module, SwinBlock):
            table, side = module.relative_position_bias_table, 2 * module.window_size - 1
            table.copy_(table.view(side, side, -1).transpose(0, 1).flatten(0, 1).clone())
        elif isinstance(module, PatchMerging):
            for tensor in (module.norm.weight, module.norm.bias, module.reduction.weight):
                cells = tensor.unflatten(-1, (2, 2, -1))
                tensor.copy_(cells.transpose(-3, -2).flatten(-3).clone())
    return twin


def transposed_error(model, image):
    """Error between maps of the transposed model and image, and the transposed maps."""
    twins = maps(transposed(model), image.transpose(2, 3).contiguous())
    return error([twin.transpose(2, 3) for twin in twins], maps(model, image))


class Operators(TorchDispatchMode):
    """Count operators, except those that only view, allocate, alias or query."""
    free = {'aten::empty', 'aten::empty_like', 'aten::empty_strided', 'aten::new_empty',
            'aten::detach', 'aten::alias', 'aten::_unsafe_view', 'aten::_reshape_alias',
            'aten::promote_types', 'aten::_local_scalar_dense'}

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if not operator.is_view and operator._schema.name not in self.free:
            self.count[operator._schema.name] += 1
        return operator(*args, **(kwargs or {}))


def operators(call):
    """Counts by operator name."""
    with Operators() as seen:
        call()
    return seen.count
