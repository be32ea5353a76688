"""Real processes on CPUs, through gloo, as the launchers start them."""
import json
import os
import pickle
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from fastervit_mm.config_files import ConfigError
from fastervit_mm.engine.checkpoints import newest_checkpoint
from fastervit_mm.engine.checks import check_config
from fastervit_mm.engine.sharding import gather_checkpoint
from fastervit_mm.weights import CheckpointError
from tests.conftest import TINY
from tests.engine.conftest import SEGMENTOR, SWIN_HAT
from tests.running import run_tool

# A loss that is a mean over pixels, and no BatchNorm that learns from a process's own images: two
# processes compute what one does with all images. Without Adam's division by a gradient near 0.
CONFIG = """
_base_ = 'tiny.py'
val_dataloader = dict(dataset=dict(indices=3))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(norm_eval=True), auxiliary_head=None, decode_head=dict(
        _delete_=True, type='FCNHead', in_channels=[16, 32, 64, 128], in_index=(0, 1, 2, 3),
        channels=8, num_convs=1, input_transform='resize_concat', norm_cfg=None, num_classes=150,
        dropout_ratio=0, align_corners=False, loss_decode=dict(type='CrossEntropyLoss')))
optim_wrapper = dict(
    optimizer=dict(lr=0.02, eps=0.1), clip_grad=dict(max_norm=5))
train_cfg = dict(max_iters=6, val_interval=6)
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=3), logger=dict(interval=1))
"""


def environments(launcher='pytorch'):
    """Environment variables of each launcher for its two processes."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    common = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, OMP_NUM_THREADS='1',
                  MKL_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    names = dict(pytorch=('RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
                 slurm=('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
                 mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK',
                      'OMPI_COMM_WORLD_SIZE'))[launcher]
    for rank in '01':
        yield dict(common, SLURM_NODELIST='this', **dict(zip(names, (rank, rank, '2'))))


def run_both(name, *arguments, cwd, launcher='pytorch'):
    """One of the tools in two processes; {rank} in an argument is each one's."""
    def run(rank, environment):
        return run_tool(name, *(str(a).format(rank=rank) for a in arguments), cwd=cwd,
                        environment=environment)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(run, range(2), environments(launcher)))
    for process in done:
        assert process.returncode == 0, process.output[-3000:]
    return [process.output for process in done]


JOBS = '../tests/engine/distributed_jobs.py'


def scalars(work_dir):
    """The metrics of the last test of a run."""
    newest = max(Path(work_dir).glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    # mmengine 0.10.7 writes it in each process: behind the first object may be the rest of another.
    metrics, _ = json.JSONDecoder().raw_decode(newest.read_text())
    return {k: v for k, v in metrics.items() if 'time' not in k}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, tiny_ade20k):
    folder = tmp_path_factory.mktemp('processes')
    (folder / 'tiny.py').write_text(SEGMENTOR.replace('ROOT', str(tiny_ade20k)))
    (folder / 'two.py').write_text(CONFIG)
    (folder / 'one.py').write_text(CONFIG + 'train_dataloader = dict(batch_size=4)\n')
    (folder / 'sharded.py').write_text(CONFIG)
    return folder


@pytest.fixture(scope='module')
def two(folder):
    """Results of both processes of DDP."""
    run_both(JOBS, 'train', 'two.py', 'pytorch', 'two{rank}.pt', cwd=folder)
    return [torch.load(folder / f'two{rank}.pt') for rank in range(2)]


def test_two_processes_train_as_one_with_all_images(folder, two):
    """Losses, and through the optimizer gradients."""
    done = run_tool(JOBS, 'train', 'one.py', 'none', 'one.pt', cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    one = torch.load(folder / 'one.pt')
    mean = (torch.tensor(two[0]['losses']) + torch.tensor(two[1]['losses'])) / 2
    torch.testing.assert_close(mean, torch.tensor(one['losses']), rtol=1e-5, atol=1e-5)
    assert two[0]['losses'] != two[1]['losses']  # of other images
    for name, weight in one['weights'].items():
        torch.testing.assert_close(two[0]['weights'][name], weight, rtol=1e-4, atol=1e-5, msg=name)
        assert torch.equal(two[0]['weights'][name], two[1]['weights'][name]), name


@pytest.fixture(scope='module')
def sharded(folder, two):
    """Results of both processes, resumed from DDP's second iteration, with everything divided."""
    run_both(JOBS, 'train', 'sharded.py', 'pytorch', 'sharded{rank}.pt', 'sharded',
             'work_dirs/two/iter_2.pth', cwd=folder)
    return [torch.load(folder / f'sharded{rank}.pt') for rank in range(2)]


def test_sharded_training_goes_on_as_ddp_does(two, sharded):
    for plain, divided in zip(two, sharded):
        torch.testing.assert_close(divided['losses'], plain['losses'][2:], rtol=1e-5, atol=1e-5)
        assert divided['weights'].keys() == plain['weights'].keys()
        for name, weight in plain['weights'].items():
            torch.testing.assert_close(divided['weights'][name], weight, rtol=1e-4, atol=1e-5,
                                       msg=name)
        assert divided['metrics'] == plain['metrics']
        assert 0.45 < divided['local'] / plain['local'] < 0.55  # half of the parameters each


@pytest.mark.long
def test_sharded_training_of_a_swin_hat_goes_on_as_ddp_does(folder):
    (folder / 'hat.py').write_text(CONFIG.replace('norm_eval=True', f'**{SWIN_HAT}'))
    run_both(JOBS, 'train', 'hat.py', 'pytorch', 'hat{rank}.pt', cwd=folder)
    run_both(JOBS, 'train', 'hat.py', 'pytorch', 'parts{rank}.pt', 'sharded',
             'work_dirs/hat/iter_2.pth', cwd=folder)
    for rank in range(2):
        plain, divided = (torch.load(folder / f'{name}{rank}.pt') for name in ('hat', 'parts'))
        torch.testing.assert_close(divided['losses'], plain['losses'][2:], rtol=1e-5, atol=1e-5)
        for name, weight in plain['weights'].items():
            torch.testing.assert_close(divided['weights'][name], weight, rtol=1e-4, atol=1e-5,
                                       msg=name)
        assert any('carriers.attn' in name for name in plain['weights'])
        assert divided['local'] < 0.6 * plain['local']


def test_a_sharded_checkpoint_resumes_bit_for_bit(folder, sharded):
    """AdamW's state too; through Slurm's launcher."""
    checkpoint = folder / 'work_dirs/sharded/iter_4.pth'
    assert {path.name for path in checkpoint.iterdir()} == {'rank0.pth', 'rank1.pth'}
    run_both(JOBS, 'train', 'sharded.py', 'slurm', 'again{rank}.pt', 'sharded', checkpoint,
             cwd=folder, launcher='slurm')
    for rank in range(2):
        again = torch.load(folder / f'again{rank}.pt')
        assert again['losses'] == sharded[rank]['losses'][2:]
        for name, weight in sharded[rank]['weights'].items():
            assert torch.equal(again['weights'][name], weight), name


def test_a_gathered_checkpoint_is_tested_by_one_process(folder, sharded):
    """With the metrics of the validation, an odd number of images by two, to the last digit."""
    work = folder / 'work_dirs'
    done = run_tool('gather_checkpoint.py', work / 'sharded/iter_6.pth', 'whole.pth', cwd=folder)
    assert done.returncode == 0, done.output
    whole = torch.load(folder / 'whole.pth', weights_only=True)
    assert set(whole) == {'meta', 'state_dict'}
    for name, weight in sharded[0]['weights'].items():
        assert torch.equal(whole['state_dict'][name], weight), name
    done = run_tool('test.py', 'two.py', 'whole.pth', '--work-dir', 'single', cwd=folder,
                    environment=dict(OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.output[-3000:]
    assert scalars(folder / 'single')['mIoU'] == sharded[0]['metrics'] > 0


def test_training_goes_on_in_one_process_from_a_gathered_checkpoint(folder, sharded):
    """With ``--all``: optimizer, schedule and iteration too."""
    done = run_tool('gather_checkpoint.py', folder / 'work_dirs/sharded/iter_4.pth', 'all.pth',
                    '--all', cwd=folder)
    assert done.returncode == 0, done.output
    done = run_tool(JOBS, 'train', 'one.py', 'none', 'rest.pt', 'all.pth', cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    rest = torch.load(folder / 'rest.pt')
    mean = (torch.tensor(sharded[0]['losses']) + torch.tensor(sharded[1]['losses'])) / 2
    torch.testing.assert_close(torch.tensor(rest['losses']), mean[2:], rtol=1e-5, atol=1e-5)
    for name, weight in rest['weights'].items():
        torch.testing.assert_close(sharded[0]['weights'][name], weight, rtol=1e-4, atol=1e-5,
                                   msg=name)


def test_the_newest_sharded_checkpoint_has_all_its_parts(folder, sharded, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(folder / 'work_dirs/sharded', run)
    (run / 'last_checkpoint').write_text('iter_6.pth')
    assert newest_checkpoint(str(run), finite=True) == run / 'iter_6.pth'
    os.truncate(run / 'iter_6.pth/rank1.pth', 1000)
    assert newest_checkpoint(str(run), finite=True) == run / 'iter_4.pth'
    (run / 'iter_4.pth/rank1.pth').unlink()
    with pytest.raises(CheckpointError, match='some are missing'):
        gather_checkpoint(str(run / 'iter_4.pth'), str(tmp_path / 'whole.pth'))
    assert not (tmp_path / 'whole.pth').exists()


def test_a_checkpoint_is_gathered_into_a_safetensors_file(folder, sharded):
    checkpoint = folder / 'work_dirs/sharded/iter_6.pth'
    done = run_tool('gather_checkpoint.py', checkpoint, 'whole.safetensors', cwd=folder)
    assert done.returncode == 0, done.output
    weights = load_file(folder / 'whole.safetensors')
    assert sharded[0]['weights'] and all(
        torch.equal(weights[name], tensor) for name, tensor in sharded[0]['weights'].items())
    done = run_tool('gather_checkpoint.py', checkpoint, 'all.safetensors', '--all', cwd=folder)
    assert done.returncode == 1 and 'holds only weights' in done.stderr
    assert not (folder / 'all.safetensors').exists()


def test_a_sharded_checkpoint_is_not_tested_as_it_is(folder, sharded):
    done = run_tool('test.py', 'two.py', 'work_dirs/sharded/iter_6.pth', cwd=folder)
    assert done.returncode == 1 and 'tools/gather_checkpoint.py' in done.stderr
    assert 'Traceback' not in done.output


def test_a_detector_is_evaluated_as_in_one_process(by_epoch, tmp_path):
    """Three images, through MPI's launcher: each prediction and each metric."""
    def arguments(name):
        return ['test.py', by_epoch.work_dir.parent.parent / 'tiny_detector.py',
                by_epoch.work_dir / 'epoch_3.pth', '--work-dir', name, '--out', f'{name}.pkl',
                '--cfg-options', 'test_dataloader.batch_size=1',
                'test_dataloader.dataset.indices=3']
    done = run_tool(*arguments('single'), cwd=tmp_path, environment=dict(OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.output[-3000:]
    run_both(*arguments('double'), '--launcher', 'mpi', cwd=tmp_path, launcher='mpi')
    assert scalars(tmp_path / 'single') == scalars(tmp_path / 'double')
    single, double = (pickle.loads((tmp_path / f'{name}.pkl').read_bytes())
                      for name in ('single', 'double'))
    assert [s['img_id'] for s in single] == [s['img_id'] for s in double]
    assert len(single) == 3
    for one, other in zip(single, double):
        one, other = one['pred_instances'], other['pred_instances']
        assert len(one['scores']) == 5 and one['masks'] == other['masks']
        assert all(torch.equal(one[k], other[k]) for k in ('bboxes', 'scores', 'labels'))


def test_ddp_finds_no_unused_parameters(tmp_path):
    """For any out_indices, with and without with_cp; and SwinHAT."""
    outputs = run_both(JOBS, 'unused', cwd=tmp_path)
    assert all('31 networks without unused parameters' in text for text in outputs)


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    """With and without with_cp, and compiled; SwinHAT first."""
    for text in run_both(JOBS, 'gradients', cwd=tmp_path):
        lines = [line for line in text.splitlines() if 'gradients are equal' in line]
        graphs = [int(line.split()[-2]) for line in lines]
        # One graph for the network that is compiled: it was, and in one piece.
        assert len(lines) == 4 and graphs == [0, 0, 0, 1], text
        assert lines[0].startswith('SwinHAT')


RETINANET = f"""
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['fastervit_mm'])
model = dict(backbone=dict(_delete_=True, type='FasterViT', arch={TINY!r}),
             neck=dict(in_channels=[16, 32, 64, 128]))
"""
FCN = f"""
_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
custom_imports = dict(imports=['fastervit_mm'])
model = dict(pretrained=None, backbone=dict(_delete_=True, type='FasterViT', arch={TINY!r}),
             decode_head=dict(in_channels=128), auxiliary_head=dict(in_channels=64))
"""


@pytest.mark.parametrize('text, stages, remedy', [
    (RETINANET, '0', 'model.backbone.out_indices=(1, 2, 3), model.neck.in_channels=[32, 64, 128], '
     'model.neck.start_level=0'),
    (FCN, '0, 1', 'model.backbone.out_indices=(2, 3), and renumber each head')])
def test_unread_maps_are_found_before_training(text, stages, remedy, tmp_path):
    (tmp_path / 'config.py').write_text(text)
    cfg = Config.fromfile(str(tmp_path / 'config.py'))
    cfg.work_dir = str(tmp_path)

    def problems():
        with pytest.raises(ConfigError) as error:  # the data are not there
            check_config(cfg, training=True)
        return str(error.value)
    assert 'nothing reads' not in problems()  # one process does not mind
    cfg.launcher = 'pytorch'
    assert f'nothing reads the map of stage {stages}' in problems()
    assert remedy in problems()
    cfg.find_unused_parameters = True
    assert 'nothing reads' not in problems()
    cfg.find_unused_parameters = False
    if text is RETINANET:
        cfg.merge_from_dict({key: eval(value) for key, value in (
            part.split('=') for part in remedy.replace(', model', ';model').split(';'))})
        assert 'nothing reads' not in problems() and 'in_channels' not in problems()
