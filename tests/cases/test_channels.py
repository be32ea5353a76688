"""Images of other channels and bits than 8-bit colour: from files to predictions and pictures."""
import json

import cv2
import numpy as np
import onnx
import pytest
import tifffile
import torch
from PIL import Image
from rich.console import Console

from fastervit_mm import export
from fastervit_mm.apis import Inferencer
from fastervit_mm.apis.browse import browse
from fastervit_mm.config_files import ConfigError
from fastervit_mm.datasets.images import as_picture, read_image, read_pixels
from fastervit_mm.engine import launch
from fastervit_mm.export.runtime import Network
from fastervit_mm.models import load_model
from fastervit_mm.new_config import new_config
from tests.conftest import TINY

from .making import coco, label_map, some_boxes

SIDE = 64
NARROW = {'model.backbone.arch': TINY, 'model.backbone.init_cfg': None}


def scene(path, boxes, channels, seed):
    """A 16-bit image in whose last channel alone the boxes show; returns (H, W, C)."""
    pixels = np.random.default_rng(seed).integers(900, 1100, (SIDE, SIDE, channels), np.uint16)
    pixels[..., 1] = 65535 - 7 * (pixels[..., 1] - 900)  # more than float16 holds
    for label, x, y, w, h in boxes:
        pixels[y:y + h, x:x + w, -1] = 6000 + 3000 * label
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, pixels)
    else:  # planar, as GDAL writes bands
        tifffile.imwrite(path, pixels.transpose(2, 0, 1), photometric='minisblack',
                         planarconfig='separate')
    return pixels


@pytest.fixture(scope='module')
def areas(tmp_path_factory):
    """Folder of a segmentor's data, 4 channels in .npy, and its config of a narrow network."""
    root = tmp_path_factory.mktemp('areas')
    for split, number in (('train', 3), ('val', 1)):
        for i in range(number):
            boxes = some_boxes(i, 1, (SIDE, SIDE))
            pixels = scene(root / f'data/images/{split}/{i}.npy', boxes, 4, i)
            label_map(root / f'data/masks/{split}/{i}.png', (pixels[..., -1] > 5000).astype('u1'))
    new_config('seg', root / 'data', root / 'areas.py', console=Console(quiet=True))
    return root


def config_of(areas, work_dir, **settings):
    return launch.load_config(str(areas / 'areas.py'), work_dir=str(work_dir), cfg_options={
        **NARROW, 'model.decode_head.in_channels': [16, 32, 64, 128],
        'model.decode_head.channels': 16, 'model.auxiliary_head.in_channels': 64,
        'model.auxiliary_head.channels': 16, 'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
        'val_dataloader.num_workers': 0, 'val_dataloader.persistent_workers': False,
        'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False,
        'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, **settings})


def test_bands_train_but_are_not_tested_drawn_or_predicted(areas, tmp_path):
    launch.train(config_of(areas, tmp_path))
    cfg = config_of(areas, tmp_path)
    metrics = launch.test(cfg, str(tmp_path / 'iter_2.pth'), str(tmp_path / 'maps'),
                          show_dir=str(tmp_path / 'shown'))
    assert 'mIoU' in metrics
    inferencer = Inferencer(config_of(areas, tmp_path), tmp_path / 'iter_2.pth', device='cpu')
    found = inferencer(areas / 'data/images/val', tmp_path / 'out')
    one, = found.predictions
    assert not found.failures and one.shown
    assert np.array_equal(one.label_map, np.asarray(Image.open(tmp_path / 'maps/0.png')))
    pixels = np.load(areas / 'data/images/val/0.npy')
    given, = inferencer(pixels).predictions
    assert np.array_equal(given.label_map, one.label_map)
    for picture in (one.files['overlay'], tmp_path / 'shown/0.png'):
        assert cv2.imread(str(picture)).std() > 3
    assert len(browse(config_of(areas, tmp_path), tmp_path / 'fed', number=2)) == 3


def test_other_channels_are_told_only_after_an_epoch(areas, tmp_path):
    cfg = config_of(areas, tmp_path, **{
        'model.backbone.in_channels': 3, 'model.data_preprocessor.mean': [1.] * 3,
        'model.data_preprocessor.std': [1.] * 3})
    with pytest.raises(ConfigError, match=(
            r'val_dataloader: .*0.npy is read with 4 channels, which does not fit model.backbone.'
            r'in_channels=3 and 3 means in model.data_preprocessor. Set in_channels=4, mean')):
        launch.train(cfg)


def test_other_training_images_reach_the_network_or_16_bits_become_8_in_silence(areas, tmp_path):
    """The bases' loading step keeps the upper eight."""
    (tmp_path / 'val').mkdir()
    cv2.imwrite(str(tmp_path / 'val/0.png'), np.load(areas / 'data/images/val/0.npy')[..., 1:])
    cfg = config_of(areas, tmp_path / 'work', **{
        'model.backbone.in_channels': 3, 'model.data_preprocessor.mean': [9.] * 3,
        'model.data_preprocessor.std': [9.] * 3, 'val_dataloader.dataset.img_suffix': '.png',
        'val_dataloader.dataset.data_prefix.img_path': str(tmp_path / 'val'),
        'val_dataloader.dataset.pipeline.0.type': 'LoadImageFromFile'})
    with pytest.raises(ConfigError, match=r'train_dataloader: .*\d.npy is read with 4 channels'):
        launch.train(cfg)
    log, = (tmp_path / 'work').glob('*/*.log')
    assert '0.png has 16 bits a channel, of which 8 are read' in log.read_text()


@pytest.mark.long
def test_an_exported_file_takes_bands_otherwise_than_the_network(areas, tmp_path):
    launch.train(config_of(areas, tmp_path))
    cfg = config_of(areas, tmp_path)
    model = load_model(cfg, str(tmp_path / 'iter_2.pth'))
    facts = export.export(model, str(tmp_path / 'areas.onnx'), cfg=cfg)
    assert facts['input'] == 'float32' and json.loads(facts['channels']) == 4
    assert all(check.holds for check in export.check(model, str(tmp_path / 'areas.onnx')))
    export.halve(str(tmp_path / 'areas.onnx'), str(tmp_path / 'half.onnx'))
    written = {name for node in onnx.load(tmp_path / 'half.onnx').graph.node
               for name in node.output}
    assert 'images_float16' not in written  # onnxruntime on a CPU would hide its infinities
    metrics = export.evaluate(cfg, str(tmp_path / 'iter_2.pth'), dict(
        onnx=str(tmp_path / 'areas.onnx'), half=str(tmp_path / 'half.onnx')))
    assert metrics['onnx'] == pytest.approx(metrics['PyTorch'], abs=0.1)
    assert metrics['half'] == pytest.approx(metrics['PyTorch'], abs=1)
    with pytest.raises(ValueError, match='other images than 8-bit colours'):
        Network(str(tmp_path / 'areas.onnx'))


@pytest.mark.long
def test_a_detector_of_bands_does_not_train_or_its_file_finds_other_boxes(tmp_path):
    """Planar TIFF of 16 bits and five bands."""
    for split, number in (('train', 4), ('val', 2)):
        found = {f'{i}.tif': some_boxes(50 + i, 2, (SIDE, SIDE), 2) for i in range(number)}
        for i, (name, boxes) in enumerate(found.items()):
            scene(tmp_path / 'data' / split / name, boxes, 5, i)
        coco(tmp_path / f'data/{split}.json', found, ['dim', 'bright'], (SIDE, SIDE))
    new_config('det', tmp_path / 'data', tmp_path / 'bands.py', console=Console(quiet=True))

    def config():
        return launch.load_config(str(tmp_path / 'bands.py'), work_dir=str(tmp_path), cfg_options={
            **NARROW, 'model.neck.in_channels': [16, 32, 64, 128], 'train_cfg.max_epochs': 1,
            'train_cfg.val_interval': 1, 'default_hooks.checkpoint.interval': 1,
            **{f'{split}_dataloader.{name}': value for split in ('train', 'val', 'test')
               for name, value in (('num_workers', 0), ('persistent_workers', False))}})
    runner = launch.train(config())
    assert len(runner.model.data_preprocessor.mean) == runner.model.backbone.in_channels == 5
    checkpoint, file = str(tmp_path / 'epoch_1.pth'), str(tmp_path / 'bands.onnx')
    predicted = Inferencer(config(), checkpoint, device='cpu')(tmp_path / 'data/val', score_thr=0.)
    assert len(predicted.predictions) == 2 and predicted.predictions[0].instances
    model = load_model(config(), checkpoint)
    export.export(model, file, cfg=config())
    checks = export.check(model, file, ((1, 64, 96), (2, 97, 64)))
    assert all(check.holds for check in checks) and checks[0].shape != (0, )
    metrics = export.evaluate(config(), checkpoint, dict(onnx=file))
    assert metrics['onnx'] == pytest.approx(metrics['PyTorch'], abs=0.02)


def test_bands_lie_in_another_order_in_another_kind_of_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (20, 30, 4)).astype(np.uint16)
    planes = pixels.transpose(2, 0, 1)
    np.save(tmp_path / 'last.npy', pixels)
    np.save(tmp_path / 'first.npy', planes)
    tifffile.imwrite(tmp_path / 'last.tif', pixels, photometric='rgb', extrasamples=['unspecified'])
    tifffile.imwrite(tmp_path / 'planes.tif', planes, photometric='minisblack',
                     planarconfig='separate', compression='zlib')
    tifffile.imwrite(tmp_path / 'pages.tif', planes, photometric='minisblack')
    cv2.imwrite(str(tmp_path / 'alpha.png'), pixels[..., [2, 1, 0, 3]])
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_pixels(path), pixels), path.name
        assert (read_image(path).size, read_image(path).bits) == ((30, 20), 16)
    for name, colours in (('rgb.tif', pixels[..., :3]), ('rgb.npy', pixels[..., :3])):
        tifffile.imwrite(tmp_path / name, colours, photometric='rgb') if name.endswith(
            'tif') else np.save(tmp_path / name, colours)
        assert np.array_equal(read_pixels(tmp_path / name), colours[..., ::-1])  # BGR, as OpenCV
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'last.npy').read_bytes()[:-100])
    np.save(tmp_path / 'objects.npy', np.array([{}, {}], object))
    for name in ('cut.npy', 'objects.npy'):
        assert isinstance(read_image(tmp_path / name).size, str)
        with pytest.raises(ValueError, match=name):
            read_pixels(tmp_path / name)


def test_pictures_of_bands_are_dark_or_of_other_colours():
    bands = np.random.default_rng(0).integers(1000, 2000, (50, 50, 5)).astype(np.float32)
    bands[..., 0] += 1000  # red
    bands[0, 0] = 60000  # one cell must not darken the others
    picture, how = as_picture(bands, file_order=True)
    assert 'first three of 5' in how and picture.shape == (50, 50, 3)
    blue, green, red = picture[1:].reshape(-1, 3).mean(0)
    assert red > 150 > 100 > green and abs(blue - green) < 5
    grey = np.full((4, 4), 7, np.uint16)
    assert not as_picture(grey)[0].std()
    assert torch.equal(torch.from_numpy(as_picture(grey.astype(np.uint8))[0]),
                       torch.full((4, 4, 3), 7, dtype=torch.uint8))
