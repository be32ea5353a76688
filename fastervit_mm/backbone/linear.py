"""Linear layers by the fastest way a CPU has."""
import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

# PyTorch hands a float32 product on x86 to MKL, which uses half of an AMD core's vector width;
# the same product as a 1 x 1 convolution goes to oneDNN, which uses all of it, in float32 and in
# bfloat16, forward and backward (docs/performance.md).
_MKL = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


class Linear(nn.Linear):
    """``nn.Linear`` with the same weights and results; on x86 CPUs through oneDNN.

    Elsewhere, and in graphs that are traced or exported, it is ``nn.Linear``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        if not _MKL or x.device.type != 'cpu' or torch.jit.is_tracing():
            return super().forward(x)
        if not torch.compiler.is_compiling():
            return _by_convolution(x, self.weight, self.bias)
        # Inductor would choose a layout for the convolution that has to be copied into; as an
        # operator of its own it is left alone. Training and 16 bits do well without.
        if (torch.compiler.is_exporting() or torch.is_grad_enabled() or x.dtype != torch.float32
                or torch.is_autocast_enabled('cpu')):
            return super().forward(x)
        return _linear(x, self.weight, self.bias)


def _by_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    pixels = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # channels last
    pixels = F.conv2d(pixels, weight[:, :, None, None], bias)
    return pixels.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op('fastervit_mm::linear', mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(..., in), (out, in), (out,) -> (..., out)."""
    return _by_convolution(x, weight, bias).contiguous()


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


class TokenMlp(Mlp):
    """timm's MLP, with our linear layers.

    Args:
        dim: Width of the tokens.
        hidden_dim: Width between the two layers.
    """

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__(dim, hidden_dim)
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
