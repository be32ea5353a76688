"""`make demo-cls`: trains a classifier from scratch, whose checkpoint then starts a segmentor.

The config for photographs is trained for a few steps, on files in Imagenette's layout.
"""
import json
import re

import cv2
import matplotlib.image
import numpy as np
import pytest
import torch
from mmengine.config import Config

from benchmarks.shapes import make_shapes
from fastervit_mm.engine.curves import read_run
from tests.conftest import REPO
from tests.running import run_tool

FOLDER = REPO / 'configs/mmpretrain'
CONFIG = FOLDER / 'fastervit_shapes.py'


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo_cls')
    make_shapes(folder / 'data/shapes')
    done = run_tool('benchmarks.demo', CONFIG, '--work-dir', 'work_dirs/demo-cls', cwd=folder)
    assert done.returncode == 0, done.output[-4000:]
    return folder, done.stdout


def test_it_learns_for_real(demo):
    folder = demo[0] / 'work_dirs/demo-cls'
    metrics = json.loads((folder / 'demo.json').read_text())['metrics']
    assert metrics['accuracy/top1'] >= 93  # chance is 25
    # Nothing is lost on the way through the file.
    last = read_run(next(folder.glob('*/vis_data')).parent)['accuracy/top1'][-1][1]
    assert last == pytest.approx(metrics['accuracy/top1'])
    assert f"{metrics['accuracy/top1']:.3f}" in (folder / 'table.txt').read_text()


def test_it_leaves_figures_and_names_their_folder(demo):
    folder, output = demo
    for name in ('predictions.png', 'curves.png'):
        assert matplotlib.image.imread(folder / 'work_dirs/demo-cls' / name).std() > 0.05
        assert f'work_dirs/demo-cls/{name}' in output
    drawn = list((folder / 'work_dirs/demo-cls/predictions').iterdir())
    assert 10 <= len(drawn) <= 12
    assert 'What to try next' in output


def test_its_checkpoint_starts_a_segmentor_as_the_page_says(demo):
    """Converted to the backbone alone and named in `init_cfg`: every tensor is used."""
    folder = demo[0]
    checkpoint = (folder / 'work_dirs/demo-cls/last_checkpoint').read_text()
    done = run_tool('convert_weights.py', checkpoint, 'small.pth', cwd=folder)
    assert done.returncode == 0, done.output
    done = run_tool('train.py', REPO / 'configs/mmseg/upernet_fvit_shapes.py', '--work-dir', 'seg',
                    '--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=2',
                    'param_scheduler=None', 'optim_wrapper.optimizer.lr=0',
                    'default_hooks.checkpoint.interval=1',
                    'model.backbone.init_cfg._delete_=True',
                    'model.backbone.init_cfg.type=Pretrained',
                    'model.backbone.init_cfg.checkpoint=small.pth', cwd=folder)
    assert done.returncode == 0, done.output[-4000:]
    line, = re.findall(r'FasterViT: (\d+) of (\d+) tensors loaded from small.pth', done.output)
    assert int(line[1]) - int(line[0]) == 15  # the output norms of the three other maps
    before = torch.load(checkpoint, weights_only=True)['state_dict']
    after = torch.load(folder / 'seg/iter_1.pth', weights_only=True)['state_dict']
    learned = [k for k in before if k.startswith('backbone.') and '.running_' not in k
               and not k.endswith('num_batches_tracked')]
    assert len(learned) > 100
    for name in learned:  # a rate of 0 leaves what was loaded
        assert torch.equal(after[name], before[name]), name


def test_photographs_as_imagenette_lays_them_out_train(tmp_path):
    cfg = Config.fromfile(str(FOLDER / 'fastervit_imagenette.py'))
    random = np.random.RandomState(0)
    for split in ('train', 'val'):
        for name in range(len(cfg.classes)):
            (tmp_path / f'data/imagenette/{split}/n{name}').mkdir(parents=True)
            for i in range(2):
                assert cv2.imwrite(str(tmp_path / f'data/imagenette/{split}/n{name}/{i}.JPEG'),
                                   random.randint(0, 256, (90, 128, 3), np.uint8))
    done = run_tool('train.py', FOLDER / 'fastervit_imagenette.py', '--cfg-options',
                    'train_dataloader.batch_size=10', 'train_cfg.max_epochs=1', cwd=tmp_path)
    assert done.returncode == 0, done.output[-4000:]
    assert re.search(r'accuracy/top1: \d', done.output)
    content = torch.load(tmp_path / 'work_dirs/fastervit_imagenette/epoch_1.pth',
                         weights_only=True)
    assert content['meta']['dataset_meta']['classes'] == cfg.classes
