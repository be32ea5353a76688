"""Real runs of a config outside the clone."""
import json
import pickle

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from fastervit_mm.config_files import config_folder
from fastervit_mm.engine import launch
from tests.conftest import REPO
from tests.engine.conftest import DETECTOR, Run, train
from tests.running import run_tool

MINE = """
_base_ = './{base}.py'
load, annotate, resize, pack = _base_.pipeline
pipeline = [load, resize, annotate, pack]  # as mmdet draws it
train_dataloader = dict(dataset=dict(indices=4))
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(
    pipeline=pipeline,
    ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'),
    indices=3))
test_evaluator = dict(ann_file=_base_.data_root + 'annotations/instances_train2017.json')
train_cfg = dict(max_epochs=1, val_interval=2)
"""


@pytest.fixture(scope='module')
def by_name(tmp_path_factory, tiny_coco) -> Run:
    """A detector of 2 iterations: a config, whose base is a config, whose base is one of ours."""
    folder = tmp_path_factory.mktemp('by_name')
    text = DETECTOR.replace('ROOT', str(tiny_coco))
    assert str(REPO / 'configs') + '/' in text
    (folder / 'by_path.py').write_text(text)
    (folder / 'base.py').write_text(text.replace(f'{REPO / "configs"}/', 'fastervit_mm::'))
    (folder / 'mine.py').write_text(MINE.format(base='base'))
    (folder / 'mine_by_path.py').write_text(MINE.format(base='by_path'))
    return Run(folder / 'work_dirs/mine', train(folder / 'mine.py'))


def test_a_base_by_name_is_trained_without_warnings(by_name):
    log, = by_name.work_dir.glob('*/*.log')
    for said in (by_name.first, log.read_text()):
        assert 'not installed' not in said and 'Failed to search registry' not in said
        assert "scope_='fastervit_mm'" not in said
    scalars, = by_name.work_dir.glob('*/vis_data/scalars.json')
    assert max(json.loads(line).get('iter', 0) for line in scalars.open()) == 2


def test_the_saved_config_is_that_of_a_base_by_path(by_name):
    saved = Config.fromfile(by_name.work_dir / 'mine.py')
    expected = launch.load_config(str(by_name.work_dir.parents[1] / 'mine_by_path.py'),
                                  work_dir='./work_dirs/mine')
    launch.add_for_training(expected)
    expected.dump(by_name.work_dir / 'expected.py')
    assert saved.to_dict() == Config.fromfile(by_name.work_dir / 'expected.py').to_dict()
    assert str(config_folder()) not in saved.pretty_text


@pytest.mark.parametrize('split, images', [('val', 2), ('test', 3)])
def test_a_detector_is_scored_on_either_split(by_name, split, images):
    folder = by_name.work_dir.parents[1]
    options = ['--split', 'val', '--tta', '--show-dir', 'shown_val'] if split == 'val' else []
    done = run_tool('test.py', 'mine.py', 'work_dirs/mine/epoch_1.pth', '--out', f'{split}.pkl',
                    *options, cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    predictions = pickle.loads((folder / f'{split}.pkl').read_bytes())
    assert len(predictions) == images
    assert all(f'{split if split == "val" else "train"}2017/' in p['img_path']
               for p in predictions)
    assert 'bbox_mAP' in done.output
    if split == 'val':
        assert len(list((folder / 'shown_val').glob('*'))) == images


def test_a_segmentor_is_scored_on_either_split(resumed, tmp_path):
    config = resumed.work_dir.parents[1] / 'tiny_segmentor.py'
    scores = {}
    for split, images in (('val', 2), ('test', 3)):
        cfg = launch.load_config(str(config), work_dir=str(tmp_path / 'work'), cfg_options={
            'test_dataloader.dataset.indices': 3, 'experiment_name': f'splits_{split}',
            'test_evaluator.iou_metrics': ['mDice']})
        scores[split] = launch.test(cfg, str(resumed.work_dir / 'iter_4.pth'), split=split,
                                    out=str(tmp_path / split), show_dir=str(tmp_path / 'shown'))
        maps = sorted((tmp_path / split).glob('*.png'))
        assert len(maps) == images
        assert all(np.asarray(Image.open(path)).ndim == 2 for path in maps)
    assert 'mIoU' in scores['val'] and 'mDice' in scores['test']
    assert 'mDice' not in scores['val']
