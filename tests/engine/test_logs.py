"""Console, log file and TensorBoard of a run."""
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fastervit_mm.engine.console import quiet, quiet_children, quiet_libraries
from fastervit_mm.engine.curves import read_run
from fastervit_mm.engine.runner import QuietRunner
from tests.conftest import REPO


def test_a_missing_compiler_is_not_printed(capfd):
    with quiet_children():
        subprocess.run('no-such-gcc --version', shell=True)
    subprocess.run('echo heard >&2', shell=True)
    assert capfd.readouterr().err == 'heard\n'


@pytest.mark.parametrize('name', [
    'mmdet/cascade_fvit', 'mmdet/cascade_fvit_shapes', 'mmseg/upernet_fvit',
    'mmseg/upernet_fvit_shapes'])
def test_configs_log_to_tensorboard_and_print_memory(name):
    cfg = Config.fromfile(REPO / f'configs/{name}.py')
    assert [backend.type for backend in cfg.visualizer.vis_backends] == [
        'LocalVisBackend', 'OptionalTensorboardVisBackend']
    # mmdet counts epochs and mmseg iterations; that is left to them.
    assert cfg.log_processor.type == 'MemoryLogProcessor'
    assert cfg.log_processor.by_epoch == name.startswith('mmdet')
    assert 'CurvesHook' in [hook.type for hook in cfg.custom_hooks]


def test_tensorboard_has_what_the_json_has(resumed):
    folders = sorted(resumed.work_dir.glob('*/vis_data'))
    events = EventAccumulator(str(folders[0])).Reload()
    for name, curve in read_run(folders[0].parent).items():
        if name in ('time', 'data_time') or name.startswith('val/'):
            continue
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [iteration for iteration, _ in curve]
        np.testing.assert_allclose(*([v for _, v in c] for c in (found, curve)), rtol=1e-6)
    assert [e.step for e in events.Scalars('loss')] == [2, 4, 6, 8]
    assert [e.step for e in events.Scalars('mIoU')] == [4, 8]


def test_without_tensorboard_a_run_continues_with_one_notice(resumed):
    said = ('TensorBoard is not installed, so no event files are written; pip install '
            'tensorboard')
    assert said not in resumed.first and resumed.second.count(said) == 1
    first, second = sorted(resumed.work_dir.glob('*/vis_data'))
    assert list(first.glob('events.*')) and not list(second.glob('events.*'))
    assert [iteration for iteration, _ in read_run(second.parent)['loss']] == [6, 8, 10, 12]


def test_a_second_run_in_a_process_writes_to_its_own_folder(tmp_path):
    """Also with a name for the visualizer, as the bases of mmdet and mmseg have it."""
    for name in ('first', 'second'):
        runner = QuietRunner(
            nn.Identity(), str(tmp_path / name), experiment_name=name, default_scope='mmseg',
            visualizer=dict(type='SegLocalVisualizer', name='visualizer',
                            vis_backends=[dict(type='LocalVisBackend')]))
        runner.visualizer.add_scalar('mIoU', 1)
        assert len(list((tmp_path / name).glob('*/vis_data/scalars.json'))) == 1


def test_tensorboard_has_metrics_at_their_iteration(by_epoch):
    found = {'loss': [], 'coco/bbox_mAP': [], 'epoch': []}
    for folder in sorted(by_epoch.work_dir.glob('*/vis_data')):
        events = EventAccumulator(str(folder)).Reload()
        for name, steps in found.items():
            steps.append([event.step for event in events.Scalars(name)])
    assert found == {'loss': [[3, 7], [7, 11]], 'coco/bbox_mAP': [[4, 8], [4, 8, 12]],
                     'epoch': [[3, 4, 7, 8], [4, 7, 8, 11, 12]]}


@pytest.mark.parametrize('name, iterations', [('resumed', 4), ('by_epoch', 2)])
def test_the_console_shows_time_left_and_memory(name, iterations, request):
    run = request.getfixturevalue(name)
    lines = [line for line in run.first.splitlines() if '(train)' in line and 'loss: ' in line]
    assert len(lines) == iterations
    for line in lines:
        assert re.search(r'eta: \d+:\d\d:\d\d', line)
        # In MB: Python with PyTorch, and no more than this machine has.
        assert 200 < int(re.search(r'memory: (\d+)', line)[1]) < 200_000
    assert [value for _, value in read_run(run.work_dir)['memory'][:1]] == [
        int(re.search(r'memory: (\d+)', lines[0])[1])]


def test_the_console_shows_the_main_metric_and_the_best_so_far(resumed):
    curve = dict(read_run(resumed.work_dir)['mIoU'])
    assert list(curve) == [4, 8, 12]
    first, second = ([line.split(' - ')[-1] for line in output.splitlines()
                      if 'Validation at' in line] for output in (resumed.first, resumed.second))
    # The last validation that ended was at 8, so the resumed run began with the one at 4.
    assert len(first) == 2 and len(second) == 3
    best = max(curve, key=lambda iteration: (curve[iteration], -iteration))
    assert second[2] == (f'INFO - Validation at iteration 12: mIoU {curve[12]:.4g} (best '
                         f'{curve[best]:.4g}, at iteration {best})'.removeprefix('INFO - '))


def test_a_detector_shows_two_main_metrics_and_epochs(by_epoch):
    first, second = ([line.split(' - ')[-1] for line in output.splitlines()
                      if 'Validation at' in line] for output in (by_epoch.first, by_epoch.second))
    assert [line.split(': ')[0] for line in first + second] == [
        f'Validation at epoch {epoch} (iteration {4 * epoch})' for epoch in (1, 2, 1, 2, 3)]
    said = 'Validation at epoch 3 (iteration 12): '
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        curve = dict(read_run(by_epoch.work_dir)[name])
        best = max(curve, key=lambda iteration: (curve[iteration], -iteration))
        said += f'{name} {curve[12]:.4g} (best {curve[best]:.4g}, at epoch {best // 4}), '
    assert second[2] == said.removesuffix(', ')


# What mmengine, mmdet and mmseg say in every run; by warnings what is not in their log.
NOISE = dict(
    resumed=('The prefix is not set', 'The draw is False', 'FileClient', 'HardDiskBackend',
             'SyncBatchNorm', 'System environment', '`reduce_zero_label` will be',
             'avg_non_ignore'),
    by_epoch=('FileClient', 'HardDiskBackend', 'SyncBatchNorm', 'Exp name', 'mAP_copypaste',
              'System environment', 'index created', 'Accumulating evaluation', 'DONE (t=',
              'To copy construct'))


@pytest.mark.parametrize('name', NOISE)
def test_messages_that_need_no_action_are_only_in_the_log_file(name, request):
    run = request.getfixturevalue(name)
    for console, folder in zip((run.first, run.second), sorted(run.work_dir.glob('*/vis_data'))):
        log, = (path.read_text() for path in folder.parent.glob('*.log'))
        for words in NOISE[name]:
            assert words in log and words not in console
        assert 'deprecated' not in console and 'FutureWarning' not in console
    assert (' Average Precision ' in run.first) == (name == 'by_epoch')


def test_warnings_that_matter_stay_on_the_console(by_epoch):
    """The unscaled learning rate (batches of 2 instead of 5), and no other warning."""
    for console in (by_epoch.first, by_epoch.second):
        warned = [line for line in console.splitlines() if 'WARNING' in line or 'Warning' in line]
        assert len(warned) == 1 and 'the learning rate 0.0015 was chosen for 5' in warned[0]


def test_only_warnings_for_developers_leave_the_console(tmp_path, capsys):
    logger = MMLogger.get_instance('quiet', log_file=str(tmp_path / 'log'))
    quiet(logger)
    with pytest.warns(Warning) as shown:
        with quiet_libraries():
            for words, kind in (('use another function', FutureWarning),
                                ('The draw is False, it means that the hook ...', UserWarning),
                                ('no file here', UserWarning)):
                warnings.warn(words, kind, stacklevel=1)
        warnings.warn('use a third', FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ['no file here', 'use a third']
    logger.warning('"FileClient" will be deprecated in future')
    logger.warning('no checkpoint there')
    console = capsys.readouterr().out
    assert 'no checkpoint' in console and 'FileClient' not in console
    log = (tmp_path / 'log').read_text()
    assert all(words in log for words in ('use another', 'The draw is', 'FileClient', 'no check'))
    assert 'no file here' not in log


@pytest.mark.parametrize('name', ['resumed', 'by_epoch'])
def test_initialisation_of_tensors_is_only_in_the_log_file(name, request):
    run = request.getfixturevalue(name)
    log = sorted(run.work_dir.glob('*/*.log'))[0].read_text()
    began = re.findall(r'^(\S+) - torch.Size\(.*\): $', log, re.MULTILINE)
    assert len(began) > 100 and 'backbone.stem.conv1.weight' in began
    assert 'torch.Size' not in run.first and 'TruncNormal' not in run.first


def test_memory_is_the_peak_of_the_process():
    """In a separate process, because this one may reuse freed memory."""
    subprocess.run([sys.executable, '-W', 'ignore', '-c', """
import numpy as np
from fastervit_mm.engine.logs import peak_resident_memory
before = peak_resident_memory()
large = np.ones(1500 * 2**20, np.uint8)
held = peak_resident_memory()
# The kernel adds up its counts in batches, one for each CPU, and may drop pages of libraries.
assert before < 1400 <= held <= before + 1600, (before, held)
del large
assert peak_resident_memory() >= held - 100, (peak_resident_memory(), held)
"""], check=True)
