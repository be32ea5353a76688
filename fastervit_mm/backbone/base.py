"""What FasterViT and SwinHAT share: the contract of a backbone of OpenMMLab."""
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit
from timm.models import register_notrace_function
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..operators import say_which_serve
from .names import to_current
from .stages import check_whole, require
from .windows import dense

STAGES = range(4)


class StagedBackbone(BaseModule):
    """A stem, up to four stages with a downsampling between two, and a norm on each output.

    Subclasses call :meth:`assemble`.

    Args:
        in_channels, out_indices, frozen_stages, norm_eval, init_cfg: As of
            :class:`~fastervit_mm.FasterViT`.

    Raises:
        ValueError: For an argument out of range; the message says what would be right.
    """

    def __init__(self, in_channels: int, out_indices: Union[int, Sequence[int]],
                 frozen_stages: int, norm_eval: bool, init_cfg: Union[dict, Sequence[dict], None]):
        check_whole(in_channels=in_channels)
        out_indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        require(bool(out_indices) and list(out_indices) == [i for i in STAGES if i in out_indices],
                f'out_indices={out_indices}: {type(self).__name__} has stages 0 to 3; give each '
                'stage once, in ascending order')
        self.num_stages = out_indices[-1] + 1  # those after the last output are not built
        require(-1 <= frozen_stages <= self.num_stages,
                f'frozen_stages={frozen_stages}: give -1 (nothing), 0 (the stem) or up to '
                f'{self.num_stages}, the number of stages that are built')
        super().__init__(checked_init_cfg(init_cfg))
        self.in_channels, self.out_indices = in_channels, out_indices
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval

    def assemble(self, stem: nn.Module, stage: Callable[[int, int, List[float]], nn.Module],
                 downsample: Callable[[int], nn.Module], out_norm: Callable[[int], nn.Module],
                 dim: int, depths: Sequence[int], drop_path_rate: float) -> None:
        """Put the parts together.

        Args:
            stem: (B, in_channels, H, W) -> a map of stride 4.
            stage: Makes a stage of a number from 0, a width and rates of stochastic depth.
            downsample: Makes what is between two stages, of the width before it.
            out_norm: Makes the norm of an output of a width.
            dim: Width of the first stage; each after it is twice as wide as the one before.
            depths: Blocks of each of the four stages.
            drop_path_rate: Stochastic depth of the last block.
        """
        require(isinstance(drop_path_rate, (int, float)) and 0 <= drop_path_rate < 1,
                f'drop_path_rate={drop_path_rate!r}: give a rate from 0 up to, not including, 1')
        # Over all four stages: one that is not built does not change the others' rates.
        rates = torch.linspace(0, drop_path_rate, sum(depths), device='cpu').split(list(depths))
        dims = [dim * 2**i for i in range(self.num_stages)]
        self.stem = stem
        self.stages = nn.ModuleList(map(stage, STAGES, dims, (r.tolist() for r in rates)))
        self.downsamples = nn.ModuleList(map(downsample, dims[:-1]))
        self.out_channels = tuple(dims[i] for i in self.out_indices)
        self.out_norms = nn.ModuleDict({str(i): out_norm(dims[i]) for i in self.out_indices})
        # Channels last from the stem to the norms: a map's cells are tokens without a copy. With
        # weights in that order convolutions avoid layout conversions. FSDP takes contiguous weights
        # alone: .to(memory_format=torch.contiguous_format) before it.
        self.to(memory_format=torch.channels_last)
        self._freeze()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, in_channels, H, W) -> maps of (B, C_i, ceil(H / stride_i), ceil(W / stride_i))."""
        check_image(x, self.in_channels)
        outs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(self.downsamples[i - 1](x) if i else x)
            if i in self.out_indices:
                # mmcv's RoIAlign reads any map as (B, C, H, W) in memory; channels-last maps would
                # stay so through an FPN, and detectors would get scrambled features.
                outs.append(dense(self.out_norms[str(i)](x)))
        return tuple(outs)

    @property
    def deployed(self) -> bool:
        """Whether :meth:`switch_to_deploy` was called, or that of each part."""
        return self.stem.deployed

    def switch_to_deploy(self) -> 'StagedBackbone':
        """Make inference faster, in place. It cannot be undone. Returns self.

        BatchNorms and layer scales are folded into the weights before them, and the position terms
        of windows become constants. Outputs change by at most 1e-4, relative. Load the weights
        first; for 16 bits cast afterwards (``.bfloat16()``), as autocast would cast every weight
        at every call. A detector or segmentor that holds this backbone still works; training and
        loading a checkpoint do not.

        OpenMMLab's name for this; timm's ``reparameterize_model`` calls it too.

        Raises:
            RuntimeError: In training mode, which does not use the running statistics.
        """
        if self.training:
            raise RuntimeError('switch_to_deploy() in training mode: it would fold running '
                               'statistics, which training does not use; call eval() first')
        for module in [m for m in self.modules() if m is not self]:
            if hasattr(module, 'switch_to_deploy'):
                module.switch_to_deploy()
        return self.requires_grad_(False)

    def init_weights(self) -> None:
        """Initialise as mmengine does; a training's log also says what serves mmcv's operators."""
        say_which_serve(MMLogger.get_current_instance())
        super().init_weights()

    def train(self, mode: bool = True) -> 'StagedBackbone':
        """As ``nn.Module.train``, with frozen parts and, where asked for, norms in evaluation."""
        if mode and self.deployed:
            raise RuntimeError('switch_to_deploy() has folded this backbone\'s BatchNorms: it '
                               'cannot be trained. Build another and load the checkpoint')
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if (n := self.frozen_stages) >= 0:
            for part in (self.stem, *self.stages[:n], *self.downsamples[:n]):
                part.eval().requires_grad_(False)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        if self.deployed:
            raise RuntimeError('switch_to_deploy() has folded this backbone\'s weights, and a '
                               'checkpoint no longer fits: load it first, then deploy')
        to_current(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def wrong_windows(self, tensors: Mapping[str, Tensor]) -> Optional[str]:
        """Why tensors that were trained with other windows are not for this network.

        Args:
            tensors: A state dict.

        Returns:
            A text for an error; None where nothing is wrong.
        """
        return None


@register_notrace_function  # branches on the size
def check_image(x: Tensor, channels: int) -> None:
    """Raise a ValueError for images of another shape than (B, channels, >= 32, >= 32)."""
    if x.ndim != 4 or x.shape[1] != channels or x.shape[2] < 32 or x.shape[3] < 32:
        raise ValueError(f'input of shape {tuple(x.shape)}: expected (B, {channels}, H, W), H and '
                         'W at least 32: the network divides the image by 32')


def checked_init_cfg(init_cfg: Union[dict, Sequence[dict], None]) -> List[Dict[str, Any]]:
    """mmengine's initialisers, with ours in place of its ``Pretrained``.

    mmengine's loads with ``strict=False`` and does not report what stayed random. The initialiser
    is found by name, registered by :mod:`fastervit_mm.weights`.
    """
    given = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
    files = [cfg for cfg in given if cfg.get('type') in ('Pretrained', PretrainedInit)]
    others = [cfg for cfg in given if cfg not in files]
    return [*(others or [dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)]),
            *(dict(cfg, type='FasterViTPretrained') for cfg in files)]
