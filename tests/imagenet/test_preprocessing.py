"""Each config prepares images as timm does for evaluation, to the pixel."""
import io
import os

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image

from fastervit_mm.models import build_model
from fastervit_mm.pipelines import image_batch
from tests.imagenet.conftest import CONFIGS

# Size, crop fraction and mode of each file, as the authors publish them.
PUBLISHED = {**{f'fastervit-{n}_in1k': (224, 1.0, 'center') for n in range(1, 7)},
             'fastervit-0_in1k': (224, 0.875, 'center'),
             'fastervit-4-21k_224_in1k': (224, 0.95, 'squash'),
             'fastervit-4-21k_384_in1k': (384, 1.0, 'squash'),
             'fastervit-4-21k_512_in1k': (512, 1.0, 'squash'),
             'fastervit-4-21k_768_in1k': (768, 0.93, 'squash')}


def picture(size, mode='RGB', seed=0):
    """Noise on a gradient, sensitive to every step of a resize."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 80, (height, width, 3))
    slope = np.linspace(0, 175, width)[None, :, None] * [1, .5, .2] + np.zeros((height, 1, 1))
    return Image.fromarray((noise + slope).astype(np.uint8)).convert(mode)


def turned(size):
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera on its side: timm leaves the image as it lies in the file
    return picture(size), dict(exif=exif)


IMAGES = {'wide.JPEG': (picture((500, 333)), {}), 'tall.JPEG': (picture((300, 411), seed=1), {}),
          'odd.JPEG': (picture((257, 225), seed=2), {}), 'small.JPEG': (picture((90, 61)), {}),
          'grey.JPEG': (picture((400, 301), 'L'), {}),
          'print.JPEG': (picture((333, 256), 'CMYK'), {}),
          'png.JPEG': (picture((260, 310)), dict(format='PNG')), 'turned.JPEG': turned((340, 260))}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for name, (image, options) in IMAGES.items():
        image.save(folder / name, **{'format': 'JPEG', **options})
    return folder


def timms(path, size, fraction, mode, pixels):
    transform = timm.data.create_transform(
        size, is_training=False, interpolation='bicubic', crop_pct=fraction, crop_mode=mode,
        mean=timm.data.IMAGENET_DEFAULT_MEAN, std=timm.data.IMAGENET_DEFAULT_STD,
        use_prefetcher=pixels)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return transform(image.convert('RGB'))  # as timm's ImageDataset


def of_config(cfg, path):
    return image_batch(cfg, str(path))['inputs'][0]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_pixels_equal_timms(path, folder):
    cfg = Config.fromfile(str(path))
    for name in IMAGES:
        ours = of_config(cfg, folder / name)
        theirs = torch.as_tensor(timms(folder / name, *PUBLISHED[path.stem], pixels=True))
        assert ours.dtype == torch.uint8 and torch.equal(ours.flip(0), theirs), name  # BGR


def test_the_networks_input_equals_timms(folder):
    path, = (p for p in CONFIGS if p.stem == 'fastervit-0_in1k')
    cfg = Config.fromfile(str(path))
    cfg.model.backbone.arch = dict(embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1),
                                   num_heads=(1, 1, 2, 4))
    cfg.model.head.in_channels = 128
    batch = image_batch(cfg, str(folder / 'wide.JPEG'))
    ours = build_model(cfg).data_preprocessor(batch)['inputs'][0]
    theirs = timms(folder / 'wide.JPEG', *PUBLISHED[path.stem], pixels=False)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_robustness_sets_have_a_crop_fraction_of_0875(folder):
    for n in range(7):
        path, = (p for p in CONFIGS if p.stem == f'fastervit-{n}_in1k')
        cfg = Config.fromfile(str(path))
        for split in ('imagenet_a', 'imagenet_r', 'imagenet_v2'):
            cfg.test_dataloader = cfg[f'{split}_dataloader']
            ours = of_config(cfg, folder / 'tall.JPEG')
            theirs = timms(folder / 'tall.JPEG', 224, 0.875, 'center', pixels=True)
            assert torch.equal(ours.flip(0), torch.as_tensor(theirs)), os.fspath(path)
