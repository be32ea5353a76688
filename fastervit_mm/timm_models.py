"""FasterViT in timm's registry: ``timm.create_model('fastervit_2', pretrained=True)``.

Importing ``fastervit_mm`` registers eleven names, ``fastervit_0`` to ``fastervit_6`` and
``fastervit_4_21k_224``, ``_384``, ``_512``, ``_768``. The authors' package registers others
(``faster_vit_2_224``). No name of timm's own is replaced. Pretrained weights are the authors'.
"""
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple, Union

import torch
from mmengine.model import initialize
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    register_model,
    register_notrace_function,
    register_notrace_module,
)
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from .backbone import FasterViT
from .backbone.attention import attend
from .backbone.base import check_image
from .backbone.carriers import places
from .backbone.positions import PositionMLP, biases, grid
from .compat import mark_as_loaded
from .weights import PUBLISHED, read_checkpoint, tensors_of, translate_whole
from .weights.loading import adapt_channels, check_windows
from .weights.whole import check_complete

__all__: List[str] = []  # timm adds its entry points

_FIRST_CONV = 'backbone.stem.conv1'

# What FX cannot trace: branches on sizes, loops over them, tensors made of them, a context.
for _function in (attend, biases, check_image, grid, places):
    register_notrace_function(_function)
register_notrace_module(PositionMLP)


class FasterViTClassifier(nn.Module):
    """FasterViT with the published classifier and timm's interface.

    Names and shapes of its tensors are those of the classifiers in ``configs/mmpretrain``, so that
    a file of one loads into the other. Any image of at least 32 x 32 goes through it.

    Args:
        arch: As of :class:`~fastervit_mm.FasterViT`.
        num_classes: Classes; 0 for none, the pooled features. Default 1000.
        in_chans: Channels of the image. Default 3.
        global_pool: timm's name of the pooling, ``''`` for none. Default ``'avg'``.
        drop_rate: Dropout before the linear layer. Default 0.
        drop_path_rate: Stochastic depth of the last block. Default the variant's.
        window_size, ct_size: As of :class:`~fastervit_mm.FasterViT`.
        output_stride: Stride of the last map; only 32.
        device, dtype: Of the tensors. Default PyTorch's.

    Raises:
        ValueError: For an argument out of range.
    """

    def __init__(self, arch: Union[str, dict], num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = 'avg', drop_rate: float = 0.,
                 drop_path_rate: Optional[float] = None,
                 window_size: Union[int, Sequence[int], None] = None,
                 ct_size: Optional[int] = None, output_stride: int = 32,
                 device: Union[torch.device, str, None] = None,
                 dtype: Optional[torch.dtype] = None):
        if output_stride != 32:
            raise ValueError(f'output_stride={output_stride}: give 32; FasterViT has no dilation')
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.backbone = FasterViT(arch, in_chans, out_indices=(3, ), drop_path_rate=drop_path_rate,
                                  window_size=window_size, ct_size=ct_size)
        initialize(self.backbone, self.backbone.init_cfg)  # init_weights() logs every tensor
        self.num_features = self.backbone.out_channels[-1]
        variant = self.backbone.variant
        self.feature_info = [dict(num_chs=variant.stage_dim(i), reduction=4 * 2**i,
                                  module=f'backbone.stages.{i}') for i in range(4)]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool,
                                   drop_rate=drop_rate)
        self.to(device=device, dtype=dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> normed last map, (B, 8C, H / 32, W / 32)."""
        return self.backbone(x)[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 8C, h, w) -> (B, num_classes); with ``pre_logits``, (B, 8C)."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> logits, (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(self, x: Tensor, indices: Union[int, List[int], None] = None,
                              norm: bool = False, stop_early: bool = False,
                              output_fmt: str = 'NCHW', intermediates_only: bool = False
                              ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:
        """Stages' maps, each before its downsampling, as in timm.

        Args:
            x: (B, in_chans, H, W).
            indices: Stages from 0, or how many of the last. Default all.
            norm: Give the last map after its BatchNorm. Default False.
            stop_early: Stop after the last wanted stage. Default False.
            output_fmt: Only ``'NCHW'``.
            intermediates_only: Leave the final map out. Default False.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f'output_fmt={output_fmt!r}: give NCHW')
        backbone = self.backbone
        wanted, deepest = feature_take_indices(len(self.feature_info), indices)
        maps = []
        x = backbone.stem(x)
        for i, stage in enumerate(backbone.stages[:deepest + 1] if stop_early else backbone.stages):
            x = stage(backbone.downsamples[i - 1](x) if i else x)
            y = backbone.out_norms[str(i)](x) if i in backbone.out_indices else x
            if i in wanted:
                maps.append(y if norm else x)
        return maps if intermediates_only else (y, maps)

    def prune_intermediate_layers(self, indices: Union[int, List[int]] = 1,
                                  prune_norm: bool = False, prune_head: bool = True) -> List[int]:
        """Remove what follows the last wanted stage; return wanted stages.

        With fewer stages the head goes too: its width is that of the last stage.
        """
        wanted, deepest = feature_take_indices(len(self.feature_info), indices)
        backbone = self.backbone
        backbone.stages = backbone.stages[:deepest + 1]
        backbone.downsamples = backbone.downsamples[:deepest]
        shorter = deepest not in backbone.out_indices
        if prune_norm or shorter:
            backbone.out_indices = (deepest, )
            backbone.out_norms = nn.ModuleDict({str(deepest): nn.Identity()})
        if prune_head or shorter:
            self.num_features = self.head.in_features = self.feature_info[deepest]['num_chs']
            self.reset_classifier(0, '')
        return wanted

    @property
    def head_hidden_size(self) -> int:
        """Width of the pooled features."""
        return self.num_features * self.head.global_pool.feat_mult()

    def get_classifier(self) -> nn.Module:
        """The linear layer of the head."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        """Replace the linear layer by one for ``num_classes`` classes."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        self.head.to(next(self.backbone.parameters()))  # its device and type

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass, as ``with_cp`` does."""
        for stage in self.backbone.stages:
            stage.with_cp = enable

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict:
        """Patterns of parameters' names by depth, for timm's layer decay."""
        blocks = r'^backbone\.stages\.(\d+)' if coarse else [
            (r'^backbone\.stages\.(\d+)\.blocks\.(\d+)', None),
            (r'^backbone\.stages\.(\d+)\.(?:carrier|position)', (0, )),
            (r'^backbone\.downsamples\.(\d+)', (99998, )),
            (r'^backbone\.out_norms', (99999, ))]
        return dict(stem=r'^backbone\.stem', blocks=blocks)

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        """Position terms: decay would pull positions towards 0."""
        return {name for name, _ in self.named_parameters()
                if 'position' in name or 'carrier_bias' in name}

    def load_pretrained(self, checkpoint: str) -> None:
        """Load a file completely, or raise an error.

        timm's ``pretrained=True``. As in timm, the linear layer is left out if its number of
        classes differs, and the first convolution is adapted to ``in_chans``.

        Args:
            checkpoint: Path, URL or ``fastervit://`` name: the authors' file, one of this model or
                of a classifier of ``configs/mmpretrain``.

        Raises:
            FileNotFoundError: For a path without a file.
            CheckpointError: For a file that cannot be read safely, is of another variant, was
                trained with other windows, or has values that are not finite. The model is then
                unchanged.
        """
        found = tensors_of(read_checkpoint(checkpoint, mapped=True), checkpoint)
        check_windows(self.backbone, found, checkpoint)
        tensors = translate_whole(found)
        adapt_channels(tensors, f'{_FIRST_CONV}.weight', self.in_chans)
        head = {f'head.{name}': value for name, value in self.head.state_dict().items()}
        if 'head.fc.weight' in tensors and (
                len(tensors['head.fc.weight']) != self.num_classes):
            tensors = {name: value for name, value in tensors.items()
                       if not name.startswith('head.')} | head
        check_complete(self, tensors, checkpoint)
        own = self.state_dict()
        self.load_state_dict({name: tensors.get(name, own[name]) for name in own})
        mark_as_loaded(self)


def _cfg(name: str, size: int, crop_pct: float, crop_mode: str) -> Dict:
    return dict(
        url=PUBLISHED[name], custom_load=True, num_classes=1000, input_size=(3, size, size),
        min_input_size=(3, 32, 32), pool_size=(size // 32, size // 32), crop_pct=crop_pct,
        crop_mode=crop_mode, interpolation='bicubic', mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD, first_conv=_FIRST_CONV, classifier='head.fc', license='other',
        paper_ids='arXiv:2306.06189', paper_name='FasterViT: Fast Vision Transformers with '
        'Hierarchical Attention', origin_url='https://github.com/NVlabs/FasterViT')


# The preprocessing with which each file was evaluated, as the authors publish it.
_FILES = {
    'fastervit_0.in1k': ('0', _cfg('0-224-1k', 224, 0.875, 'center')),
    **{f'fastervit_{n}.in1k': (str(n), _cfg(f'{n}-224-1k', 224, 1.0, 'center'))
       for n in range(1, 7)},
    **{f'fastervit_4_21k_{size}.in21k_ft_in1k': (
        f'4-21k-{size}', _cfg(f'4-21k-{size}', size, fraction, 'squash'))
       for size, fraction in ((224, 0.95), (384, 1.0), (512, 1.0), (768, 0.93))},
}
default_cfgs = generate_default_cfgs({tag: cfg for tag, (_, cfg) in _FILES.items()})


def register_models() -> None:
    """Add the names that timm's registry lacks."""
    for tag, (arch, _) in _FILES.items():
        if not is_model(name := tag.partition('.')[0]):
            register_model(_entry_point(name, arch))


def _entry_point(name: str, arch: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs) -> nn.Module:
        overlay = dict(kwargs.pop('pretrained_cfg_overlay', None) or {})
        if overlay.get('file') or overlay.get('url'):  # timm would read another source itself
            overlay.setdefault('custom_load', True)
        kwargs['pretrained_cfg_overlay'] = overlay
        return build_model_with_cfg(
            FasterViTClassifier, name, pretrained,
            feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls='getter'),
            **{'arch': arch, **kwargs})

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f'FasterViT-{arch}, with timm\'s arguments.'
    return create
