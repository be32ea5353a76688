"""FasterViT as a backbone of OpenMMLab (arXiv 2306.06189, ICLR 2024)."""
from typing import List, Mapping, Optional, Sequence, Union

from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .base import StagedBackbone
from .names import is_authors, window_sizes
from .stages import ConvStage, Downsample, HATStage, Stem, check_whole, require
from .variants import resolve_variant

OUT_NORMS = {'BN': nn.BatchNorm2d, 'LN': LayerNorm2d, None: nn.Identity}


@MODELS.register_module()
class FasterViT(StagedBackbone):
    """FasterViT: two convolutional stages, then two of (hierarchical) window attention.

    Any image of at least 32 x 32 goes through one model; nothing is fixed to a resolution at
    construction. At the size of pretraining it equals the authors' model; the carrier tokens at
    other sizes are described in ``docs/architecture.md``.

    Args:
        arch: ``'0'`` to ``'6'``, ``'4-21k-224'``, ``'4-21k-384'``, ``'4-21k-512'``,
            ``'4-21k-768'``, or a dict of :class:`~fastervit_mm.backbone.variants.Variant`'s
            fields for a network of one's own; ``dict(base='2', ct_size=4)`` gives those that
            differ from a variant. Default ``'2'``.
        in_channels: Channels of the image. Weights for 3 are adapted to another number. Default 3.
        out_indices: Stages to return, ascending, out of 0 to 3. Their strides are 4, 8, 16, 32.
            Stages after the last one are not built. Default all four.
        out_norm: ``'BN'``, ``'LN'`` (over channels) or None: the norm on each output. BN is the
            default, as in the authors' detection code: LN erases contrast per pixel, and a
            Cascade R-CNN trained from scratch with it stayed at the background rate.
        window_size: Side of an attention window in cells, one for both transformer stages or one
            for each. Default the variant's.
        other_windows: Whether weights may be loaded that were trained with other windows. Names
            and shapes are the same, but position terms then stand for other places. Default False:
            an error.
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
            reads a backbone out of a whole detector's file. Default: Linear layers and position
            terms from a truncated normal of std 0.02, convolutions PyTorch's default.

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

    def __init__(self, arch: Union[str, dict] = '2', in_channels: int = 3,
                 out_indices: Sequence[int] = (0, 1, 2, 3), out_norm: Optional[str] = 'BN',
                 window_size: Union[int, Sequence[int], None] = None, other_windows: bool = False,
                 ct_size: Optional[int] = None, drop_path_rate: Optional[float] = None,
                 frozen_stages: int = -1, norm_eval: bool = False, with_cp: bool = False,
                 pad_conv_stages: int = 1, init_cfg: Union[dict, Sequence[dict], None] = None):
        variant = resolve_variant(arch, window_size=window_size, ct_size=ct_size,
                                  drop_path_rate=drop_path_rate)
        require(out_norm in OUT_NORMS, f'out_norm={out_norm!r}: give one of {list(OUT_NORMS)}')
        check_whole(pad_conv_stages=pad_conv_stages)
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, init_cfg)
        self.arch, self.variant, self.other_windows = arch, variant, other_windows

        def stage(i: int, dim: int, rates: List[float]) -> nn.Module:
            if i < 2:
                return ConvStage(dim, rates, with_cp, pad_conv_stages)
            ct_size = variant.ct_size if i == 2 and variant.hierarchical else 0
            return HATStage(dim, len(rates), variant.num_heads[i], variant.window_size[i - 2],
                            ct_size, variant.propagate_carriers, variant.layer_scale, rates,
                            with_cp)

        self.assemble(Stem(in_channels, variant.stem_channels, variant.embed_dim), stage,
                      Downsample, OUT_NORMS[out_norm], variant.embed_dim, variant.depths,
                      variant.drop_path_rate)
        if variant.hierarchical and self.num_stages > 2:
            nn.init.constant_(self.stages[2].carrier_bias, variant.carrier_bias)

    def wrong_windows(self, tensors: Mapping[str, Tensor]) -> Optional[str]:
        """Reason why a file's windows do not fit, if any.

        Position terms are computed from the place in a window, so they mean other places in other
        windows, while names and shapes are the same, as of the four 4-21k files.

        Args:
            tensors: A state dict. Only the authors' files tell their windows.

        Returns:
            A text for an error; None for windows that are the same or not known, and with
            ``other_windows=True``.
        """
        sizes, own = window_sizes(tensors), self.variant.window_size
        trained = tuple(sizes.get(stage, size) for stage, size in enumerate(own, 2))
        built = max(self.num_stages - 2, 0)
        if self.other_windows or trained[:built] == own[:built]:
            return None
        return (f'trained with windows of {trained[0]} and {trained[1]} cells a side in stages 3 '
                f'and 4, but arch={self.arch!r} has {own[0]} and {own[1]}, in which its '
                f'position terms would stand for other places. Set window_size={trained}, as '
                'the file has, or other_windows=True to use its weights all the same')

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        if is_authors(state_dict, prefix):
            below = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
            if (wrong := self.wrong_windows(below)) is not None:
                args[-1].append(wrong)  # the errors that load_state_dict raises together
            # No file of the authors holds the output norms; they stay as they are.
            for name, tensor in self.out_norms.state_dict(prefix=f'{prefix}out_norms.').items():
                state_dict.setdefault(name, tensor)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
