"""Networks, images and distances for several steps."""
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from timm.layers import LayerScale
from torch import Tensor, nn
from torch.nn.attention import SDPBackend
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from fastervit_mm.backbone import FasterViT

Arch = Union[str, dict]

# Has every part of the large networks, but runs in milliseconds on a CPU.
TINY = dict(embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4),
            layer_scale=0.5, propagate_carriers=True, drop_path_rate=0.)
# Heads of width 10, no carriers: like 4-21k, whose heads are padded too.
ODD = dict(embed_dim=20, stem_channels=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 8, 16),
           hierarchical=False, drop_path_rate=0.)


def named(archs: Sequence[Arch]) -> Dict[str, Arch]:
    """Architectures by a short name."""
    return {arch if isinstance(arch, str) else f'width {arch["embed_dim"]}': arch
            for arch in archs}


def build(arch: Arch, device: Union[str, torch.device] = 'cpu', **settings) -> FasterViT:
    """Network in evaluation mode, with weights that reveal mix-ups.

    With initial running statistics of 0 and 1, biases of 0 and layer scales of 1e-5, half of the
    network would hardly matter.
    """
    torch.manual_seed(0)
    with torch.device(device):
        network = FasterViT(arch, **settings)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, LayerScale):
                nn.init.uniform_(module.gamma, 0.5, 1.5)
    return network.eval()


def images(batch: int, size: Tuple[int, int], device: Union[str, torch.device] = 'cpu') -> Tensor:
    """Random images, the same on every device."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *size, generator=generator).to(device)


def distance(found: Union[Tensor, Sequence[Tensor]], right: Union[Tensor, Sequence[Tensor]]
             ) -> float:
    """Largest Euclidean |found - right| / |right|, or NaN."""
    if isinstance(found, Tensor):
        found, right = [found], [right]
    right = [b.to(a.device).double() for a, b in zip(found, right, strict=True)]
    ratios = [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, right)]
    return worst(ratios)


def worst(ratios: Sequence[float]) -> float:
    """The largest; NaN is larger than any."""
    return max(ratios, key=lambda ratio: float('inf') if ratio != ratio else ratio)


def sized(size: Tuple[int, int]) -> str:
    return f'{size[0]} x {size[1]}'


@contextmanager
def exact() -> Iterator[None]:
    """Context for true float32, without TensorFloat-32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Call(NamedTuple):
    """Attention that a network computed.

    Attributes:
        q, k, v: (batch, heads, N, width).
        bias: (1, heads, N, N).
        scale: Of the logits.
        chosen: PyTorch's name for the kernel that computed it.
    """
    q: Tensor
    k: Tensor
    v: Tensor
    bias: Optional[Tensor]
    scale: Optional[float]
    chosen: str

    @property
    def shape(self) -> str:
        batch, heads, queries, width = self.q.shape
        return f'{queries} tokens, {heads} heads of {width}, {batch} windows'

    def attend(self) -> Tensor:
        """Compute it again, with PyTorch's current choice of kernel."""
        return F.scaled_dot_product_attention(self.q, self.k, self.v, attn_mask=self.bias,
                                              scale=self.scale)

    def to(self, dtype: torch.dtype, grad: bool = False) -> 'Call':
        """Copy with the same strides in another type."""
        return self._replace(**{name: getattr(self, name).detach().to(dtype).requires_grad_(grad)
                                for name in ('q', 'k', 'v', 'bias')
                                if getattr(self, name) is not None})


class Attentions(TorchFunctionMode):
    """Context that keeps each shape's first attention in ``calls``."""

    def __init__(self):
        super().__init__()
        self.calls: Dict[str, Call] = {}

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__name__', '') == 'scaled_dot_product_attention':
            self._keep(*args, **kwargs)
        return func(*args, **kwargs)

    def _keep(self, q, k, v, attn_mask=None, dropout_p=0., is_causal=False, scale=None, **others):
        # Autocast would cast only after this point.
        dtype = (torch.get_autocast_dtype(q.device.type)
                 if torch.is_autocast_enabled(q.device.type) else q.dtype)
        q, k, v = (t.to(dtype) for t in (q, k, v))
        bias = None if attn_mask is None else attn_mask.to(dtype)
        number = torch._fused_sdp_choice(q, k, v, bias, dropout_p, is_causal, scale=scale)
        call = Call(q, k, v, bias, scale, kernel_name(number))
        # Detached, else a training step's whole graph would stay in memory.
        self.calls.setdefault(call.shape, call.to(dtype))


def kernel_name(number: int) -> str:
    """``math``, ``flash``, ``efficient`` or ``cudnn``."""
    names = {int(backend.value): name for name, backend in KERNELS.items()}
    return names.get(number, f'kernel {number}')


KERNELS: Dict[str, SDPBackend] = {
    'math': SDPBackend.MATH, 'flash': SDPBackend.FLASH_ATTENTION,
    'efficient': SDPBackend.EFFICIENT_ATTENTION, 'cudnn': SDPBackend.CUDNN_ATTENTION}


def attentions(network: nn.Module, image: Tensor, dtype: torch.dtype,
               training: bool = False) -> List[Call]:
    """Attentions of a forward pass under autocast, one per shape.

    In training a CPU computes attention by products, so those of evaluation are taken.
    """
    stand_in = training and not image.is_cuda
    training &= image.is_cuda
    with Attentions() as seen, torch.set_grad_enabled(training), torch.autocast(
            image.device.type, dtype):
        network.train(training)(image)
    if not seen.calls:
        raise RuntimeError('no attention was found: is it computed by another function than '
                           'scaled_dot_product_attention?')
    # A CPU has only the math kernel for a bias that needs a gradient.
    return [call._replace(chosen='math') if stand_in else call for call in seen.calls.values()]
