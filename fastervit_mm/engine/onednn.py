"""Faster linear layers on x86 CPUs, through oneDNN."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compat import is_autocast_enabled, is_compiling

# Least number of tokens: below, converting the weight's layout costs more than oneDNN saves.
_FEW = 16
# torch 2.7 and newer say whether a graph is captured to be compiled here or to be exported.
_OPERATOR = hasattr(torch.compiler, 'is_exporting')


class OneDnnLinear(nn.Linear):
    """``nn.Linear`` through oneDNN on CPUs; the same weights and results.

    PyTorch gives a float32 product on x86 to MKL, which uses half of an AMD core's vector width;
    the same product as a 1 x 1 convolution goes to oneDNN, which uses all of it, in float32 and in
    bfloat16, forward and backward (docs/performance.md). On other devices, for a few tokens and in
    traced and exported graphs it is ``nn.Linear``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if (x.device.type != 'cpu' or torch.jit.is_tracing() or x.is_sparse
                or self.weight.dtype != x.dtype and not is_autocast_enabled('cpu')):
            return super().forward(x)
        if is_compiling():
            # Inductor would choose a layout for the convolution and copy the input into it, but
            # leaves a custom operator alone. Training and 16 bits are fast without one.
            if (not _OPERATOR or torch.compiler.is_exporting() or torch.is_grad_enabled()
                    or self.bias is None or x.dtype != torch.float32
                    or is_autocast_enabled('cpu')):
                return super().forward(x)
            return _linear(x, self.weight, self.bias)
        if x.numel() < _FEW * x.shape[-1]:
            return super().forward(x)
        return _by_convolution(x, self.weight, self.bias)


def use_onednn(model: nn.Module) -> nn.Module:
    """Let a model's linear layers compute through oneDNN.

    In place: the layers change their class and keep their weights, names and hooks. Checkpoints do
    not change, and copies and pickles work. Layers added later are not converted. PyTorch without
    MKL or oneDNN leaves the model unchanged. On a GPU it computes as before.

    Args:
        model: A detector, segmentor, classifier, or a part of one. Only layers of exactly the
            class ``nn.Linear`` are converted.

    Returns:
        The model.
    """
    if torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear
    return model


def undo_onednn(model: nn.Module) -> nn.Module:
    """Undo :func:`use_onednn`. Returns the model."""
    for module in model.modules():
        if type(module) is OneDnnLinear:
            module.__class__ = nn.Linear
    return model


def _by_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    pixels = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # channels last
    pixels = F.conv2d(pixels, weight[:, :, None, None], bias)
    return pixels.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


if _OPERATOR:
    @torch.library.custom_op('fastervit_mm::linear', mutates_args=())
    def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(..., in), (out, in), (out,) -> (..., out)."""
        return _by_convolution(x, weight, bias).contiguous()

    @_linear.register_fake
    def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return x.new_empty(*x.shape[:-1], weight.shape[0])
