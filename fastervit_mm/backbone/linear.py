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
        if (not _MKL or x.device.type != 'cpu' or torch.jit.is_tracing()
                or torch.compiler.is_exporting()):
            return super().forward(x)
        pixels = x.reshape(1, 1, -1, self.in_features).permute(0, 3, 1, 2)  # channels last
        pixels = F.conv2d(pixels, self.weight[:, :, None, None], self.bias)
        return pixels.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)


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
