"""cascade_fvit_0.py on a sample of COCO: train, save, resume, evaluate, as a user does.

Every part of the real detector, but narrow: full widths are in tests/docs/.
"""
import json
import pickle
import re

import pytest
import torch

from tests.conftest import REPO, TINY
from tests.running import run_tool

CONFIG = f"""
_base_ = '{REPO}/configs/mmdet/cascade_fvit_0.py'
data_root = 'ROOT/'
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False,
                        dataset=dict(data_root=data_root))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
width = 32
model = dict(
    # The weights cannot be downloaded here.
    backbone=dict(arch=dict(_delete_=True, **{TINY!r}), init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=[dict(head, in_channels=width, conv_out_channels=width, fc_out_channels=64)
                   for head in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, conv_out_channels=width)))
"""
# The sizes of the heads' work: 8 RoIs an image instead of 512, 20 proposals instead of 1000. The
# warm-up too is that of a short run, and no score is too low for a table.
SIZES = {
    **{f'model.train_cfg.rcnn.{stage}.sampler.num': 8 for stage in range(3)},
    'model.train_cfg.rpn_proposal.max_per_img': 100,
    'model.test_cfg.rpn.max_per_img': 20,
    'model.test_cfg.rcnn.max_per_img': 10,
    'model.test_cfg.rcnn.score_thr': 0.0,
    'param_scheduler.0.end': 10,
    'default_hooks.logger.interval': 3,
    'train_dataloader.dataset.indices': 14,  # an epoch is 6 or 7 iterations
    # The other images have no predictions then.
    'val_dataloader.dataset.indices': 12,
    'test_dataloader.dataset.indices': 12,
}

# Settings of resizes and crops, in pixels.
SIDES = ('scale', 'scales', 'crop_size', 'short', 'longest', 'img_scale', 'size', 'max_size')


def tool(name, *arguments, cwd, layout=False):
    """A tool's exit status and output; SIZES are added to the options, which come last."""
    arguments = [*map(str, arguments)]
    if '--cfg-options' not in arguments:
        arguments.append('--cfg-options')
    arguments += [f'{key}={value}' for key, value in SIZES.items()]
    done = run_tool(name, *arguments, cwd=cwd, layout=layout)
    return done.returncode, done.output


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('tiny_coco')


@pytest.fixture(scope='module')
def config(folder, tiny_coco):
    path = folder / 'cascade_tiny_coco.py'
    path.write_text(CONFIG.replace('ROOT', str(tiny_coco)))
    from mmengine.config import Config
    cfg = Config.fromfile(str(path))
    # Only the sizes: every resize of the real pipelines, divided by four.
    text = path.read_text()
    train, test = smaller(cfg.train_pipeline), smaller(cfg.test_pipeline)
    text += (f'\ntrain_dataloader["dataset"]["pipeline"] = {train!r}\n'
             f'val_dataloader["dataset"]["pipeline"] = {test!r}\n')
    path.write_text(text)
    return path


def smaller(node):
    """A pipeline with every scale and crop divided by four."""
    if isinstance(node, dict):
        return {k: quarter(v) if k in SIDES else smaller(v)
                for k, v in node.items()}
    return [smaller(v) for v in node] if isinstance(node, list) else node


def quarter(size):
    if isinstance(size, (tuple, list)):
        return type(size)(quarter(v) for v in size)
    return size // 4


@pytest.fixture(scope='module')
def trained(config, folder):
    """One epoch, evaluated and saved."""
    work_dir = folder / 'run'
    code, output = tool('train.py', config, '--work-dir', work_dir, '--cfg-options',
                        'train_cfg.max_epochs=1', 'randomness.seed=0', cwd=folder, layout=True)
    assert code == 0, output[-3000:]
    return work_dir, output


def scalars(work_dir):
    return [json.loads(line) for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
            for line in file.read_text().splitlines()]


def test_trains_evaluates_and_leaves_curves(trained):
    work_dir, output = trained
    losses = [s['loss'] for s in scalars(work_dir) if 'loss' in s]
    assert len(losses) >= 2 and all(torch.isfinite(torch.tensor(losses)))
    assert 'training is in float32' in output  # the config's AMP, on a machine without a GPU
    assert (work_dir / 'epoch_1.pth').is_file() and (work_dir / 'curves.png').is_file()
    for metric in ('bbox', 'segm'):
        assert any(f'coco/{metric}_mAP' in s for s in scalars(work_dir))
        assert f'Evaluating {metric}' in output
    assert output.count('Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all') == 2


def test_resumes_where_it_stopped(trained, config, folder):
    work_dir, _ = trained
    code, output = tool('train.py', config, '--work-dir', work_dir, '--resume', '--cfg-options',
                        'train_cfg.max_epochs=2', 'train_cfg.val_interval=5', cwd=folder)
    assert code == 0, output[-3000:]
    assert 'resumed epoch: 1' in output
    assert 'Epoch(train) [2]' in output and 'Epoch(train) [1]' not in output
    second = torch.load(work_dir / 'epoch_2.pth', weights_only=True)
    assert second['meta']['epoch'] == 2
    assert second['optimizer']['state'][0]['step'] == second['meta']['iter']


def test_evaluates_a_checkpoint_with_pictures_and_predictions(trained, config, folder):
    work_dir, _ = trained
    code, output = tool('test.py', config, work_dir / 'epoch_1.pth', '--work-dir',
                        folder / 'tested', '--out', folder / 'out.pkl', '--show-dir', 'shown',
                        cwd=folder)
    assert code == 0, output[-3000:]
    assert re.findall(r'coco/(bbox|segm)_mAP: ', output) == ['bbox', 'segm']
    # COCO's summary lines of both tables are there.
    assert output.count('Average Recall') >= 12
    assert len(list((folder / 'shown').iterdir())) == 12
    predictions = pickle.loads((folder / 'out.pkl').read_bytes())
    assert len(predictions) == 12 and 'bboxes' in predictions[0]['pred_instances']


def test_flip_tta_evaluates(trained, config, folder):
    code, output = tool('test.py', config, trained[0] / 'epoch_1.pth', '--tta', '--work-dir',
                        folder / 'tta', '--cfg-options', cwd=folder)
    assert code == 0, output[-3000:]
    assert 'coco/bbox_mAP:' in output and 'segm is not evaluated' in output
    assert 'coco/segm_mAP' not in output


def test_a_checkpoint_of_another_variant_is_refused_before_evaluation(trained, config, folder):
    code, output = tool('test.py', config, trained[0] / 'epoch_1.pth', '--work-dir',
                        folder / 'refused', '--cfg-options', 'model.backbone.arch.embed_dim=24',
                        'model.neck.in_channels=[24,48,96,192]', cwd=folder)
    assert code != 0 and 'does not fit the model of this config' in output
    assert 'Epoch(test)' not in output


def test_the_loss_falls_on_a_fixed_batch(config, folder, monkeypatch):
    from fastervit_mm.engine import launch
    monkeypatch.chdir(folder)
    cfg = launch.load_config(str(config), work_dir=str(folder / 'fixed'), cfg_options=SIZES)
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.optimizer.lr = 1e-3  # narrow networks take larger steps
    cfg.log_level = 'ERROR'
    runner = launch.build_runner(cfg)
    model = runner.model.train()
    batch = next(iter(runner.build_dataloader(cfg.train_dataloader)))
    optimizer = runner.build_optim_wrapper(cfg.optim_wrapper)
    losses = [float(model.train_step(batch, optimizer)['loss']) for _ in range(9)]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
