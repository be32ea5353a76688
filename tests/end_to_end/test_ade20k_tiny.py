"""upernet_fvit.py on a sample of ADE20K: train, be killed, resume, evaluate in three modes."""
import functools
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.datasets import ADE20KDataset
from PIL import Image

from tests.conftest import REPO, TINY, needs_compiler, stir
from tests.running import Started, run_tool

CONFIG = """
_base_ = '{repo}/configs/mmseg/upernet_fvit.py'
data_root = '{data_root}'
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
model = dict(
    # The weights cannot be downloaded here.
    backbone=dict(arch=dict(_delete_=True, **{tiny}), init_cfg=None),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=16),
    data_preprocessor=dict(size=(128, 128)),
    test_cfg=dict(crop_size=(128, 128), stride=(85, 85)))
"""
# Sizes: a quarter of every side, a short run, a few of the pictures evaluated.
SIZES = {
    'train_cfg.max_iters': 24, 'train_cfg.val_interval': 24, 'param_scheduler.0.end': 4,
    'default_hooks.checkpoint.interval': 12, 'default_hooks.logger.interval': 3,
    'test_dataloader.dataset.indices': 6, 'val_dataloader.dataset.indices': 6,
}
QUICK = ['--cfg-options', *(f'{k}={v}' for k, v in SIZES.items())]


def finished(name, *arguments, cwd, options=()):
    done = run_tool(name, *arguments, *QUICK, *options, cwd=cwd)
    assert done.returncode == 0, done.output[-3000:]
    return done.output


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('ade20k_tiny')


@pytest.fixture(scope='module')
def config(folder, tiny_ade20k):
    path = folder / 'upernet_tiny_ade20k.py'
    path.write_text(CONFIG.format(repo=REPO, data_root=tiny_ade20k, tiny=TINY))
    from mmengine.config import Config
    cfg = Config.fromfile(str(path))
    train, test, tta = map(quartered, (cfg.train_pipeline, cfg.test_pipeline, cfg.tta_pipeline))
    with path.open('a') as file:
        file.write(f'train_dataloader["dataset"]["pipeline"] = {train!r}\n'
                   f'val_dataloader["dataset"]["pipeline"] = {test!r}\n'
                   f'tta_pipeline = {tta!r}\n')
    return path


def quartered(node):
    """A pipeline with every scale and crop divided by four."""
    if isinstance(node, dict):
        return {k: tuple(s // 4 for s in v) if k in ('scale', 'crop_size')
                else v / 4 if k == 'scale_factor' else quartered(v) for k, v in node.items()}
    return [quartered(v) for v in node] if isinstance(node, list) else node


@pytest.fixture(scope='module')
def trained(config, folder):
    """A run that was killed after its first checkpoint and resumed to its end."""
    work_dir = folder / 'run'
    log = folder / 'run.log'
    run = Started(log, 'train.py', config, '--work-dir', work_dir, *QUICK, cwd=folder)
    while 'Iter(train) [15/24]' not in log.read_text() and run.poll() is None:
        time.sleep(0.01)
    if run.poll() is None:
        os.kill(run.pid, signal.SIGKILL)
    first = log.read_text()
    assert run.wait() == -signal.SIGKILL, first[-3000:]
    assert not (work_dir / 'iter_24.pth').exists()
    before = torch.load(work_dir / 'iter_12.pth', weights_only=True)
    assert before['meta']['iter'] == 12
    output = finished('train.py', config, '--work-dir', work_dir, '--resume', cwd=folder)
    return work_dir, first, output


def scalars(work_dir):
    return [json.loads(line) for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
            for line in file.read_text().splitlines()]


def test_a_killed_run_resumes_from_its_last_checkpoint(trained):
    work_dir, first, second = trained
    assert 'resumed epoch: 0, iter: 12' in second
    # What was lost is done again and nothing else.
    before, after = (re.findall(r'Iter\(train\) \[ *(\d+)/24\]', log) for log in (first, second))
    assert before[:5] == ['3', '6', '9', '12', '15'] and after == ['15', '18', '21', '24']
    last = torch.load(work_dir / 'iter_24.pth', weights_only=True)
    assert last['meta']['iter'] == 24 and last['optimizer']['state'][0]['step'] == 24
    losses = [s['loss'] for s in scalars(work_dir) if 'loss' in s]
    assert len(losses) >= 4 and np.isfinite(losses).all()
    assert (work_dir / 'curves.png').is_file()


def test_the_log_has_precision_learning_rate_and_every_class(trained):
    _, first, second = trained
    assert 'training is in float32' in first  # the config's AMP, on a machine without a GPU
    # 2 pictures on one process; the learning rate is for 16.
    assert '--auto-scale-lr, or --cfg-options optim_wrapper.optimizer.lr=7.5e-06' in first
    for name in ADE20KDataset.METAINFO['classes']:
        assert re.search(rf'\| +{re.escape(name)} +\|', second), name
    assert re.search(r'aAcc: \S+ +mIoU: \S+ +mAcc: \S+', second)


MODES = dict(
    whole=([], []),
    slide=([], ['model.test_cfg.mode=slide']),
    tta=(['--tta'], ['test_dataloader.dataset.indices=1']))


@pytest.mark.parametrize('mode', MODES)
def test_saved_label_maps_are_those_evaluated(mode, trained, config, folder, tiny_ade20k):
    flags, options = MODES[mode]
    output = finished(
        'test.py', config, trained[0] / 'iter_24.pth', '--work-dir', folder / mode, '--out',
        folder / mode / 'maps', '--show-dir', folder / mode / 'shown', *flags, cwd=folder,
        options=['visualizer.alpha=1', *options])
    assert re.search(r'aAcc: \S+ +mIoU: \S+ +mAcc: \S+', output)
    maps = sorted((folder / mode / 'maps').iterdir())
    assert len(maps) == (1 if mode == 'tta' else 6)
    truth = Path(tiny_ade20k) / 'annotations/validation'
    right = total = 0
    for path in maps:
        predicted, labelled = (np.asarray(Image.open(p)) for p in (path, truth / path.name))
        assert predicted.shape == labelled.shape  # the picture's own size, whatever went in
        assert 1 <= predicted.min() and predicted.max() <= 150  # as ADE20K numbers them
        right += (predicted == labelled)[labelled > 0].sum()
        total += (labelled > 0).sum()
    # The files are what was evaluated.
    said = float(re.search(r'aAcc: (\S+)', output).group(1))
    assert said == pytest.approx(100 * right / total, abs=0.01)
    shown = sorted((folder / mode / 'shown').iterdir())
    assert [p.stem for p in shown] == [p.stem for p in maps]
    palette = np.array(ADE20KDataset.METAINFO['palette'])
    for overlay, path in zip(shown, maps):
        drawn, labels = np.asarray(Image.open(overlay)), np.asarray(Image.open(path)).astype(int)
        height, width = labels.shape
        assert drawn.shape == (height, 2 * width, 3)  # ground truth left, prediction right
        # Drawn opaque: colours are the classes' own, but for what the labels' text covers.
        assert (drawn[:, width:] == palette[labels - 1]).all(-1).mean() > 0.4


@pytest.fixture(scope='module')
def small(config, folder):
    """Three stages, one block each: all blocks compile alike."""
    path = folder / 'small.py'
    path.write_text(f"_base_ = '{config}'\n" + """model = dict(
    backbone=dict(out_indices=(0, 1, 2), arch=dict(depths=(1, 1, 1, 1))),
    decode_head=dict(in_index=[0, 1, 2], in_channels=[16, 32, 64]))""")
    from mmengine.registry import MODELS, init_default_scope

    from fastervit_mm.engine import launch
    cfg = launch.load_config(str(path))
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    stir(model)  # as it begins, all classes are nearly alike
    torch.save(dict(state_dict=model.state_dict()), folder / 'small.pth')
    return path


@pytest.mark.long
@needs_compiler
def test_deployed_and_compiled_it_predicts_the_same(small, folder):
    """Two images of different sizes, the second new to the compiled graph."""
    maps = []
    for name, given in (('plain', []), ('compiled', ['--deploy', '--compile'])):
        out = folder / name
        finished('test.py', small, folder / 'small.pth', '--work-dir', out / 'run',
                 '--out', out / 'maps', *given, cwd=folder, options=[
                     'test_dataloader.dataset.indices=2',
                     'test_dataloader.dataset.pipeline.1.scale=(512,128)'])
        maps.append([np.asarray(Image.open(p)) for p in sorted((out / 'maps').iterdir())])
    assert len(maps[0]) == 2 and maps[0][0].shape != maps[0][1].shape
    for plain, compiled in zip(*maps, strict=True):
        assert len(np.unique(plain)) > 1
        assert (plain == compiled).mean() > 0.999  # a tie of two classes may fall the other way


# Tracing a hierarchical stage takes a minute; tests/backbone/test_compile.py has one.
CONVOLUTIONS = {
    'model.backbone.out_indices': (0, 1), 'model.decode_head.in_index': [0, 1],
    'model.decode_head.in_channels': [16, 32], 'model.auxiliary_head.in_index': 1,
    'model.auxiliary_head.in_channels': 32}


@pytest.mark.parametrize('backend, part', [
    ('eager', CONVOLUTIONS), pytest.param('aot_eager', {}, marks=pytest.mark.long)])
def test_compiled_training_is_the_same_training(backend, part, small, folder, monkeypatch):
    """The forward pass is traced, with ``aot_eager`` the backward pass too; no code is made."""
    from fastervit_mm.engine import launch
    monkeypatch.setattr(torch.nn.Module, 'compile', functools.partialmethod(
        torch.nn.Module.compile, backend=backend))
    options = {**SIZES, **part, 'train_cfg.max_iters': 2, 'randomness.seed': 0,
               'default_hooks.logger.interval': 1}
    states = []
    for compiled in (False, True):
        work_dir = folder / f'{backend}_{compiled}'
        cfg = launch.load_config(str(small), work_dir=str(work_dir), cfg_options=dict(options))
        cfg.experiment_name = work_dir.name
        runner = launch.train(cfg, compiled=compiled)
        graph = runner.model.backbone._compiled_call_impl
        assert (graph is not None) == compiled
        file = torch.load(work_dir / 'iter_2.pth', weights_only=True)
        states.append(file['state_dict'])
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.allclose(value.float(), states[1][name].float(), atol=1e-3, rtol=1e-3), name
