"""Compare an exported file with the network: outputs and metrics."""
import json
import os
import time
from copy import deepcopy
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ..engine import launch
from .heads.segmentor import labels_of
from .matching import differences
from .parts import Exportable, input_channels
from .predicting import predict, raw
from .running import ExportedFile

# (images, height, width): one and several, square and not, multiples of 32 and not, one window.
SIZES = ((1, 224, 224), (2, 256, 320), (1, 97, 150), (2, 333, 500), (1, 32, 64), (3, 64, 448))
TOLERANCE = 1e-3
# Share of detections that may differ: see matching.py.
UNMATCHED = 0.05


@dataclass(frozen=True)
class Check:
    """One output at one size.

    Attributes:
        size: (images, height, width).
        output: Name of the output; of a detector, what is compared and of how many detections.
        shape: Shape of PyTorch's output.
        error: Largest difference over PyTorch's largest value; for labels, the share of pixels
            with another label; for a detector, as in :func:`~.matching.differences`. Infinite if
            the shapes differ.
        tolerance: Largest ``error`` allowed; None if the error is only reported.
    """
    size: Tuple[int, int, int]
    output: str
    shape: Tuple[int, ...]
    error: float
    tolerance: Optional[float]

    @property
    def holds(self) -> bool:
        return self.tolerance is None or self.error <= self.tolerance  # false for NaN


def check(model: nn.Module, file: Union[str, ExportedFile],
          sizes: Sequence[Tuple[int, int, int]] = SIZES,
          tolerance: Optional[float] = TOLERANCE) -> List[Check]:
    """Compare a file with its network on random images.

    Args:
        model: The network, as before the export.
        file: Path of an ``.onnx`` or ``.pt2`` file, or the opened file.
        sizes: (images, height, width) of each input.
        tolerance: Largest relative error allowed; None to report it only. Default 1e-3.

    Returns:
        One check for each output at each size.
    """
    if not isinstance(file, ExportedFile):
        file = ExportedFile(file)
    noise = torch.Generator().manual_seed(0)
    compare = _detections if file.facts.get('task') == 'detection' else _outputs
    smallest = int(file.facts['smallest'])
    sizes = [(number, *(max(side, smallest) for side in sides)) for number, *sides in sizes]
    return [found for size in sizes for found in compare(model, file, size, tolerance, noise)]


def _outputs(model: nn.Module, file: ExportedFile, size: Tuple[int, int, int],
             tolerance: Optional[float], noise: torch.Generator) -> List[Check]:
    shape = size[0], input_channels(model), *size[1:]
    if file.facts['input'] == 'normalized':
        images = given = torch.randn(shape, generator=noise)
    else:
        images = torch.randint(256, shape, generator=noise, dtype=torch.uint8)
        given = raw(images, file.facts['input'])
    found = []
    for name, got, expected in zip(file.outputs, file(given),
                                   reference(model, file.facts, images), strict=True):
        if name == 'labels':
            expected = labels_of(expected, model.decode_head)
        found.append(Check(tuple(size), name, tuple(expected.shape), _error(got, expected),
                           tolerance))
    return found


@torch.no_grad()
def _detections(model: nn.Module, file: ExportedFile, size: Tuple[int, int, int],
                tolerance: Optional[float], noise: torch.Generator) -> List[Check]:
    from mmdet.structures import DetDataSample
    # mmdet clips boxes to the image without padding, which is not in a file that is given it.
    divisor = int(file.facts.get('pad_divisor', 1))
    height, width = (-(-n // divisor) * divisor for n in size[1:])
    # Coarse and fine noise, in which a trained detector finds more than in fine noise alone.
    images = sum(F.interpolate(128 * torch.rand(size[0], 3, -(-height // n), -(-width // n),
                                                generator=noise), (height, width))
                 for n in (24, 1)).to(torch.uint8)
    shape = height, width
    data = dict(inputs=list(images), data_samples=[
        DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1., 1.)))
        for _ in images])
    expected = model.test_step(deepcopy(data))
    apart = differences(expected, predict(file, model, data), tolerance or inf)
    number = sum(len(sample.pred_instances) for sample in expected)
    return [Check(tuple(size), f'{name} of {number}', (number, ), error,
                  tolerance and (UNMATCHED if name == 'unmatched' else tolerance))
            for name, error in apart.items()]


@torch.no_grad()
def check_preprocessing(model: nn.Module, file: ExportedFile) -> List[Check]:
    """Compare a file's normalisation metadata with the network's preprocessing.

    Both are applied to noise.

    Args:
        model: The network, as before the export.
        file: The exported file.

    Returns:
        One check, or none for a bare backbone, which has no preprocessing, and for a file that
        normalises, whose outputs show it.
    """
    if not hasattr(model, 'data_preprocessor') or file.facts['input'] != 'normalized':
        return []
    height, width = 40, 56
    image = torch.randint(256, (input_channels(model), height, width),
                          generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = model.data_preprocessor(
        dict(inputs=[image], data_samples=[BaseDataElement()]), training=False)['inputs']
    got = image.float()
    if file.facts['channel_order'] == 'RGB' and len(image) == 3:
        got = got.flip(0)  # images are read as BGR
    mean, std = (torch.tensor(json.loads(file.facts[name])) for name in ('mean', 'std'))
    if len(mean):
        got = (got - mean[:, None, None]) / std[:, None, None]
    expected = expected[..., :height, :width].cpu()  # without padding
    return [Check((1, height, width), 'preprocessing', tuple(expected.shape),
                  _error(got[None], expected), TOLERANCE)]


@torch.no_grad()
def reference(model: nn.Module, facts: Mapping[str, str], images: Tensor) -> Tuple[Tensor, ...]:
    """PyTorch's outputs; for a whole segmentor or classifier, OpenMMLab's.

    Args:
        model: The network.
        facts: The file's metadata.
        images: (B, C, H, W), normalised if the file takes them so, else BGR from 0 to 255.
    """
    if facts['part'] != 'whole':
        return Exportable(model, facts['part'])(images)
    height, width = images.shape[2:]
    if facts['input'] != 'normalized':
        images = model.data_preprocessor(dict(
            inputs=list(images), data_samples=[BaseDataElement() for _ in images]))['inputs']
    if facts['task'] == 'classification':
        return (torch.stack([sample.pred_score for sample in model.predict(images)]), )
    shape = tuple(images.shape[2:])
    metas = [dict(img_shape=shape, ori_shape=shape, pad_shape=shape) for _ in images]
    return (model.encode_decode(images, metas)[..., :height, :width], )  # without padding


def _error(got: Tensor, expected: Tensor) -> float:
    if got.shape != expected.shape:
        return float('inf')
    if not expected.is_floating_point():
        return (got != expected).float().mean().item()
    return ((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()


def print_checks(checks: Sequence[Check], title: str, console: Optional[Console] = None) -> None:
    """Print a table with the worst output of each size.

    A detector may find nothing in noise; then nothing was compared, which the table says.
    """
    table = Table(title=title, title_justify='left')
    for name, justify in (('images', 'right'), ('outputs', 'left'), ('error', 'right'),
                          ('allowed', 'right'), ('', 'left')):
        table.add_column(name, justify=justify)
    sizes = dict.fromkeys(c.size for c in checks)
    for size in sizes:
        here = [c for c in checks if c.size == size]
        worst = max(here, key=lambda c: (not c.holds, c.error))
        outputs = here[0].output + (f' … {here[-1].output}' if len(here) > 1 else '')
        table.add_row(' x '.join(map(str, size)), outputs, f'{worst.error:.1e}',
                      '' if worst.tolerance is None else f'{worst.tolerance:.0e}',
                      '' if worst.tolerance is None else
                      f'DOES NOT HOLD ({worst.output})' if not worst.holds else
                      'nothing found' if worst.shape == (0, ) else 'holds')
    console = console or Console()
    console.print(table)
    if all(check.shape == (0, ) for check in checks):
        console.print('The network finds nothing in noise, so no detection was compared. Compare '
                      'metrics on its test data:  --evaluate', highlight=False, soft_wrap=True)


def evaluate(cfg: Config, checkpoint: str, files: Mapping[str, str]) -> Dict[str, Dict[str, float]]:
    """Metrics on test data, by PyTorch and by exported files.

    Runner, pre- and post-processing and metrics are OpenMMLab's own. A file replaces the part of
    the network that it holds.

    Args:
        cfg: From :func:`fastervit_mm.engine.launch.load_config`.
        checkpoint: As for :func:`fastervit_mm.engine.launch.test`.
        files: Path of each file, by the name for its metrics.

    Returns:
        Metrics by name, ``'PyTorch'`` first.
    """
    metrics = {}
    for name, path in {'PyTorch': None, **files}.items():
        run = deepcopy(cfg)
        # Runners of one process must not share a name: they would share their loggers.
        run.experiment_name = f'{Path(cfg.work_dir).name}_{name}_{time.time_ns()}'
        if path is not None:
            run.custom_hooks = [*(run.get('custom_hooks') or []),
                                dict(type='ExportedHook', path=os.path.abspath(path))]
        metrics[name] = {key: float(value) for key, value in launch.test(run, checkpoint).items()}
    return metrics


def print_metrics(metrics: Mapping[str, Mapping[str, float]],
                  console: Optional[Console] = None) -> None:
    """Print a table with a row for each metric."""
    table = Table(title='On the config\'s test data', title_justify='left')
    table.add_column('metric')
    for name in metrics:
        table.add_column(name, justify='right')
    for key in next(iter(metrics.values())):
        table.add_row(key, *(f'{values[key]:.4g}' for values in metrics.values()))
    (console or Console()).print(table)
