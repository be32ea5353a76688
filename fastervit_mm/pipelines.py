"""Reading and preparing images by a config's pipeline."""
import copy
import os
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from .datasets.images import as_picture
from .models import channels_taken, dataset_config, dataset_configs, type_name

Image = Union[str, os.PathLike, np.ndarray]


def image_pipeline(cfg: Config, loader: str = 'test_dataloader') -> List[Dict]:
    """Copy the steps of a config's test pipeline, without annotations.

    Args:
        cfg: A config.
        loader: Another loader, whose first dataset's pipeline is taken.

    Returns:
        Copies of their settings.

    Raises:
        ValueError: For a config without such a dataset.
    """
    return [copy.deepcopy(step) for step in dataset_config(cfg, loader)['pipeline']
            if 'Annotation' not in type_name(step)]


def read_by(cfg: Config, path: Union[str, os.PathLike], loader: str = 'test_dataloader'
            ) -> np.ndarray:
    """Read an image by a config's pipeline.

    Args:
        cfg: A config with a test dataset.
        path: The image.
        loader: As in :func:`image_pipeline`.

    Returns:
        (H, W), or (H, W, C) with colours as BGR, in the type that the pipeline reads.

    Raises:
        FileNotFoundError: For a file that does not exist.
        ValueError: For a file that the pipeline cannot read.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return _read(image_pipeline(cfg, loader), path)[0]['img']


def _read(steps: Sequence[Mapping], path: Union[str, os.PathLike]) -> Tuple[Dict, Sequence]:
    """Read an image; returns results and the steps left."""
    results = dict(img_path=os.fspath(path), img_id=0)
    for number, step in enumerate(steps, 1):
        try:
            results = Compose([step])(results) or {}
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001  decoders raise anything
            raise ValueError(f'{os.fspath(path)}: not an image that the config\'s '
                             f'{type_name(step)} can read ({error})') from error
        if results.get('img') is not None:
            return results, steps[number:]
    raise ValueError(f'{os.fspath(path)}: no step of the config\'s pipeline reads an image from it')


def image_batch(cfg: Config, image: Image, steps: Optional[Sequence[Mapping]] = None) -> Dict:
    """Pack one image for ``model.data_preprocessor`` or ``model.test_step``.

    Args:
        cfg: A config with a test dataset.
        image: Path, or (H, W) or (H, W, C) as :func:`read_by` returns it, for which the steps that
            read files are left out.
        steps: Steps of the pipeline. Default those of :func:`image_pipeline`.

    Returns:
        ``inputs`` and ``data_samples``, lists of one.

    Raises:
        FileNotFoundError: For a file that does not exist.
        ValueError: For an image that the pipeline cannot read or resize.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    steps = image_pipeline(cfg) if steps is None else steps
    if isinstance(image, np.ndarray):
        loading = [step for step in steps if type_name(step).startswith('Load')]
        steps = [step for step in steps if step not in loading]
        if any(step.get('to_float32') or type_name(step) == 'LoadPixels' for step in loading):
            image = image.astype(np.float32)
        if image.shape[2:] == (1, ):  # as files of one channel are read
            image = image[..., 0]
        height, width = shape = image.shape[:2]
        given = dict(img=image, img_path='', img_shape=shape, ori_shape=shape, height=height,
                     width=width, img_id=0)
    else:
        given, steps = _read(steps, image)
    try:
        packed = Compose(steps)(given)
    except cv2.error as error:  # an image so thin that its resized side has no pixel
        raise ValueError('the pipeline cannot take an image of this size '
                         f'({error.err} in {error.func})') from error
    return {name: [packed[name]] for name in ('inputs', 'data_samples')}


def model_batch(model: nn.Module, cfg: Config, image: Image) -> Dict:
    """Pack one image for a model that takes its channels.

    Args:
        model: The config's model.
        cfg: A config with a test dataset.
        image: As in :func:`image_batch`. An array is uint8 BGR, or whatever the pipeline reads:
            grey, more channels, 16 bits or floats.

    Raises:
        FileNotFoundError: For a file that does not exist.
        ValueError: For an image whose channels the model does not take, for an array of another
            type or shape, and as in :func:`image_batch`.
    """
    if isinstance(image, np.ndarray):
        types = _types_read(cfg)
        if image.ndim not in (2, 3) or not image.size or image.dtype.name not in types:
            raise ValueError(
                f'an array of {image.dtype}, {image.shape}; give an image of {" or ".join(types)}, '
                '(height, width, channels), BGR, or (height, width)')
    batch = image_batch(cfg, image)
    found = batch['inputs'][0].shape[0]
    taken = channels_taken(model)
    if taken not in (None, found):
        raise ValueError(f'an image of {found} channel{"s"[:found - 1]}; the network takes {taken}')
    return batch


def viewed(cfg: Config, image: Image, loader: str = 'test_dataloader') -> Tuple[np.ndarray, str]:
    """Convert an image for viewing (:func:`~fastervit_mm.datasets.images.as_picture`).

    Args:
        cfg: A config with a test dataset.
        image: Path, or pixels as :func:`read_by` returns them.
        loader: As in :func:`image_pipeline`.
    """
    pixels = image if isinstance(image, np.ndarray) else read_by(cfg, image, loader)
    steps = image_pipeline(cfg, loader)
    return as_picture(pixels, any(type_name(step) == 'LoadPixels' for step in steps))


def _types_read(cfg: Config) -> List[str]:
    """Name the array types that a config's pipeline reads."""
    if reads_all(cfg):
        return ['uint8', 'uint16', 'int16', 'float32', 'float64']  # OpenCV resizes these
    return ['uint8', *['float32'] * any(step.get('to_float32') for step in image_pipeline(cfg))]


def reads_all(cfg: Config) -> bool:
    """Whether a config's test pipeline reads all channels and bits of a file."""
    _, dataset = next(dataset_configs(cfg, 'test_dataloader'), ('', {}))
    return not all(
        type_name(step) == 'LoadImageFromFile' and step.get('color_type') != 'unchanged'
        and step.get('imdecode_backend') != 'tifffile' for step in dataset.get('pipeline') or ()
        if type_name(step).startswith('Load') and 'Annotation' not in type_name(step))


@torch.no_grad()
def model_input(model: nn.Module, cfg: Config, image: Image) -> Tensor:
    """Prepare an image for a model's backbone, normalised and padded.

    Args:
        model: The config's model.
        cfg: A config with a test dataset.
        image: As in :func:`model_batch`.

    Returns:
        (1, C, H, W).
    """
    return model.data_preprocessor(model_batch(model, cfg, image), training=False)['inputs']
