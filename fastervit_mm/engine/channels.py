"""Images of any number of channels and bits, in training and testing."""
from typing import Any, Dict, Set

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..config_files import ConfigError
from ..datasets.images import read_image, read_pixels
from ..models import channels_taken, unwrapped


@TRANSFORMS.register_module()
class LoadPixels:
    """Load an image with all its channels and bits, as float32.

    PNG, TIFF of any number of channels, interleaved, planar or one a page, ``.npy`` and what else
    :func:`~fastervit_mm.datasets.images.read_pixels` reads. mmcv's ``LoadImageFromFile`` reads no
    ``.npy``, leaves planar channels first, and has colours as BGR or RGB depending on its backend.
    """

    def __call__(self, results: Dict[str, Any]) -> Dict[str, Any]:
        """``img_path`` -> ``img``, (H, W) or (H, W, C), with its shapes."""
        image = np.array(read_pixels(results['img_path']), np.float32, order='C')
        shape = image.shape[:2]
        return {**results, 'img': image, 'img_shape': shape, 'ori_shape': shape}


@HOOKS.register_module()
class ChannelsHook(Hook):
    """Refuse images whose channels the network does not take (ConfigError).

    It checks an image of each split, that of the validation before training, and warns of files of
    more than 8 bits that are read as 8.
    """

    def __init__(self):
        self.checked: Set[str] = set()

    def before_train(self, runner: Runner) -> None:
        if runner._val_loop is not None:
            self._check(runner, 'val_dataloader', _first(runner.val_dataloader.dataset))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._check(runner, 'train_dataloader', data_batch)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._check(runner, 'test_dataloader', data_batch)

    def _check(self, runner: Runner, loader: str, batch: Any) -> None:
        if loader in self.checked or not isinstance(batch, dict):
            return
        self.checked.add(loader)
        inputs, samples = batch.get('inputs'), batch.get('data_samples') or [None]
        # Others are several views of an image, as for test-time augmentation.
        if isinstance(inputs, (list, Tensor)) and isinstance(inputs[0], Tensor):
            place = getattr(samples[0], 'img_path', 'the first image')
            _check_channels(unwrapped(runner.model), loader, place, len(inputs[0]))
            bits = read_image(place, whole=False).bits if inputs[0].dtype == torch.uint8 else 8
            if bits > 8:
                runner.logger.warning(
                    f'{loader}: {place} has {bits} bits a channel, of which 8 are read. To read '
                    "all, load images by dict(type='LoadPixels'), and set the data_preprocessor's "
                    'mean and std to match')


def _first(dataset: Any) -> Any:
    """A batch of the first image; None if it cannot be read, which validation reports."""
    try:
        return {name: [value] for name, value in dataset[0].items()}
    except Exception:  # noqa: BLE001
        return None


def _check_channels(model: nn.Module, loader: str, place: str, found: int) -> None:
    preparing = getattr(model, 'data_preprocessor', None)
    taken, means = channels_taken(model), getattr(preparing, 'mean', None)
    wrong = [f'model.backbone.in_channels={taken}'] if taken not in (None, found) else []
    if means is not None and len(means) not in (1, found):
        wrong.append(f'{len(means)} means in model.data_preprocessor')
    if found != 3 and getattr(preparing, '_channel_conversion', False):  # mmdet's takes three
        wrong.append('bgr_to_rgb=True in model.data_preprocessor')
    if wrong:
        raise ConfigError(
            f'{loader}: {place} is read with {found} channel{"s"[:found - 1]}, which does not fit '
            f'{" and ".join(wrong)}. Set in_channels={found}, mean and std of as many values, and '
            f'bgr_to_rgb={found == 3}; or change how the pipeline loads images')
