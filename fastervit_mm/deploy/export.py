"""One file for images of every size: ONNX, or PyTorch's own ``torch.export``."""
import contextlib
import json
import logging
import os
import warnings
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, List, Optional, Sequence, Set, Tuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from torch import Tensor, nn

from ..backbone import FasterViT
from ..version import __version__

PARTS = ('backbone', 'features', 'whole')
OPSET = 18
INPUT = 'images'

# What TensorRT's parser lacks or takes with limits, or what makes a shape depend on what a picture
# shows.
FORBIDDEN_OPS = frozenset((
    'Compress', 'If', 'Loop', 'Mod', 'NonZero', 'NonMaxSuppression', 'OneHot', 'OptionalHasElement',
    'Scan', 'SequenceAt', 'SequenceConstruct', 'SequenceEmpty', 'SequenceInsert', 'SplitToSequence',
    'StringNormalizer', 'Unique'))
# Inputs that say what shape comes out, or what is cut.
_SHAPE_INPUTS = dict(
    ConstantOfShape=(0, ), Expand=(1, ), Pad=(1, 3), Range=(0, 1, 2), Reshape=(1, ),
    Resize=(1, 2, 3), Slice=(1, 2, 3, 4), Split=(1, ), Squeeze=(1, ), Tile=(1, ), TopK=(1, ),
    Unsqueeze=(1, ))
_EXTERNAL = 1_900_000_000  # bytes of weights; a file of ONNX ends at 2 GiB


class ExportError(RuntimeError):
    """A network that cannot be exported as asked, and why."""


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """A config's network with a checkpoint's weights, in evaluation mode, on the CPU.

    Args:
        cfg: From :func:`fastervit_mm.engine.launch.load_config`.
        checkpoint: Path or URL.

    Raises:
        CheckpointError: For a checkpoint that does not fill the whole network.
    """
    from ..engine.hooks import CompleteCheckpointHook
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    content = load_checkpoint(model, checkpoint, map_location='cpu', logger='silent')
    CompleteCheckpointHook().after_load_checkpoint(
        SimpleNamespace(model=model, _load_from=checkpoint), content)
    return model.eval()


def choose_part(model: nn.Module, part: Optional[str] = None) -> str:
    """Which part of a network is exported: the one asked for, or the largest that can be.

    Args:
        model: A segmentor, detector, classifier, or a backbone alone.
        part: ``'backbone'``, ``'features'`` (up to the neck) or ``'whole'`` (a segmentor's logits
            or labels). Default ``'whole'`` for mmseg's encoder-decoders, ``'features'`` for
            networks with a neck, ``'backbone'`` for others.

    Raises:
        ExportError: Where the network has no such part.
    """
    segments = _segments(model)
    if part is None:
        return 'whole' if segments else 'features' if getattr(
            model, 'neck', None) is not None else 'backbone'
    if part not in PARTS:
        raise ExportError(f'part={part!r}: give one of {list(PARTS)}')
    if part == 'whole' and not segments:
        raise ExportError(
            f'part=\'whole\': {type(model).__name__} is no encoder-decoder of mmseg with one '
            'decode head. Heads of detectors choose boxes, whose number depends on the picture: '
            'export the \'features\' and run the heads behind them')
    if part == 'features' and getattr(model, 'neck', None) is None:
        raise ExportError(f'part=\'features\': {type(model).__name__} has no neck; give '
                          '\'backbone\'' + (' or \'whole\'' if segments else ''))
    return part


def _segments(model: nn.Module) -> bool:
    return (hasattr(model, 'encode_decode') and hasattr(model, 'decode_head')
            and not isinstance(model.decode_head, nn.ModuleList))


class Exportable(nn.Module):
    """The part of a network that is exported: (B, C, H, W), normalised -> a tuple of tensors.

    Args:
        model: A segmentor, detector, classifier, or a backbone alone.
        part: From :func:`choose_part`.
        labels: Return labels (B, H, W) instead of logits (B, classes, H, W).

    Attributes:
        names (list[str]): Of the outputs: ``stride4``... for maps of the backbone, ``feature0``...
            of the neck; ``logits`` or ``labels``.
    """

    def __init__(self, model: nn.Module, part: str, labels: bool = False):
        super().__init__()
        if labels and part != 'whole':
            raise ExportError(f'labels=True: labels are what a whole segmentor gives, and '
                              f'part={part!r} is asked for')
        self.backbone = getattr(model, 'backbone', model)
        self.neck = None if part == 'backbone' else getattr(model, 'neck', None)
        self.decode_head = model.decode_head if part == 'whole' else None
        self.labels = labels
        if labels and self.decode_head.out_channels == 1:
            raise ExportError('labels=True: this head has one output, a threshold makes its '
                              'labels; export the logits')
        self.names: List[str] = []

    def forward(self, images: Tensor) -> Tuple[Tensor, ...]:
        """(B, C, H, W) -> maps, or one tensor of logits or labels at the images' size."""
        maps = self.backbone(images)
        if self.neck is not None:
            maps = self.neck(maps)
        if self.decode_head is None:
            return tuple(maps)
        logits = F.interpolate(self.decode_head(maps), images.shape[2:], mode='bilinear',
                               align_corners=self.decode_head.align_corners)
        return (logits.argmax(dim=1) if self.labels else logits, )

    def name_outputs(self, number: int) -> None:
        if self.decode_head is not None:
            self.names = ['labels' if self.labels else 'logits']
        elif self.neck is not None:
            self.names = [f'feature{i}' for i in range(number)]
        else:
            indices = getattr(self.backbone, 'out_indices', range(number))
            self.names = [f'stride{4 * 2**i}' for i in indices]


class AxisPooling(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, for a graph in which sizes are free.

    Args:
        size: Height and width of the output, in cells; one number for both.
    """

    def __init__(self, size):
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *size)."""
        B, C, H, W = x.shape
        rows, columns = (_averages(n, pooled, x) for n, pooled in zip((H, W), self.size))
        # A copy and bmm, because reshape and matmul ask whether an axis is 1.
        x = x.clone(memory_format=torch.contiguous_format).view(B * C, H, W)
        x = torch.bmm(rows.expand(B * C, -1, -1), x)
        x = torch.bmm(x, columns.t().expand(B * C, -1, -1))
        return x.view(B, C, *self.size)


def _averages(cells: int, pooled: int, like: Tensor) -> Tensor:
    """(pooled, cells): row j averages the cells from floor(j n / p) up to ceil((j + 1) n / p)."""
    # Lists of Python's (symbolic) integers: no division of tensors, which TensorRT lacks.
    cell = torch.arange(cells, device=like.device)
    rows = []
    for j in range(pooled):
        start, stop = j * cells // pooled, ((j + 1) * cells + pooled - 1) // pooled
        inside = (cell >= start) & (cell < stop)
        rows.append(inside.to(like.dtype) / (stop - start))
    return torch.stack(rows)


def prepared(model: nn.Module, part: str, labels: bool = False, deploy: bool = True) -> Exportable:
    """A copy of a network's part that can be exported; the network stays as it is."""
    exportable = Exportable(deepcopy(model), part, labels).eval()
    for backbone in [m for m in exportable.modules() if isinstance(m, FasterViT)]:
        if deploy:
            backbone.deploy()
    for module in list(exportable.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(module, name, AxisPooling(child.output_size))
        if isinstance(module, nn.Conv2d):
            # PyTorch asks of a convolution's channels-last input whether the batch is 1, and would
            # bind the graph to the answer.
            module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), ))
    return exportable.requires_grad_(False).to(memory_format=torch.contiguous_format)


def export(model: nn.Module, path: str, part: Optional[str] = None, labels: bool = False,
           deploy: bool = True, opset: int = OPSET) -> Dict[str, str]:
    """Write a network, or a part of it, to a file that takes images of any number and size.

    Inputs are float32 images (B, channels, H, W), H and W at least 32, already normalised: the
    mean and standard deviation are in the file's metadata.

    Args:
        model: A segmentor, detector, classifier, or a backbone alone, in evaluation mode. It is
            not changed.
        path: ``.onnx``, or ``.pt2`` for ``torch.export``.
        part: As in :func:`choose_part`.
        labels: For a whole segmentor, labels and not logits.
        deploy: Fold the backbone first (:meth:`fastervit_mm.FasterViT.deploy`), in the copy.
        opset: Of ONNX.

    Returns:
        The metadata that went into the file.

    Raises:
        ExportError: For what cannot be exported.
    """
    suffix = Path(path).suffix
    if suffix not in ('.onnx', '.pt2'):
        raise ExportError(f'path={str(path)!r}: give a name that ends in .onnx or .pt2')
    folder = os.path.dirname(path) or '.'
    if not os.path.isdir(folder):
        raise ExportError(f'path={str(path)!r}: there is no folder {folder!r}')
    part = choose_part(model, part)
    network = prepared(model, part, labels, deploy)
    program = _captured(network)
    facts = metadata(model, network, part, deploy)
    if suffix == '.pt2':
        torch.export.save(program, path, extra_files={'metadata.json': json.dumps(facts)})
    else:
        _save_onnx(program, str(path), network.names, facts, opset)
    return facts


def metadata(model: nn.Module, network: Exportable, part: str, deploy: bool) -> Dict[str, str]:
    """What whoever runs the file must know, each a text."""
    normaliser = getattr(model, 'data_preprocessor', None)
    mean, std = (getattr(normaliser, name, None) for name in ('mean', 'std'))
    # Under one name or the other in the three toolboxes.
    rgb = any(getattr(normaliser, name, normaliser is None)
              for name in ('channel_conversion', '_channel_conversion'))
    return dict(
        producer=f'fastervit_mm {__version__}', part=part, outputs=json.dumps(network.names),
        mean=json.dumps([] if mean is None else mean.flatten().tolist()),
        std=json.dumps([] if std is None else std.flatten().tolist()),
        channel_order='RGB' if rgb else 'BGR',
        deployed=str(deploy))


def _captured(network: Exportable) -> torch.export.ExportedProgram:
    config = torch.fx.experimental._config
    if not hasattr(config, 'backed_size_oblivious'):
        raise ExportError(f'torch {torch.__version__}: export for all sizes needs torch 2.8 or '
                          'newer')
    Dim = torch.export.Dim
    sizes = {0: Dim('batch', min=1), 2: Dim('height', min=32), 3: Dim('width', min=32)}
    # A size that nothing else of the network could be mistaken for.
    example = torch.zeros(2, network.backbone.in_channels, 230, 333)
    with torch.no_grad(), _quiet(), config.patch(backed_size_oblivious=True):
        network.name_outputs(len(network(example)))
        # Without this setting, which torch.onnx uses too, an axis of one window or a batch of one
        # would be another graph.
        try:
            return torch.export.export(network, (example, ), dynamic_shapes=(sizes, ))
        except RuntimeError as error:
            raise ExportError('torch.export cannot capture this network for images of every size: '
                              f'{_first_line(error)}') from error


def _save_onnx(program: torch.export.ExportedProgram, path: str, names: Sequence[str],
               facts: Dict[str, str], opset: int) -> None:
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            __import__(package)
        except ModuleNotFoundError as error:
            raise ExportError(f'{package} is not installed: pip install onnx onnxscript '
                              'onnxruntime, or the extra [export]') from error
    with torch.no_grad(), _quiet():
        try:
            onnx_program = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=list(names),
                opset_version=opset, verbose=False)
        except RuntimeError as error:
            raise ExportError(f'torch.onnx cannot write this network: {_first_line(error)}'
                              ) from error
    onnx_program.model.metadata_props.update(facts)
    for node in onnx_program.model.graph.all_nodes():
        if node.op_type == 'Clip' and len(node.inputs) == 3 and node.inputs[1] is None:
            # Cells' numbers are limited so; TensorRT clips floats only, and takes Min of integers.
            node.op_type = 'Min'
            limit = node.inputs[2]
            node.resize_inputs(2)
            node.replace_input_with(1, limit)
    size = sum(p.numel() * p.element_size() for p in program.state_dict.values())
    onnx_program.save(path, external_data=size > _EXTERNAL)
    problems = [*forbidden_ops(path), *data_dependent_shapes(path)]
    if problems:
        for written in (path, f'{path}.data'):
            if os.path.exists(written):
                os.remove(written)
        raise ExportError(f'{path}: not kept, since TensorRT does not take what the graph holds: '
                          f'{", ".join(problems)}')


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip()}'.splitlines()[0]


def operators(path: str) -> List[str]:
    """Kinds of operators in an ONNX file, functions and subgraphs included, sorted."""
    import onnx
    model = onnx.load(path, load_external_data=False)
    kinds = set()

    def visit(nodes):
        for node in nodes:
            kinds.add(node.op_type)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    visit(graph.node)

    visit(model.graph.node)
    for function in model.functions:
        visit(function.node)
    return sorted(kinds)


def forbidden_ops(path: str) -> List[str]:
    """The operators of an ONNX file that :data:`FORBIDDEN_OPS` names."""
    return sorted(FORBIDDEN_OPS.intersection(operators(path)))


def data_dependent_shapes(path: str) -> List[str]:
    """Nodes of an ONNX file whose shape follows from what a picture shows, and not from its size.

    Returns:
        Each as ``'Kind (name)'``, in the graph's order.
    """
    import onnx
    graph = onnx.load(path, load_external_data=False).graph
    seen: Set[str] = {image.name for image in graph.input}  # computed from pixels
    found = []
    for node in graph.node:  # in topological order
        if any(i < len(node.input) and node.input[i] in seen
               for i in _SHAPE_INPUTS.get(node.op_type, ())):
            found.append(f'{node.op_type} ({node.name})')
        if node.op_type not in ('Shape', 'Size') and seen.intersection(node.input):
            seen.update(node.output)
    return found


@contextlib.contextmanager
def _quiet():
    """The exporters warn of their own insides."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
