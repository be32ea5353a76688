"""The networks that are measured: backbones that give four maps, and whole networks."""
import warnings
from dataclasses import dataclass
from typing import Callable, Dict, Optional, Tuple

import torch
from mmengine import hub
from torch import Tensor, nn

from ..backbone import FasterViT
from ..config_files import get_config
from ..engine.launch import compile_features
from ..models import build_model

Size = Tuple[int, int]


@dataclass(frozen=True)
class Peer:
    """A network to measure.

    Attributes:
        build: Builds it for images of a size, (height, width) in pixels, with random weights.
        box_ap: COCO box AP with Cascade Mask R-CNN, 3x, as published in the FasterViT paper.
        whole: Whether it is a detector or segmentor; else a backbone.
    """
    build: Callable[[Size], nn.Module]
    box_ap: Optional[float] = None
    whole: bool = False


class AuthorsMaps(nn.Module):
    """The authors' any-resolution network as a backbone: its four maps, no classifier.

    Their stages include the downsampling after them; it is taken out to reach the maps.
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
    """A whole detector or segmentor: (B, 3, H, W) -> its predictions, as in ``tools/test.py``.

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


def _timm(name: str, **settings) -> Callable[[Size], nn.Module]:
    def build(size: Size) -> nn.Module:
        import timm
        own = {k: size for k, v in settings.items() if v == 'size'}
        return timm.create_model(name, features_only=True, pretrained=False,
                                 **{**settings, **own})
    return build


def _whole(config: str, swin: Optional[str] = None) -> Callable[[Size], nn.Module]:
    """A config's whole network; with ``swin``, on the backbone of that config instead."""
    def build(size: Size) -> nn.Module:
        cfg = get_config(config)
        if swin is not None:
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
_FASTERVIT_AP = {'2': 52.1, '3': 52.4, '4': 52.9}

PEERS: Dict[str, Peer] = {
    **{f'fastervit-{n}': Peer(lambda size, n=n: FasterViT(n, out_norm=None), _FASTERVIT_AP.get(n))
       for n in '0123456'},
    'fastervit-2-cp': Peer(lambda size: FasterViT('2', out_norm=None, with_cp=True)),
    **{f'authors-{n}': Peer(lambda size, n=n: AuthorsMaps(n, size), _FASTERVIT_AP.get(n))
       for n in '0123456'},
    'swin-t': Peer(_timm('swin_tiny_patch4_window7_224', img_size='size'), 50.4),
    'swin-s': Peer(_timm('swin_small_patch4_window7_224', img_size='size'), 51.9),
    'swin-b': Peer(_timm('swin_base_patch4_window7_224', img_size='size'), 51.9),
    'swinv2-t': Peer(_timm('swinv2_tiny_window8_256', img_size='size')),
    'convnext-t': Peer(_timm('convnext_tiny'), 50.4),
    'convnext-s': Peer(_timm('convnext_small'), 51.9),
    'convnext-b': Peer(_timm('convnext_base'), 52.7),
    'hiera-t': Peer(_timm('hiera_tiny_224', img_size='size')),
    'gcvit-t': Peer(_timm('gcvit_tiny', img_size='size')),
    'cascade-fastervit-2': Peer(_whole('mmdet/cascade_fvit'), 52.1, whole=True),
    'cascade-swin-t': Peer(_whole('mmdet/cascade_fvit', _SWIN_DET), 50.4, whole=True),
    'upernet-fastervit-2': Peer(_whole('mmseg/upernet_fvit'), whole=True),
    'upernet-swin-t': Peer(_whole('mmseg/upernet_fvit', _SWIN_SEG), whole=True),
}
"""Short names of everything that can be measured."""


def compile_backbone(network: nn.Module) -> nn.Module:
    """Compile a backbone, or the backbone and neck of a whole network."""
    if not isinstance(network, Predictor):
        return torch.compile(network)
    compile_features(network.model)
    return network
