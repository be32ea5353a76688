"""Networks to measure: backbones and whole networks."""
import warnings
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Tuple

from torch import Tensor, nn

from fastervit_mm.backbone import FasterViT, SwinHAT
from fastervit_mm.config_files import get_config
from fastervit_mm.models import build_model

Size = Tuple[int, int]


@dataclass(frozen=True)
class Peer:
    """Network to measure.

    Attributes:
        build: Builds it with random weights, for images of (height, width) in pixels.
        box_ap: COCO box AP with Cascade Mask R-CNN, 3x, from the FasterViT paper.
        top1: ImageNet-1K top-1 accuracy at 224 x 224, trained on ImageNet-1K alone, as published by
            the network's own authors: the README of NVlabs/FasterViT, facebookresearch/ConvNeXt,
            microsoft/Swin-Transformer or sail-sg/metaformer.
        whole: Whether it is a detector or segmentor; else a backbone.
    """
    build: Callable[[Size], nn.Module]
    box_ap: Optional[float] = None
    top1: Optional[float] = None
    whole: bool = False


class AuthorsMaps(nn.Module):
    """The authors' any-resolution network as a backbone with four maps.

    Their stages include the downsampling after them; it is separated to reach the maps.
    """

    def __init__(self, arch: str, size: Size):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            import fastervit
            model = fastervit.create_model(f'faster_vit_{arch}_any_res', pretrained=False,
                                           resolution=list(size))
        self.patch_embed = model.patch_embed
        self.levels = model.levels
        self.downsamples = nn.ModuleList(level.downsample for level in list(model.levels)[:-1])
        for level in self.levels:
            level.downsample = None

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) -> four maps."""
        x = self.patch_embed(x)
        maps = []
        for i, level in enumerate(self.levels):
            x = level(x)
            maps.append(x)
            if i < len(self.downsamples):
                x = self.downsamples[i](x)
        return tuple(maps)


class Predictor(nn.Module):
    """Whole detector or segmentor: (B, 3, H, W) -> predictions.

    As in ``tools/test.py``.

    Args:
        model: mmdet's or mmseg's, with random weights.
        sample: A data sample class of that library.
    """

    def __init__(self, model: nn.Module, sample: type):
        super().__init__()
        self.model = model
        self.sample = sample

    def forward(self, x: Tensor) -> list:
        shape = tuple(x.shape[2:])
        meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape,
                    scale_factor=(1., 1.))
        return self.model.predict(x, [self.sample(metainfo=dict(meta)) for _ in x])


def _timm(name: str, fused: bool = True, **settings) -> Callable[[Size], nn.Module]:
    """Builder of timm's network, by default with fused attention.

    timm considers the fused form of some networks, such as Swin, experimental, and does not use it
    by default.
    """
    def build(size: Size) -> nn.Module:
        import timm
        timm.layers.set_fused_attn(fused, experimental=True)  # read when a network is built
        own = {k: size for k, v in settings.items() if v == 'size'}
        return timm.create_model(name, features_only=True, pretrained=False,
                                 **{**settings, **own})
    return build


def _mmdets_swin(size: Size) -> nn.Module:
    from mmdet.models.backbones.swin import SwinTransformer
    return SwinTransformer()


def _whole(config: str, swin: Optional[str] = None) -> Callable[[Size], nn.Module]:
    """Builder of a config's whole network, maybe with ``swin``'s backbone."""
    def build(size: Size) -> nn.Module:
        cfg = get_config(config)
        if swin is not None:
            from mmengine import hub
            other = hub.get_config(swin).model
            cfg.model.backbone = other.backbone
            for reader in ('neck', 'decode_head', 'auxiliary_head'):
                if reader in other:
                    cfg.model[reader].in_channels = other[reader].in_channels
        cfg.model.backbone.init_cfg = None
        if cfg.default_scope == 'mmdet':
            from mmdet.structures import DetDataSample as sample
        else:
            from mmseg.structures import SegDataSample as sample
        return Predictor(build_model(cfg), sample)
    return build


_SWIN_DET = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'
_SWIN_SEG = 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
_AP = {'2': 52.1, '3': 52.4, '4': 52.9}
_TOP1 = {'0': 82.1, '1': 83.2, '2': 84.2, '3': 84.9, '4': 85.4, '5': 85.6, '6': 85.8}

PEERS: Dict[str, Peer] = {
    **{f'fastervit-{n}': Peer(lambda size, n=n: FasterViT(n, out_norm=None), _AP.get(n), top1)
       for n, top1 in _TOP1.items()},
    **{f'fastervit-0-{name}': Peer(lambda size, own=own: FasterViT(
        dict(own, base='0'), out_norm=None))
       for name, own in {'windows': dict(hierarchical=False), 'ct1': dict(ct_size=1),
                         'ct4': dict(ct_size=4), 'w14': dict(window_size=(14, 7)),
                         'w14-ct4': dict(window_size=(14, 7), ct_size=4)}.items()},
    'fastervit-2-cp': Peer(lambda size: FasterViT('2', out_norm=None, with_cp=True)),
    **{f'authors-{n}': Peer(lambda size, n=n: AuthorsMaps(n, size), _AP.get(n), top1)
       for n, top1 in _TOP1.items()},
    'swin-t': Peer(_timm('swin_tiny_patch4_window7_224', img_size='size'), 50.4, 81.2),
    'swin-t-unfused': Peer(_timm('swin_tiny_patch4_window7_224', fused=False, img_size='size')),
    'swin-t-mmdet': Peer(_mmdets_swin, 50.4, 81.2),
    'swin-s': Peer(_timm('swin_small_patch4_window7_224', img_size='size'), 51.9, 83.2),
    'swin-b': Peer(_timm('swin_base_patch4_window7_224', img_size='size'), 51.9, 83.5),
    'swin-hat-t': Peer(lambda size: SwinHAT('tiny')),
    'swinv2-t': Peer(_timm('swinv2_tiny_window8_256', img_size='size')),
    'convnext-t': Peer(_timm('convnext_tiny'), 50.4, 82.1),
    'convnext-s': Peer(_timm('convnext_small'), 51.9, 83.1),
    'convnext-b': Peer(_timm('convnext_base'), 52.7, 83.8),
    'caformer-s18': Peer(_timm('caformer_s18'), top1=83.6),
    'caformer-s36': Peer(_timm('caformer_s36'), top1=84.5),
    'convformer-s36': Peer(_timm('convformer_s36'), top1=84.1),
    'hiera-t': Peer(_timm('hiera_tiny_224', img_size='size')),
    'vit-s': Peer(_timm('vit_small_patch16_224', img_size='size')),
    'gcvit-t': Peer(_timm('gcvit_tiny', img_size='size')),
    'cascade-fastervit-2': Peer(_whole('mmdet/cascade_fvit'), 52.1, whole=True),
    'cascade-swin-t': Peer(_whole('mmdet/cascade_fvit', _SWIN_DET), 50.4, whole=True),
    'upernet-fastervit-2': Peer(_whole('mmseg/upernet_fvit'), whole=True),
    'upernet-swin-t': Peer(_whole('mmseg/upernet_fvit', _SWIN_SEG), whole=True),
}
"""Networks that can be measured, by short name."""

SETS: Dict[str, Tuple[Tuple[str, ...], ...]] = {
    'paper': (('authors-2', 'fastervit-2', 'swin-t', 'convnext-t'),),
    'equal-accuracy': (('fastervit-0', 'convnext-t'),
                       ('fastervit-1', 'convnext-s', 'swin-s'),
                       ('fastervit-2', 'swin-b', 'caformer-s18', 'convformer-s36')),
}
"""Named sets of networks to compare; those in a tuple take turns.

In ``equal-accuracy`` each of our networks precedes its equals. Swin-B and CAFormer-S18, less
accurate than FasterViT-2 by 0.7 and 0.6, are the largest Swin trained at 224 x 224 on ImageNet-1K
alone, and the smallest CAFormer.
"""

EQUAL = 0.3
"""Largest difference in top-1, in points, of equally accurate networks."""
