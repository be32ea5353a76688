"""Parameters, multiply-adds and activations of a network, part by part.

PyTorch's ``FlopCounterMode`` counts on shapes alone. mmengine's ``FlopAnalyzer`` traces, which
takes the time and memory of a forward pass, and cannot trace inputs that are not tensors.
"""
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import torch
from mmengine.config import Config
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .backbone import VARIANTS, FasterViT, StagedBackbone
from .compat import flop_registry
from .engine import launch
from .models import build_model

# Height and width of an image, by the default scope of a config.
SHAPES = dict(mmdet=(800, 1280), mmseg=(512, 2048), mmpretrain=(224, 224))
_CLASSES = 1000  # of ImageNet, for a variant's name


def _attention_flop(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


# PyTorch's counter counts GPUs' attention kernels, but not that of CPUs (from torch 2.2 on).
ATTENTION = {getattr(torch.ops.aten, name): _attention_flop
             for name in ('_scaled_dot_product_flash_attention_for_cpu', )
             if hasattr(torch.ops.aten, name)}


@dataclass(frozen=True)
class Part:
    """Cost of a part of a network for one image.

    Attributes:
        name: Such as ``'backbone/stage 3'`` or ``'roi_head/bbox_head 1'``.
        parameters: Elements of weights and biases. A shared weight counts in the first part.
        multiply_adds: Of convolutions and matrix products, attention's included.
        activations: Elements that convolutions, linear layers and attention write, as in fvcore.
            Attention's logits count only where a kernel writes them to memory.
    """
    name: str
    parameters: int
    multiply_adds: int
    activations: int


@dataclass(frozen=True)
class Complexity:
    """Cost of a network for one image.

    Attributes:
        model: The config's name or the variant's.
        shape: (height, width) in pixels.
        parts: In the order of the network. They add up to ``total``.
        proposals: Boxes in the box heads of a two-stage detector; None without them.
        detections: Boxes in its mask heads; None without them.
    """
    model: str
    shape: Tuple[int, int]
    parts: List[Part]
    proposals: Optional[int] = None
    detections: Optional[int] = None

    @property
    def total(self) -> Part:
        """All parts together."""
        return _sum('total', self.parts)

    def save(self, path: Path) -> None:
        """Write everything as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(asdict(self), total=asdict(self.total)), indent=1))


class _Classifier(nn.Module):
    """Published classifier: a variant, average pooling, one linear layer."""

    def __init__(self, arch: str):
        super().__init__()
        self.backbone = FasterViT(arch, out_indices=(3, ))
        self.head = nn.Linear(self.backbone.out_channels[0], _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(image)[0].mean((2, 3)))


class _Backbone(nn.Module):
    """Backbone under its usual name in a model."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> object:
        return self.backbone(image)


def analyse(config: str, shape: Optional[Sequence[int]] = None,
            cfg_options: Optional[dict] = None, backbone_only: bool = False) -> Complexity:
    """Count a network's cost for one image, in inference.

    Operators give only the shape of their result, so that the largest network takes seconds and no
    memory. A model that depends on values, as some detectors do, runs for real.

    The heads of a two-stage detector process as many boxes as its ``test_cfg`` allows:
    ``rpn.max_per_img`` proposals and ``rcnn.max_per_img`` detections.

    Args:
        config: Path of an mmdet, mmseg or mmpretrain config, or a variant such as ``'2'``: then
            the ImageNet network with its classifier.
        shape: (height, width) of the image in pixels. Default 800 x 1280 for mmdet, 512 x 2048 for
            mmseg, else 224 x 224 or the variant's own.
        cfg_options: Settings that replace the config's, by dotted name.
        backbone_only: Leave out neck and heads, or the classifier.

    Raises:
        FileNotFoundError: For a config that does not exist.
        ValueError: For an argument out of range.
    """
    cfg = None if config in VARIANTS else launch.load_config(config, cfg_options=cfg_options)
    if cfg is not None and not cfg.get('model'):
        raise ValueError(f'config={config!r}: has no model')
    shape = tuple(shape or _default_shape(config, cfg))
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f'shape={shape}: give height and width in pixels')

    def build() -> nn.Module:
        if cfg is None:
            return _Backbone(FasterViT(config)) if backbone_only else _Classifier(config)
        model = build_model(cfg)
        if backbone_only or isinstance(model, StagedBackbone):
            return _Backbone(getattr(model, 'backbone', model))
        return model

    boxes = _boxes({} if cfg is None or backbone_only else cfg.model)
    try:
        with FakeTensorMode():
            parts = _count(build(), shape, *boxes)
    except (RuntimeError, TypeError):
        parts = _count(build(), shape, *boxes)
    return Complexity(Path(config).stem, shape, parts, *boxes)


def table(complexity: Complexity) -> Table:
    """Tabulate the figures, by part and by group of parts."""
    total = complexity.total
    boxes = [f'{number} {name}' for name in ('proposals', 'detections')
             if (number := getattr(complexity, name))]
    out = Table(title=f'{complexity.model}, one image of {complexity.shape[0]} x '
                f'{complexity.shape[1]}', title_justify='left', caption_justify='left',
                caption=' '.join(['Multiply-adds include attention\'s products.',
                                  *[', '.join(boxes) + '.'] * bool(boxes)]))
    out.add_column('part', no_wrap=True)
    for name in ('params, M', 'GMAC', 'share', 'activations, M'):
        out.add_column(name, justify='right', no_wrap=True)

    def add(name: str, part: Part, style: Optional[str] = None) -> None:
        share = 100 * part.multiply_adds / total.multiply_adds if total.multiply_adds else 0
        out.add_row(name, f'{part.parameters / 1e6:.2f}', f'{part.multiply_adds / 1e9:.2f}',
                    f'{share:.1f} %', f'{part.activations / 1e6:.2f}', style=style)

    groups: Dict[str, List[Part]] = {}
    for part in complexity.parts:
        groups.setdefault(part.name.split('/')[0], []).append(part)
    for group, parts in groups.items():
        add(group, _sum(group, parts), 'bold')
        if [part.name for part in parts] != [group]:
            for part in parts:
                add('  ' + part.name.partition('/')[2], part)
    out.add_section()
    add('total', total, 'bold')
    return out


def _default_shape(config: str, cfg: Optional[Config]) -> Tuple[int, int]:
    if cfg is not None:
        return SHAPES.get(cfg.get('default_scope'), (224, 224))
    side = int(config.split('-')[-1]) if '-' in config else 224
    return side, side


def _boxes(model: Mapping) -> Tuple[Optional[int], Optional[int]]:
    """Numbers of boxes in box heads and mask heads."""
    test_cfg = model.get('test_cfg') or {}
    if not ('rpn' in test_cfg and 'rcnn' in test_cfg):
        return None, None
    return test_cfg['rpn'].get('max_per_img', 1000), (
        test_cfg['rcnn'].get('max_per_img', 100)
        if (model.get('roi_head') or {}).get('mask_head') else None)


@torch.no_grad()
def _count(model: nn.Module, shape: Tuple[int, int], proposals: Optional[int],
           detections: Optional[int]) -> List[Part]:
    model.eval()
    run = _two_stages(proposals, detections) if proposals else _plain
    channels = getattr(getattr(model, 'backbone', None), 'in_channels', 3)
    image = torch.rand(1, channels, *shape)
    counted = {**flop_registry, **ATTENTION}
    products = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    written = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(counted, _elements))
    with products, written:
        with _Ledger(model, (products, written)) as ledger:
            run(model, image)
    return _parts(model, ledger)


class _Ledger:
    """Context that books all counts to the innermost running part.

    Parts may call each other's modules, as DINO's decoder calls its head's; nothing counts twice.
    The counter's own counts by module book an operator to every module around it.

    Args:
        model: A model that :func:`_named_parts` can divide.
        counters: The counters, which are running already.
    """

    def __init__(self, model: nn.Module, counters: Sequence[FlopCounterMode]):
        self.counts: Dict[str, List[int]] = {}
        self._counters = counters
        self._settled = [0] * len(counters)
        self._working = ['elsewhere']
        self._owners: Dict[nn.Module, str] = {}
        for name, part in _named_parts(model):
            for module in part.modules():
                self._owners.setdefault(module, name)

    def _settle(self) -> None:
        """Book new counts to the running part."""
        now = [counter.get_total_flops() for counter in self._counters]
        counts = self.counts.setdefault(self._working[-1], [0] * len(now))
        self.counts[self._working[-1]] = [
            count + new - old for count, new, old in zip(counts, now, self._settled)]
        self._settled = now

    def _enter(self, module: nn.Module, args: tuple) -> None:
        self._settle()
        self._working.append(self._owners[module])

    def _leave(self, module: nn.Module, args: tuple, output: object) -> None:
        self._settle()
        self._working.pop()

    def __enter__(self) -> '_Ledger':
        self._hooks = [hook for module in self._owners for hook in (
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave))]
        return self

    def __exit__(self, *exception) -> None:
        self._settle()
        for hook in self._hooks:
            hook.remove()


def _elements(*args, out_shape=None, **kwargs) -> int:
    """Count the elements of an operator's first result."""
    shape = out_shape[0] if isinstance(out_shape[0], (tuple, list, torch.Size)) else out_shape
    return torch.Size(shape).numel()


def _plain(model: nn.Module, image: Tensor) -> object:
    if isinstance(model, (_Classifier, _Backbone)):
        return model(image)
    samples, shape = None, tuple(image.shape[2:])
    meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape,
                scale_factor=(1., 1.))
    if type(getattr(model, 'decode_head', None)).__name__ == 'Mask2FormerHead':  # no mode='tensor'
        return model.encode_decode(image, [meta])
    if type(model).__module__.startswith('mmdet'):
        from mmdet.structures import DetDataSample
        samples = [DetDataSample(metainfo=meta)]
    return model(image, samples, mode='tensor')


def _two_stages(proposals: int, detections: Optional[int]
                ) -> Callable[[nn.Module, Tensor], object]:
    """Two-stage forward pass with fixed numbers of boxes.

    mmdet's own ``mode='tensor'`` gives the mask heads every proposal. A prediction gives them only
    the detections of the box heads, ten times fewer. The extractors before the heads are left out,
    since it depends on values which map they read; their interpolation is not counted anyway.
    """
    def forward(model: nn.Module, image: Tensor) -> object:
        from mmdet.models.roi_heads import StandardRoIHead
        head = model.roi_head
        if not isinstance(head, StandardRoIHead) and not hasattr(head, 'num_stages'):
            raise ValueError(f'roi_head of type {type(head).__name__}: only StandardRoIHead, '
                             'CascadeRoIHead and their subclasses can be counted')
        for extractor in head.modules():
            if hasattr(extractor, 'roi_layers'):
                extractor.forward = _cut(extractor)
        maps = model.extract_feat(image)
        model.rpn_head(maps)
        stages = [(i, ) for i in range(head.num_stages)] if hasattr(head, 'num_stages') else [()]
        for stage in stages:
            head._bbox_forward(*stage, maps, image.new_zeros(proposals, 5))
        for stage in stages if head.with_mask else ():
            head._mask_forward(*stage, maps, image.new_zeros(detections, 5))
    return forward


def _cut(extractor: nn.Module) -> Callable:
    size = extractor.roi_layers[0].output_size
    return lambda maps, rois, *_, **__: maps[0].new_zeros(
        len(rois), extractor.out_channels, *size)


def _parts(model: nn.Module, ledger: _Ledger) -> List[Part]:
    """List the parts with figures, and ``elsewhere`` for the rest."""
    seen, parts = set(), []
    for name, module in (*_named_parts(model), ('elsewhere', model)):
        own = [p for p in module.parameters() if id(p) not in seen]
        seen.update(map(id, own))
        flops, written = ledger.counts.get(name, (0, 0))
        parts.append(Part(name, sum(p.numel() for p in own), flops // 2, written))
    return [p for p in parts if p.parameters or p.multiply_adds or p.activations]


def _named_parts(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """List children, a backbone's stages and a RoI head's heads."""
    for name, child in model.named_children():
        if name not in ('backbone', 'roi_head'):
            yield name, child
            continue
        for inner, module in child.named_children():
            if not isinstance(module, (nn.ModuleList, nn.Sequential)) or inner == 'stem':
                yield f'{name}/{_SPELT.get(inner, inner)}', module
                continue
            for key, item in module.named_children():
                place = str(int(key) + 1) if key.isdigit() else key
                yield f'{name}/{_SPELT.get(inner, inner)} {place}', item


_SPELT = dict(stages='stage', downsamples='downsample', out_norms='output norms')


def _sum(name: str, parts: Sequence[Part]) -> Part:
    return Part(name, *(sum(getattr(part, figure) for part in parts)
                        for figure in ('parameters', 'multiply_adds', 'activations')))
