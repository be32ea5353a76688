"""docs/own_data.md, a segmentor by hand: its files and commands, on small maps."""
import re

import numpy as np
import pytest
from PIL import Image

from tests.docs.test_detector_by_hand import FILES, command, run

# The smallest variant, without its weights, and a quarter of every side.
SIZES = {
    'model.backbone.arch': 0, 'model.backbone.init_cfg': None,
    'model.decode_head.in_channels': '[64,128,256,512]', 'model.decode_head.channels': 32,
    'model.auxiliary_head.in_channels': 256, 'model.auxiliary_head.channels': 32,
    'model.data_preprocessor.size': '(128,128)',
    'train_dataloader.dataset.pipeline.2.scale': '(256,192)',
    'train_dataloader.dataset.pipeline.3.crop_size': '(128,128)',
    'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'param_scheduler.0.end': 1,
    'default_hooks.checkpoint.interval': 2, 'default_hooks.checkpoint.save_optimizer': False,
    'default_hooks.logger.interval': 1,
    **{f'{kind}_dataloader.{key}': value for kind in ('train', 'val', 'test')
       for key, value in (('num_workers', 0), ('persistent_workers', False))},
    **{f'{kind}_dataloader.dataset.pipeline.1.scale': '(256,192)' for kind in ('val', 'test')},
}


@pytest.fixture
def folder(tmp_path):
    random = np.random.RandomState(0)
    for split, count in (('train', 4), ('val', 2)):
        for part in ('images', 'annotations'):
            (tmp_path / 'data/mine' / part / split).mkdir(parents=True)
        for number in range(count):
            labels = random.choice([0, 1, 2, 255], (6, 8)).repeat(32, 0).repeat(32, 1)
            image = random.randint(0, 256, (*labels.shape, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / f'data/mine/images/{split}/{number}.jpg')
            Image.fromarray(labels.astype(np.uint8)).save(
                tmp_path / f'data/mine/annotations/{split}/{number}.png')
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_check_finds_what_is_wrong(folder):
    code, output = run(command('python $FVIT/tools/prepare_data.py check --label-maps'), folder)
    assert code == 0 and 'No problem.' in output
    maps = folder / 'data/mine/annotations'
    (maps / 'train/0.png').unlink()
    Image.new('L', (256, 192), 7).save(maps / 'train/1.png')
    Image.new('L', (255, 192), 1).save(maps / 'val/0.png')
    code, output = run(command('python $FVIT/tools/prepare_data.py check --label-maps'), folder)
    assert code == 1
    for problem in ('image without a label map', 'label out of range',
                    'label map of another size than its image'):
        assert problem in output, output


@pytest.mark.long
def test_the_config_trains_and_is_scored(folder):
    """With class weights and void labels, on which mmseg's own loss fails."""
    code, output = run(command('python $FVIT/tools/train.py my_segmentor.py'), folder, SIZES)
    assert code == 0, output[-4000:]
    losses = re.findall(r'decode\.loss_ce: (\S+)', output)
    assert len(losses) == 2 and np.isfinite(list(map(float, losses))).all()
    line = command('python $FVIT/tools/test.py my_segmentor.py').replace('iter_20000', 'iter_2')
    code, output = run(line, folder, SIZES)
    assert code == 0, output[-4000:]
    for name in ('ground', 'road', 'car'):
        assert re.search(rf'\| +{name} +\|', output), name
    assert len(list((folder / 'work_dirs/my_segmentor/shown').rglob('*.*'))) == 2
