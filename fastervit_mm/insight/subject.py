"""A config's FasterViT, and images prepared by its test pipeline."""
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple, Union

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import initialize
from torch import Tensor, nn

from ..backbone import VARIANTS, FasterViT
from ..engine import launch
from ..engine.onednn import use_onednn
from ..models import build_model, find_backbones, type_name
from ..pipelines import image_batch, image_pipeline, model_input, read_by, viewed
from ..weights import load_backbone
from .attention import Point

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, of the published weights
_PADDING = 190  # grey of padding

Image = Union[str, Path, np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it.

    Attributes:
        inputs: (1, C, H, W), resized, normalised, padded.
        picture: (H, W, 3) uint8 RGB, the same image to look at; padding is grey.
        coordinates: (H, W, 2) float, x and y of each pixel in the original image; NaN in padding.
        size: (height, width) of the original image.
    """
    inputs: Tensor
    picture: np.ndarray
    coordinates: np.ndarray
    size: Tuple[int, int]

    @property
    def valid(self) -> Tuple[int, int]:
        """Height and width without padding."""
        inside = ~np.isnan(self.coordinates[..., 0])
        return tuple(int(np.flatnonzero(inside.any(axis))[-1]) + 1 for axis in (1, 0))

    def to_inputs(self, point: Point) -> Point:
        """Convert a point of the original image to ``inputs``.

        Args:
            point: x and y, in pixels of the original image.

        Raises:
            ValueError: For a point outside the image, or cropped away by the pipeline.
        """
        distance = np.nan_to_num(np.abs(self.coordinates - np.asarray(point)).max(-1), nan=np.inf)
        y, x = np.unravel_index(distance.argmin(), distance.shape)
        step = np.nanmax(np.abs(np.diff(self.coordinates[..., 0], axis=1)))
        if distance[y, x] > max(step, 1):
            left, top = np.nanmin(self.coordinates, axis=(0, 1))
            right, bottom = np.nanmax(self.coordinates, axis=(0, 1))
            raise ValueError(f'point={tuple(point)}: the network sees x from {left:.0f} to '
                             f'{right:.0f} and y from {top:.0f} to {bottom:.0f} of this image')
        return int(x), int(y)


@dataclass(frozen=True)
class Subject:
    """Backbone, its name, its weights and its images' preparation.

    Attributes:
        backbone: A FasterViT in evaluation mode.
        name: Name of the config or variant.
        weights: Where the weights come from, as text for a figure's title.
        prepare: Function from an image, a file or pixels as the config's pipeline reads them, to a
            :class:`Prepared`.
    """
    backbone: FasterViT
    name: str
    weights: str
    prepare: Callable[[Image], Prepared]


def load_subject(config: str, checkpoint: Optional[str] = None, cfg_options: Optional[dict] = None,
                 device: str = 'cpu') -> Subject:
    """Load the FasterViT of a config or a published variant.

    Args:
        config: Path of an mmdet, mmseg or mmpretrain config, or a variant such as ``'2'``: then
            images keep their size and are normalised as for ImageNet.
        checkpoint: Path, URL or ``fastervit://`` name, of the backbone or a whole model. Default
            random weights.
        cfg_options: Settings that replace the config's, by dotted name.
        device: Where to compute. Default the CPU.

    Raises:
        FileNotFoundError: For a config or checkpoint that does not exist.
        CheckpointError: For a checkpoint that does not fill the backbone.
        ValueError: For a config without a FasterViT or a test pipeline.
    """
    if config in VARIANTS:
        model, cfg = FasterViT(config, init_cfg=None), None
    else:
        cfg = launch.load_config(config, cfg_options=cfg_options)
        model = build_model(cfg)
    subject = subject_of(model, cfg, Path(config).stem)
    backbone = subject.backbone
    if checkpoint is None:
        # init_weights() would print a line for each tensor.
        initialize(backbone, [c for c in backbone.init_cfg if c['type'] != 'FasterViTPretrained'])
        weights = 'random weights, nothing trained'
    else:
        load_backbone(backbone, checkpoint)
        weights = Path(checkpoint).name
    use_onednn(model).to(device).eval()
    return Subject(backbone, subject.name, weights, subject.prepare)


def subject_of(model: nn.Module, cfg: Optional[Config] = None, name: str = 'FasterViT',
               weights: str = 'weights as given') -> Subject:
    """:func:`load_subject` for a model that is already built.

    Args:
        model: A model that holds a FasterViT, or a FasterViT.
        cfg: Its config; None for a bare backbone.
        name: Name for titles.
        weights: Where the weights come from, for titles.

    Raises:
        ValueError: For a model without a FasterViT.
    """
    backbone = find_backbones(model, f'config={name}')[0]
    if cfg is None:
        return Subject(backbone, name, weights, lambda image: _prepare_bare(model, image))
    return Subject(backbone, name, weights, lambda image: _prepare(model, cfg, image))


def _prepare_bare(backbone: FasterViT, image: Image) -> Prepared:
    pixels = np.ascontiguousarray(_pixels(image, None)[..., ::-1])
    inputs = (torch.from_numpy(pixels).float() - torch.tensor(_MEAN)) / torch.tensor(_STD)
    device = next(backbone.parameters()).device
    return Prepared(inputs.permute(2, 0, 1)[None].to(device), pixels, _ramps(pixels),
                    pixels.shape[:2])


def _prepare(model: nn.Module, cfg: Config, image: Image) -> Prepared:
    pixels = _pixels(image, cfg)
    inputs = model_input(model, cfg, image)

    # To find each pixel's origin, an image of coordinates goes through the same steps, except
    # normalisation. Its third channel marks the image, whatever fills the padding.
    ramps = _ramps(pixels)
    ramps = np.dstack([ramps, np.full(ramps.shape[:2], -1, np.float32)])
    moved = image_batch(cfg, ramps, _geometry(image_pipeline(cfg)))['inputs'][0]
    moved = moved.permute(1, 2, 0).numpy()
    coordinates = np.full((*inputs.shape[2:], 2), np.nan, np.float32)  # padding: below, right
    inside = np.abs(moved[..., 2] + 1) < 1e-3
    coordinates[:moved.shape[0], :moved.shape[1]][inside] = moved[inside][:, :2]
    return Prepared(inputs, _picture(viewed(cfg, pixels)[0], coordinates), coordinates,
                    pixels.shape[:2])


def _pixels(image: Image, cfg: Optional[Config]) -> np.ndarray:
    """Pixels as a config's pipeline reads them, else uint8 BGR."""
    if isinstance(image, np.ndarray):
        return image
    if not Path(image).is_file():
        raise FileNotFoundError(f'image={str(image)!r}: no such file')
    try:
        pixels = cv2.imread(str(image)) if cfg is None else read_by(cfg, image)
    except (ValueError, cv2.error):
        pixels = None
    if pixels is None:
        raise ValueError(f'image={str(image)!r}: not an image that can be read; give a JPEG, PNG, '
                         'BMP, TIFF or WebP file')
    return pixels


def _ramps(pixels: np.ndarray) -> np.ndarray:
    """x and y of each pixel, (H, W, 2)."""
    height, width = pixels.shape[:2]
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)


def _picture(pixels: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    picture = cv2.remap(pixels, np.nan_to_num(coordinates[..., 0]),
                        np.nan_to_num(coordinates[..., 1]), cv2.INTER_LINEAR)[..., ::-1].copy()
    picture[np.isnan(coordinates[..., 0])] = _PADDING
    return picture


def _geometry(steps: List[dict]) -> List[dict]:
    """Steps for an image of coordinates, without normalisation."""
    steps = [step for step in steps if not type_name(step).endswith('Normalize')]
    for step in steps:
        if step.get('backend') == 'pillow':
            step['backend'] = 'cv2'  # pillow takes only bytes; both place pixels alike
    return steps
