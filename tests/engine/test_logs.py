"""What a run says and writes down: console, log file, TensorBoard."""
import re
import subprocess
import sys

import numpy as np
import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastervit_mm.engine.curves import read_run
from tests.conftest import REPO


@pytest.mark.parametrize('name', [
    'mmdet/cascade_fvit', 'mmdet/cascade_fvit_shapes', 'mmseg/upernet_fvit',
    'mmseg/upernet_fvit_shapes'])
def test_configs_log_to_tensorboard_and_say_memory(name):
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


def test_without_tensorboard_a_run_goes_on_and_says_so_once(resumed):
    said = ('TensorBoard is not installed, so no event files are written; pip install '
            'tensorboard')
    assert said not in resumed.first and resumed.second.count(said) == 1
    first, second = sorted(resumed.work_dir.glob('*/vis_data'))
    assert list(first.glob('events.*')) and not list(second.glob('events.*'))
    assert [iteration for iteration, _ in read_run(second.parent)['loss']] == [6, 8, 10, 12]


@pytest.mark.parametrize('name, iterations', [('resumed', 4), ('by_epoch', 4)])
def test_the_console_says_time_left_and_memory(name, iterations, request):
    run = request.getfixturevalue(name)
    lines = [line for line in run.first.splitlines() if '(train)' in line and 'loss: ' in line]
    assert len(lines) == iterations
    for line in lines:
        assert re.search(r'eta: \d+:\d\d:\d\d', line)
        # In MB: Python with PyTorch, and no more than this machine has.
        assert 200 < int(re.search(r'memory: (\d+)', line)[1]) < 200_000
    assert [value for _, value in read_run(run.work_dir)['memory'][:1]] == [
        int(re.search(r'memory: (\d+)', lines[0])[1])]


def test_the_console_says_the_metric_that_matters_and_the_best_so_far(resumed):
    curve = dict(read_run(resumed.work_dir)['mIoU'])
    assert list(curve) == [4, 8, 12]
    first, second = ([line.split(' - ')[-1] for line in output.splitlines()
                      if 'Validation at' in line] for output in (resumed.first, resumed.second))
    assert len(first) == len(second) == 2
    # The evaluation at 4 is of the first run; it counts for the resumed one.
    best = max(curve, key=lambda iteration: (curve[iteration], -iteration))
    assert second[1] == (f'INFO - Validation at iteration 12: mIoU {curve[12]:.4g} (best '
                         f'{curve[best]:.4g}, at iteration {best})'.removeprefix('INFO - '))


def test_a_detector_has_two_metrics_that_matter(by_epoch):
    lines = [line for line in by_epoch.first.splitlines() if 'Validation at' in line]
    assert len(lines) == 2
    assert re.search(r'iteration 8: coco/bbox_mAP [\d.e-]+ \(best .*\), coco/segm_mAP [\d.e-]+ \(b',
                     lines[1])


@pytest.mark.parametrize('name', ['resumed', 'by_epoch'])
def test_how_each_tensor_began_is_in_the_log_file_alone(name, request):
    run = request.getfixturevalue(name)
    log = sorted(run.work_dir.glob('*/*.log'))[0].read_text()
    began = re.findall(r'^(\S+) - torch.Size\(.*\): $', log, re.MULTILINE)
    assert len(began) > 100 and 'backbone.stem.conv1.weight' in began
    assert 'torch.Size' not in run.first and 'TruncNormal' not in run.first


def test_memory_is_what_the_process_held_at_its_height():
    """In a process of its own: this one may get freed memory again."""
    subprocess.run([sys.executable, '-W', 'ignore', '-c', """
import numpy as np
from fastervit_mm.engine.logs import peak_resident_memory
before = peak_resident_memory()
large = np.ones(1000 * 2**20, np.uint8)
held = peak_resident_memory()
assert before < 1000 <= held <= before + 1100, (before, held)
del large
assert peak_resident_memory() == held
"""], check=True)
