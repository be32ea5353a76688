"""Which kernel computes attention, and what it is given."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..compat import TORCH, get_autocast_dtype, is_autocast_enabled, is_compiling

if TORCH >= (2, 5):  # before, there is no kernel of cuDNN to avoid
    from torch.nn.attention import SDPBackend, sdpa_kernel


def attention(qkv: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Scaled dot-product attention of tokens with a bias on the logits.

    Args:
        qkv: Queries, keys and values (batch, N, 3, heads, width).
        bias: (heads, N, N), without a cast if in the type that :func:`logits_dtype` gives.
        scale: Factor of the products of queries and keys, before the bias.

    Returns:
        (batch, N, heads, width) in the type of ``qkv``.
    """
    if (qkv.device.type == 'cpu' and bias.requires_grad and torch.is_grad_enabled()
            and not is_compiling()):
        return _TrainedOnCpu.apply(qkv, bias, scale)
    return fused(*qkv.permute(2, 0, 3, 1, 4), bias[None].to(qkv.dtype), scale).transpose(1, 2)


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """PyTorch's attention.

    On CUDA by its memory-efficient kernel (no flash kernel takes a bias), or by plain products
    where that cannot be. Left to itself, PyTorch takes cuDNN first on Hopper from 2.11 on, which
    makes a plan for each new shape (0.4 s has been reported, FunASR#3704), is slower for short
    sequences with a bias (pytorch#130482), and has been wrong with a mask where the number of
    tokens is 64 more than a multiple of 128 (pytorch#196678).

    Args:
        q: Queries (batch, heads, N, width).
        k: Keys (batch, heads, M, width).
        v: Values, as ``k``.
        bias: (1, heads, N, M), in the type of ``q``.
        scale: As in :func:`attention`.

    Returns:
        (batch, heads, N, width).
    """
    def attend() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)

    if q.device.type != 'cuda' or TORCH < (2, 5):
        return attend()
    if is_compiling():
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return attend()
    # The same for cuDNN's flag alone, in half a microsecond instead of 15.
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        return attend()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)


class _TrainedOnCpu(torch.autograd.Function):
    """Attention whose bias gets a gradient, for which PyTorch has no fused kernel on a CPU.

    Its own products copy queries, keys and values one by one, and scale two of them, forward and
    backward. In float32, or float64 if that came in, whatever autocast says.
    """

    @staticmethod
    def forward(ctx, qkv: Tensor, bias: Tensor, scale: float) -> Tensor:
        batch, N, _, heads, width = qkv.shape
        dtype = torch.promote_types(qkv.dtype, torch.float32)
        with torch.autocast('cpu', enabled=False):
            q, k, v = dense(qkv.permute(2, 0, 3, 1, 4), dtype).flatten(1, 2).unbind(0)
            logits = _scaled(q, k.transpose(1, 2), scale)
            logits.view(batch, heads, N, N).add_(bias)
            probabilities = logits.softmax(-1)
            x = torch.bmm(probabilities, v)
        ctx.save_for_backward(q, k, v, probabilities)
        ctx.scale, ctx.shape, ctx.dtypes = scale, qkv.shape, (qkv.dtype, bias.dtype)
        return dense(x.view(batch, heads, N, width).transpose(1, 2), qkv.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, Tensor, None]:
        q, k, v, probabilities = ctx.saved_tensors
        batch, N, _, heads, width = ctx.shape
        with torch.autocast('cpu', enabled=False):
            grad = dense(grad.transpose(1, 2), q.dtype).flatten(0, 1)
            of_v = torch.bmm(probabilities.transpose(1, 2), grad)
            logits = torch.ops.aten._softmax_backward_data(
                torch.bmm(grad, v.transpose(1, 2)), probabilities, -1, q.dtype)
            of_q = _scaled(logits, k, ctx.scale)
            of_k = _scaled(logits.transpose(1, 2), q, ctx.scale)
            bias = logits.view(batch, heads, N, N).sum(0)
            of_qkv = torch.empty(ctx.shape, dtype=ctx.dtypes[0])
            torch.stack([t.view(batch, heads, N, width).transpose(1, 2)
                         for t in (of_q, of_k, of_v)], 2, out=of_qkv)
        return of_qkv, bias.to(ctx.dtypes[1]), None


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """``scale * a @ b`` in one product, (batch, n, m), (batch, m, l) -> (batch, n, l)."""
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)


def autocast_dtype(x: Tensor) -> Optional[torch.dtype]:
    """The type of autocast on a tensor's device; None without autocast."""
    kind = x.device.type
    if kind == 'meta' or not is_autocast_enabled(kind):  # meta: an error
        return None
    return get_autocast_dtype(kind)


def logits_dtype(x: Tensor) -> torch.dtype:
    """The type in which attention of tokens ``x`` adds its bias."""
    dtype = autocast_dtype(x) or x.dtype
    if x.device.type == 'cpu' and torch.is_grad_enabled():
        return torch.promote_types(dtype, torch.float32)
    return dtype


def dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in a type and contiguous, with at most one copy."""
    if x.dtype == dtype:
        return x.contiguous()
    return x.to(dtype, memory_format=torch.contiguous_format)
