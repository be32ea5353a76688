"""FasterViT as a backbone of OpenMMLab (arXiv 2306.06189, ICLR 2024)."""
from copy import deepcopy
from dataclasses import replace
from typing import Callable, Mapping, Optional, Sequence, Tuple, Union

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..compat import is_compiling
from ..operators import say_which_serve
from .folding import ChannelAffine
from .keeping import Kept
from .kernels import autocast_dtype
from .names import is_authors, rename_authors, window_sizes
from .positions import PositionTerm
from .stages import ConvStage, Downsample, HierarchicalAttention, Stem
from .variants import VARIANTS, resolve_variant

NUM_STAGES = 4
OUT_NORMS = {'BN': nn.BatchNorm2d, 'LN': LayerNorm2d}


@MODELS.register_module()
class FasterViT(BaseModule):
    """FasterViT: two convolutional stages, then two of (hierarchical) window attention.

    Any image of at least 32 x 32 goes through one model; nothing is fixed to a resolution at
    construction. At the size of pretraining it equals the authors' model; the carrier tokens at
    other sizes are described in ``docs/architecture.md``.

    Args:
        arch: ``'0'`` to ``'6'``, ``'4-21k-224'``, ``'4-21k-384'``, ``'4-21k-512'``,
            ``'4-21k-768'``, or a dict of :class:`~fastervit_mm.backbone.variants.Variant`'s
            fields for a network of one's own; ``dict(base='2', ct_size=4)`` gives those that
            differ from a variant. Default ``'2'``.
        in_channels: Channels of the image. Default 3.
        out_indices: Stages to return, ascending, out of 0 to 3. Their strides are 4, 8, 16, 32.
            Stages after the last one are not built. Default all four.
        out_norm: ``'BN'``, ``'LN'`` (over channels) or None: the norm on each output. BN is the
            default, as in the authors' detection code: LN erases contrast per pixel, and a
            Cascade R-CNN trained from scratch with it stayed at the background rate.
        window_size: Side of an attention window in cells, one for both transformer stages or one
            for each. Default the variant's. If it is given, the authors' weights load whatever
            windows they were trained with; else only those of the variant's.
        ct_size: Carrier tokens along one side of a window. Default the variant's (2).
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0 over the
            blocks of all stages. Default the variant's ImageNet rate.
        frozen_stages: -1 freezes nothing; 0 the stem; n also the first n stages, each with the
            downsampling after it. Frozen parts are in evaluation mode and need no gradient.
            The output norms stay trainable: no published file holds them, and frozen at their
            initial values they would have no effect. Default -1.
        norm_eval: Keep every BatchNorm on its running statistics in training. Default False.
        with_cp: Recompute each block in the backward pass (non-reentrant checkpointing): less
            memory, more time, the same numbers. Default False.
        pad_conv_stages: Run the blocks of stages 1 and 2 on maps that zeros at the bottom and
            right extend to multiples of this, in cells, and crop the results. The authors'
            detection code does so with 7, their classifier does not; 7 is for detectors that were
            trained with it (``docs/dino.md``). Default 1, no padding.
        init_cfg: mmengine's. ``dict(type='Pretrained', checkpoint=...)`` takes a path, a URL or
            ``'fastervit://2-224-1k'`` (see :mod:`fastervit_mm.weights`), and checks that the
            whole backbone was filled; ``allow_partial=True`` in it allows less, ``prefix=...``
            reads a backbone out of a whole detector's file. Default: Linear layers from a
            truncated normal of std 0.02, convolutions PyTorch's default.

    Attributes:
        out_channels (tuple[int]): Width of each output, what a neck needs as ``in_channels``.

    Raises:
        ValueError: For an argument out of range; the message says what would be right.

    Example:
        >>> import torch
        >>> from fastervit_mm import FasterViT
        >>> model = FasterViT('0').eval()
        >>> [tuple(y.shape) for y in model(torch.rand(1, 3, 200, 333))]
        [(1, 64, 50, 84), (1, 128, 25, 42), (1, 256, 13, 21), (1, 512, 7, 11)]
    """

    def __init__(self,
                 arch: Union[str, dict] = '2',
                 in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 out_norm: Optional[str] = 'BN',
                 window_size: Union[int, Sequence[int], None] = None,
                 ct_size: Optional[int] = None,
                 drop_path_rate: Optional[float] = None,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 pad_conv_stages: int = 1,
                 init_cfg: Union[dict, Sequence[dict], None] = None):
        variant = resolve_variant(arch, window_size=window_size, ct_size=ct_size,
                                  drop_path_rate=drop_path_rate)
        out_indices = checked_out_indices(out_indices)
        num_stages = out_indices[-1] + 1
        if out_norm is not None and out_norm not in OUT_NORMS:
            raise ValueError(f'out_norm={out_norm!r}: give one of {list(OUT_NORMS)}, or None')
        if not isinstance(pad_conv_stages, int) or pad_conv_stages < 1:
            raise ValueError(f'pad_conv_stages={pad_conv_stages!r}: give a number of cells, 1 for '
                             'no padding')
        super().__init__(checked_init_cfg(init_cfg))

        self.arch = arch
        self.variant = variant
        self._any_windows = window_size is not None or (
            isinstance(arch, Mapping) and 'window_size' in arch)
        stem = Stem(_checked_in_channels(in_channels), variant.stem_channels, variant.embed_dim)
        # Rates grow over the blocks of all four stages, even if the last are not built, so that the
        # built blocks keep the rates they were trained with.
        num_blocks = sum(variant.depths)
        rates = [variant.drop_path_rate * n / max(num_blocks - 1, 1) for n in range(num_blocks)]
        stages, downsamples = [], []
        for stage in range(num_stages):
            dim = variant.stage_dim(stage)
            first = sum(variant.depths[:stage])
            drop_paths = rates[first:first + variant.depths[stage]]
            if stage < 2:
                stages.append(ConvStage(dim, drop_paths, with_cp, pad_conv_stages))
            else:
                carriers = stage == 2 and variant.hierarchical
                stages.append(HierarchicalAttention(
                    dim, len(drop_paths), variant.num_heads[stage], variant.window_size[stage - 2],
                    ct_size=variant.ct_size if carriers else None,
                    propagate_carriers=variant.propagate_carriers,
                    mlp_ratio=variant.mlp_ratio, layer_scale=variant.layer_scale,
                    carrier_bias=variant.carrier_bias, drop_paths=drop_paths,
                    absolute_position=variant.absolute_position,
                    relative_position=variant.relative_position, with_cp=with_cp))
            if stage + 1 < num_stages:
                downsamples.append(Downsample(dim))
        self._assemble(stem, stages, downsamples, OUT_NORMS.get(out_norm, nn.Identity),
                       [variant.stage_dim(stage) for stage in range(NUM_STAGES)], in_channels,
                       out_indices, frozen_stages, norm_eval, with_cp)

    def _assemble(self, stem: nn.Module, stages: Sequence[nn.Module],
                  downsamples: Sequence[nn.Module], out_norm: Callable[[int], nn.Module],
                  dims: Sequence[int], in_channels: int, out_indices: Tuple[int, ...],
                  frozen_stages: int, norm_eval: bool, with_cp: bool) -> None:
        """Put the parts of a network together.

        Args:
            stem: (B, in_channels, H, W) -> a map of stride 4.
            stages: Up to the last output.
            downsamples: One between two stages.
            out_norm: Makes the norm of an output of that width.
            dims: Width of each of the four stages.
            Others: As of the class.
        """
        _checked_in_channels(in_channels)
        if not -1 <= frozen_stages <= len(stages):
            raise ValueError(
                f'frozen_stages={frozen_stages}: give -1 (nothing), 0 (the stem) or up to '
                f'{len(stages)}, the number of stages built for out_indices={out_indices}')
        self.in_channels = in_channels
        self.out_indices = out_indices
        self.out_channels = tuple(dims[i] for i in out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.downsamples = nn.ModuleList(downsamples)
        self.out_norms = nn.ModuleDict({
            str(i): out_norm(width) for i, width in zip(out_indices, self.out_channels)})
        self.kept_cast = Kept()
        # Channels last from the stem to the norms: a map's cells are tokens without a copy. With
        # weights in that order no convolution turns its weight or its map around. FSDP takes
        # contiguous weights alone: .to(memory_format=torch.contiguous_format) before it.
        self.to(memory_format=torch.channels_last)
        self._freeze()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, in_channels, H, W) -> maps of (B, C_i, ceil(H / stride_i), ceil(W / stride_i))."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f'input of shape {tuple(x.shape)}: expected (B, {self.in_channels}, '
                             'H, W)')
        if x.shape[2] < 32 or x.shape[3] < 32:
            raise ValueError(f'input of {x.shape[2]} x {x.shape[3]} pixels: {type(self).__name__} '
                             'divides the image by 32, so height and width must be at least 32')
        network = self._network_for_autocast(x)
        if network is not None:
            x = x.to(autocast_dtype(x))
            with torch.autocast(x.device.type, enabled=False):
                return network(x)
        outs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = self.downsamples[i - 1](x)
            x = stage(x)
            if i in self.out_indices:
                # mmcv's RoIAlign reads any map as (B, C, H, W) in memory; channels-last maps would
                # stay so through an FPN, and detectors would get scrambled features.
                norm = self.out_norms[str(i)]
                outs.append(norm(x) if isinstance(norm, ChannelAffine) else norm(x).clone(
                    memory_format=torch.contiguous_format))
        return tuple(outs)

    def __call__(self, x: Tensor, *args, **kwargs) -> Tuple[Tensor, ...]:
        if getattr(self, '_compiled_call_impl', None) is not None and not is_compiling():
            self._network_for_autocast(x)  # a graph of ``compile()`` finds it and cannot make it
        return super().__call__(x, *args, **kwargs)

    def _network_for_autocast(self, x: Tensor) -> Optional['FasterViT']:
        """A deployed network with its weights in autocast's type, made once; None without need.

        Autocast itself would cast every weight at every call: it keeps casts of trained ones only.
        """
        dtype = autocast_dtype(x) if self.deployed else None
        if dtype is None:
            return None
        if is_compiling():
            return self.kept_cast.found(dtype)
        return self.kept_cast(dtype, x.device, lambda: self._cast(dtype))

    @property
    def deployed(self) -> bool:
        """Whether :meth:`switch_to_deploy` was called, or that of each part."""
        return (isinstance(getattr(self.stem, 'norm1', None), nn.Identity)
                or any(getattr(stage, 'deployed', False) for stage in self.stages))

    def switch_to_deploy(self) -> 'FasterViT':
        """Make inference faster, in place. It cannot be undone. Returns self.

        BatchNorms and layer scales are folded into the weights before them, the position terms of
        windows become constants, those of carriers are kept for the last image size, and heads
        whose width is no multiple of 8 are padded in their weights. Outputs change by at most
        1e-4, relative. Load the weights first and cast (``.bfloat16()``) afterwards. Under
        autocast a copy of the weights in autocast's type is made once and kept. A detector or
        segmentor that holds this backbone still works; training and loading a checkpoint do not.

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
        for name, norm in self.out_norms.items():
            if isinstance(norm, _BatchNorm):
                self.out_norms[name] = ChannelAffine(norm)
        return self.requires_grad_(False)

    def _cast(self, dtype: torch.dtype) -> 'FasterViT':
        """A copy of a deployed network in another type, its position terms' weights shared."""
        cast = deepcopy(self).to(dtype)
        for ours, theirs in zip(self.modules(), cast.modules()):
            if isinstance(ours, PositionTerm) and hasattr(ours, 'mlp'):
                theirs.mlp = ours.mlp  # computed in float32, from weights that are not rounded
        return cast

    def other_windows(self, tensors: Mapping[str, Tensor]) -> Optional[str]:
        """Why tensors that were trained with other windows are not for this network.

        Position terms are computed from the place in a window, so they mean other places in other
        windows, while names and shapes are the same, as of the four 4-21k files.

        Args:
            tensors: A state dict. Only the authors' files tell their windows.

        Returns:
            A text for an error; None for windows that are the same or not known, and where
            ``window_size`` was given, which says that others are wanted.
        """
        sizes, own = window_sizes(tensors), self.variant.window_size
        trained = tuple(sizes.get(stage, size) for stage, size in enumerate(own, 2))
        built = max(len(self.stages) - 2, 0)
        if self._any_windows or trained[:built] == own[:built]:
            return None
        names = [name for name, v in VARIANTS.items() if v == replace(
            self.variant, window_size=trained, drop_path_rate=v.drop_path_rate)]
        fitting = f'arch={names[0]!r}' if names else f'window_size={trained}'
        return (f'trained with windows of {trained[0]} and {trained[1]} cells a side in stages 3 '
                f'and 4, but arch={self.arch!r} has {own[0]} and {own[1]}, in which its '
                f'position terms would stand for other places. Set {fitting}, as the file has, or '
                f'window_size={own} to use its weights in other windows on purpose')

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        if self.deployed:
            raise RuntimeError('switch_to_deploy() has folded this backbone\'s weights, and a '
                               'checkpoint no longer fits: load it first, then deploy')
        if is_authors(state_dict, prefix):
            below = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
            if (wrong := self.other_windows(below)) is not None:
                args[-1].append(wrong)  # the errors that load_state_dict raises together
            rename_authors(state_dict, prefix)
            # No file of the authors holds the output norms; they stay as they are.
            for name, tensor in self.out_norms.state_dict(prefix=f'{prefix}out_norms.').items():
                state_dict.setdefault(name, tensor)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def init_weights(self) -> None:
        """Initialise as mmengine does; a training's log also says what serves mmcv's operators."""
        say_which_serve(MMLogger.get_current_instance())
        super().init_weights()

    def train(self, mode: bool = True):
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
        frozen = [self.stem] if self.frozen_stages >= 0 else []
        for stage in range(max(self.frozen_stages, 0)):
            frozen += [self.stages[stage], *self.downsamples[stage:stage + 1]]
        for part in frozen:
            part.eval()
            part.requires_grad_(False)


def _checked_in_channels(in_channels: int) -> int:
    if in_channels < 1:
        raise ValueError(f'in_channels={in_channels}: an image has at least 1 channel')
    return in_channels


def checked_out_indices(out_indices: Sequence[int], kind: str = 'FasterViT') -> Tuple[int, ...]:
    if isinstance(out_indices, int):
        out_indices = (out_indices, )
    out_indices = tuple(out_indices)
    if not out_indices or any(
            not isinstance(i, int) or not 0 <= i < NUM_STAGES for i in out_indices):
        raise ValueError(f'out_indices={out_indices}: {kind} has stages 0 to {NUM_STAGES - 1}')
    if list(out_indices) != sorted(set(out_indices)):
        raise ValueError(f'out_indices={out_indices}: give each stage once, in ascending order')
    return out_indices


def checked_init_cfg(init_cfg) -> list:
    """mmengine's initialisers, with ours in place of its ``Pretrained``.

    mmengine's loads with ``strict=False`` and does not report what stayed random.
    The initialiser is found by name, registered by :mod:`fastervit_mm.weights`.
    """
    given = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
    mmengines = ('Pretrained', PretrainedInit)
    pretrained = [{**cfg, 'type': 'FasterViTPretrained'} for cfg in given
                  if cfg.get('type') in mmengines]
    others = [cfg for cfg in given if cfg.get('type') not in mmengines]
    default = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)
    return [*(others or [default]), *pretrained]
