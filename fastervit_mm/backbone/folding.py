"""What deployment folds into the weights of the layer before it."""
import torch
import torch.nn.functional as F
from timm.layers import LayerScale
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..compat import is_compiling


def fold_norms(block: nn.Module) -> None:
    """Fold ``norm1`` and ``norm2``, BatchNorms, into ``conv1`` and ``conv2`` before them."""
    for n in (1, 2):
        conv, norm = getattr(block, f'conv{n}'), getattr(block, f'norm{n}')
        if isinstance(norm, nn.Identity):
            continue  # folded already
        setattr(block, f'conv{n}', fuse_conv_bn_eval(conv, norm))
        setattr(block, f'norm{n}', nn.Identity())


class ChannelAffine(nn.Module):
    """An output norm in deployment: BatchNorm of running statistics, written as (B, C, H, W).

    Nothing stands before it to fold it into. Norm and change of layout are one kernel.

    Args:
        norm: The norm.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm):
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        shift = -norm.running_mean * scale
        if norm.affine:
            scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
        for name, value in (('scale', scale), ('shift', shift)):
            self.register_buffer(name, value.detach()[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), contiguous."""
        if is_compiling() or x.requires_grad:
            # First the copy: of another layout, a sum in a graph would ask whether an axis is 1.
            x = x.clone(memory_format=torch.contiguous_format)
            return torch.addcmul(self.shift, x, self.scale)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        return torch.addcmul(self.shift, x, self.scale, out=out)


@torch.no_grad()
def fold_layer_scale(linear: nn.Linear, layer_scale: nn.Module) -> nn.Identity:
    """Scale a projection's outputs by the layer scale after it; returns what takes its place."""
    if isinstance(layer_scale, LayerScale):
        linear.weight.mul_(layer_scale.gamma[:, None])
        linear.bias.mul_(layer_scale.gamma)
    return nn.Identity()


@torch.no_grad()
def pad_heads(qkv: nn.Linear, proj: nn.Linear, num_heads: int, padding: int) -> None:
    """Widen attention heads by zeros, in the weights before and after attention.

    Args:
        qkv: (C, 3 C), made (C, 3 C') with C' = C + num_heads * padding.
        proj: (C, C), made (C', C).
        num_heads: Attention heads.
        padding: Number of zeros that are added to the width of each head.
    """
    def rows(tensor, groups):
        heads = tensor.unflatten(0, (groups, -1))
        zeros = heads.new_zeros(groups, padding, *heads.shape[2:])
        return nn.Parameter(torch.cat([heads, zeros], 1).flatten(0, 1), tensor.requires_grad)

    qkv.weight, qkv.bias = rows(qkv.weight, 3 * num_heads), rows(qkv.bias, 3 * num_heads)
    qkv.out_features = qkv.weight.shape[0]
    columns = F.pad(proj.weight.unflatten(1, (num_heads, -1)), (0, padding)).flatten(1)
    proj.weight = nn.Parameter(columns, proj.weight.requires_grad)
    proj.in_features = columns.shape[1]
