"""A small DINO on a sample of COCO: train, resume, evaluate; and a file of the official code."""
import re

import pytest
import torch
from mmengine.config import Config

from fastervit_mm.weights import resolve
from tests.conftest import REPO
from tests.end_to_end.test_tiny_coco import scalars, smaller
from tests.running import run_tool
from tests.weights import official_dino

CONFIG = REPO / 'configs/mmdet/dino_fvit_4_21k_224.py'
NAME = 'fastervit://dino-4scale-4-21k-224-coco'
DATA = """
data_root = '{root}/'
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root=data_root, pipeline={train!r}, indices=10))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root=data_root, pipeline={test!r}, indices=4))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('dino_tiny_coco')


def on_tiny_coco(config, folder, tiny_coco, more=''):
    """The real recipe and pipelines, every size divided by four."""
    cfg = Config.fromfile(str(config))
    path = folder / f'{config.stem}_tiny_coco.py'
    path.write_text(official_dino.config_text(config, more + DATA.format(
        root=tiny_coco, train=smaller(cfg.train_pipeline), test=smaller(cfg.test_pipeline))))
    return path


@pytest.fixture(scope='module')
def config(folder, tiny_coco):
    return on_tiny_coco(CONFIG, folder, tiny_coco)


@pytest.fixture(scope='module')
def trained(config, folder):
    done = run_tool('train.py', config, '--work-dir', folder / 'run', '--cfg-options',
                    'train_cfg.max_epochs=1', 'randomness.seed=0', cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    return folder / 'run', done.output


def test_trains_evaluates_and_saves(trained):
    work_dir, output = trained
    steps = [s for s in scalars(work_dir) if 'loss' in s]
    assert len(steps) == 5 and torch.tensor([s['loss'] for s in steps]).isfinite().all()
    # Of each decoder layer, the proposals and the denoising.
    assert {'loss_cls', 'd0.loss_iou', 'enc_loss_bbox', 'dn_loss_cls', 'd0.dn_loss_bbox'} <= set(
        steps[0])
    assert any('coco/bbox_mAP' in s for s in scalars(work_dir)) and 'segm' not in output
    saved = torch.load(work_dir / 'epoch_1.pth', weights_only=True)
    assert {g['lr'] for g in saved['optimizer']['param_groups']} == {1e-4, 1e-5}


def test_resumes_where_it_stopped(trained, config, folder):
    done = run_tool('train.py', config, '--work-dir', trained[0], '--resume', '--cfg-options',
                    'train_cfg.max_epochs=2', 'train_cfg.val_interval=5', cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    assert 'resumed epoch: 1' in done.output and 'Epoch(train) [1]' not in done.output
    assert torch.load(trained[0] / 'epoch_2.pth', weights_only=True)['meta']['epoch'] == 2


def test_five_scales_train_and_are_evaluated(folder, tiny_coco):
    config = on_tiny_coco(CONFIG.with_stem(f'{CONFIG.stem}_5scale'), folder, tiny_coco,
                          'model["neck"]["in_channels"] = [8, 16, 32, 64]\n')
    done = run_tool('train.py', config, '--work-dir', folder / 'five', '--cfg-options',
                    'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=4',
                    'val_dataloader.dataset.indices=2', cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    steps = [s for s in scalars(folder / 'five') if 'loss' in s]
    assert len(steps) == 2 and torch.tensor([s['loss'] for s in steps]).isfinite().all()
    assert any('coco/bbox_mAP' in s for s in scalars(folder / 'five'))
    weights = torch.load(folder / 'five/epoch_1.pth', weights_only=True)['state_dict']
    assert weights['level_embed'].shape == (5, 256)
    assert weights['neck.convs.3.conv.weight'].shape == (256, 64, 1, 1)
    assert weights['neck.extra_convs.0.conv.weight'].shape == (256, 64, 3, 3)


def test_evaluates_its_checkpoint(trained, config, folder):
    done = run_tool('test.py', config, trained[0] / 'epoch_1.pth', '--work-dir', folder / 'tested',
                    '--deploy', cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    assert re.search(r'coco/bbox_mAP: [\d.]+', done.output)


def test_the_published_name_is_evaluated_in_one_line(config, folder):
    """By a file of that layout where the download would be; the published one is not here."""
    place = folder / 'hub/checkpoints'
    place.mkdir(parents=True)
    official_dino.save(place / resolve(NAME).rpartition('/')[2])
    done = run_tool('test.py', config, NAME, '--work-dir', folder / 'published', '--out', 'out.pkl',
                    cwd=folder, environment=dict(TORCH_HOME=str(folder)))
    assert done.returncode == 0, done.output[-3000:]
    assert re.search(r'coco/bbox_mAP: [\d.]+', done.output)
    assert (folder / 'out.pkl').is_file()
    assert 'unexpected key' not in done.output and 'missing key' not in done.output


@pytest.mark.parametrize('what, message', [
    ('another variant', 'has carrier tokens'), ('a layer less', 'does not fit the model of this')])
def test_an_incomplete_file_is_not_evaluated(what, message, config, tmp_path):
    tensors = official_dino.small_tensors(**(dict(layers=1) if what == 'a layer less' else {}))
    if what == 'another variant':
        tensors['backbone.0.levels.2.blocks.0.hat_norm1.weight'] = torch.ones(32)
    official_dino.save(tmp_path / 'bad.pth', tensors)
    done = run_tool('test.py', config, 'bad.pth', cwd=tmp_path)
    assert done.returncode == 1 and 'Traceback' not in done.output
    assert re.match(f"test: checkpoint='bad.pth': .*{message}", done.stderr.splitlines()[-1])
    assert 'Epoch(test)' not in done.output
