"""Writing ONNX and ``torch.export`` files for every image size."""
import contextlib
import json
import logging
import os
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict, Optional

import torch
from mmengine.config import Config
from torch import nn

from .errors import ExportError
from .heads.boxes import translations
from .metadata import metadata
from .onnx_graph import data_dependent_shapes, forbidden_ops
from .parts import Exportable, choose_input, choose_part, input_channels
from .swaps import prepared

OPSET = 18
INPUT = 'images'
_EXTERNAL = 1_900_000_000  # bytes of weights; an ONNX file cannot exceed 2 GiB


def export(model: nn.Module, path: str, part: Optional[str] = None, labels: bool = False,
           deploy: bool = True, opset: int = OPSET, input: Optional[str] = None,
           cfg: Optional[Config] = None) -> Dict[str, str]:
    """Write a network, or part of it, to a file.

    The file takes any number of images of any size from the smallest in its metadata.

    Args:
        model: A segmentor, detector, classifier, or a bare backbone, in evaluation mode. It is
            not changed.
        path: ``.onnx``, or ``.pt2`` for ``torch.export``.
        part: As in :func:`choose_part`.
        labels: For a whole segmentor, labels instead of logits. Default False.
        deploy: Fold the backbone first, in the copy
            (:meth:`fastervit_mm.FasterViT.switch_to_deploy`). Default True.
        opset: Version of ONNX's operator set. Default 18.
        input: What images (B, channels, H, W) are, as in :class:`~.parts.Exportable`:
            ``'uint8'``, ``'float32'`` or ``'normalized'``.
        cfg: The model's config. The file then also says how its test pipeline reads and resizes
            and which category ids the classes have.

    Returns:
        The file's metadata.

    Raises:
        ExportError: For a path, packages or network with which nothing can be exported.
    """
    suffix = Path(path).suffix
    if suffix not in ('.onnx', '.pt2'):
        raise ExportError(f'path={str(path)!r}: give a name that ends in .onnx or .pt2')
    if os.path.isdir(path):
        raise ExportError(f'path={str(path)!r}: is a folder; give the name of a file')
    folder = os.path.dirname(path) or '.'
    if not os.path.isdir(folder):
        raise ExportError(f'path={str(path)!r}: there is no folder {folder!r}')
    if suffix == '.onnx':
        _check_packages()
    part = choose_part(model, part)
    network = prepared(model, part, labels, deploy, choose_input(part, input, cfg))
    program = _captured(network)
    facts = metadata(model, network, part, deploy, cfg)
    if suffix == '.pt2':
        torch.export.save(program, path, extra_files={'metadata.json': json.dumps(facts)})
    else:
        _save_onnx(program, str(path), network, facts, opset)
    return facts


def _check_packages() -> None:
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            found = version(package)
        except PackageNotFoundError as error:
            raise ExportError(f'{package} is not installed: pip install onnx onnxscript '
                              'onnxruntime, or the extra [export]') from error
        if package == 'onnxscript' and tuple(map(int, found.split('.')[:2])) < (0, 7):
            raise ExportError(f'onnxscript {found}: export needs 0.7 or newer, which translates '
                              'RoIAlign: pip install --upgrade onnxscript')


def _captured(network: Exportable) -> 'torch.export.ExportedProgram':
    config = getattr(torch.fx.experimental, '_config', None)
    if not hasattr(config, 'backed_size_oblivious'):
        raise ExportError(f'torch {torch.__version__}: export for all sizes needs torch 2.8 or '
                          'newer')
    Dim = torch.export.Dim
    smallest = network.smallest
    sizes = {0: Dim('batch', min=1), 2: Dim('height', min=smallest), 3: Dim('width', min=smallest)}
    # Sizes that equal no constant of the network.
    example = torch.zeros(2, input_channels(network), 198 + smallest, 301 + smallest,
                          dtype=torch.uint8 if network.input == 'uint8' else torch.float32)
    with torch.no_grad(), _quiet(), config.patch(backed_size_oblivious=True):
        try:
            network.name_outputs(len(network(example)))
        except RuntimeError as error:
            raise ExportError(
                f'the network does not take images of {tuple(example.shape[2:])} '
                f'({_first_line(error)}). For layers that need sides divisible by 32, set '
                'model.data_preprocessor.pad_size_divisor=32') from error
        # Without this setting, which torch.onnx uses too, one window along an axis or a batch of
        # one would need another graph.
        try:
            return torch.export.export(network, (example, ), dynamic_shapes=(sizes, ))
        except RuntimeError as error:
            raise ExportError('torch.export cannot capture this network for images of every size: '
                              f'{_first_line(error)}') from error


def _save_onnx(program: 'torch.export.ExportedProgram', path: str, network: Exportable,
               facts: Dict[str, str], opset: int) -> None:
    detects = facts.get('task') == 'detection'
    with torch.no_grad(), _quiet():
        try:
            onnx_program = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=network.names,
                opset_version=opset, verbose=False,
                custom_translation_table=translations() if detects else None)
        except RuntimeError as error:
            raise ExportError(f'torch.onnx cannot write this network: {_first_line(error)}'
                              ) from error
    onnx_program.model.metadata_props.update(facts)
    for node in onnx_program.model.graph.all_nodes():
        if node.op_type == 'Clip' and len(node.inputs) == 3 and node.inputs[1] is None:
            # Indices of cells are clipped. TensorRT clips only floats, but has Min for integers.
            node.op_type = 'Min'
            limit = node.inputs[2]
            node.resize_inputs(2)
            node.replace_input_with(1, limit)
    size = sum(p.numel() * p.element_size() for p in program.state_dict.values())
    onnx_program.save(path, external_data=size > _EXTERNAL)
    problems = [*forbidden_ops(path, detects), *data_dependent_shapes(path)]
    if problems:
        remove(path)
        raise ExportError(f'{path}: not kept, since TensorRT does not accept these of its nodes: '
                          f'{", ".join(problems)}')


def remove(path: str) -> None:
    """Remove an exported file, with the weights beside a large one."""
    for written in (path, f'{path}.data'):
        if os.path.exists(written):
            os.remove(written)


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip()}'.splitlines()[0]


@contextlib.contextmanager
def _quiet():
    """Silence the exporters, which warn about their own internals."""
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
