#!/usr/bin/env python
"""Plant faults, and check that `make test` finds each.

    python benchmarks/planted_faults.py --out benchmarks/planted_faults.json

Each fault changes one place in a copy of the working tree, and names tests of `make test` that are
expected to fail. It is found if a test fails with it and passes without it: those tests are run
once more at the end. Half a minute each. The exit status is 1 unless all are found.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List, NamedTuple, Tuple

import mmengine.runner  # noqa: F401  (before the forks)
import pytest
import torchvision  # noqa: F401

REPO = Path(__file__).resolve().parents[1]
PACKAGE = 'fastervit_mm'


class Fault(NamedTuple):
    """Change of one place.

    Attributes:
        about: Description of the fault.
        file: Path from the root of the repository, or from the package.
        old: Text in the file.
        new: Replacement of its first occurrence.
        tests: Files, or tests in them, separated by spaces.
    """
    about: str
    file: str
    old: str
    new: str
    tests: str


_RESUMING, _DISTRIBUTED = 'tests/engine/test_resuming.py', 'tests/engine/test_distributed.py'
_LOADING, _DINO = 'tests/weights/test_loading.py', 'tests/weights/test_dino.py'
_OPTIMIZERS, _EXPORT = 'tests/engine/test_optimizers.py', 'tests/export/test_export.py'
_BOXES, _MAPS = 'tests/datasets/test_boxes.py', 'tests/datasets/test_label_maps.py'
_CHECKS, _RUNS = 'tests/engine/test_checks.py', 'tests/cases/test_runs.py'
_OPERATORS = 'tests/test_operators.py'
_GEOMETRY = 'tests/backbone/test_geometry.py'
_TRAINING = 'tests/backbone/test_training.py'
_ORACLE, _POSITIONS = 'tests/backbone/test_oracle.py', 'tests/backbone/test_positions.py'
_BACKBONE, _DEPLOYED = 'tests/backbone/test_fastervit.py', 'tests/backbone/test_switch_to_deploy.py'
FAULTS = [
    # Windows, attention, carriers and positions.
    Fault('cells of a window come from a strip', 'backbone/windows.py',
          'x.view(B, rows, size, columns, size, C).transpose(2, 3)',
          'x.view(B, rows, columns, size, size, C)', _ORACLE),
    Fault('padding is of ones', 'backbone/windows.py', 'F.pad(x, (0, 0, 0, size, 0, size))',
          'F.pad(x, (0, 0, 0, size, 0, size), value=1.)', _GEOMETRY),
    Fault('heads that are padded have another scale', 'backbone/attention.py',
          'bias, self.width**-0.5)', 'bias, q.shape[-1]**-0.5)',
          f'{_ORACLE} tests/backbone/test_kernels.py'),
    Fault('a band of queries has the bias of the first', 'backbone/attention.py',
          'bias.rows(band)', 'bias.rows(slice(0, band.stop - band.start))',
          f'{_POSITIONS} tests/backbone/test_kernels.py'),
    Fault('carriers are not added to the map', 'backbone/attention.py', 'if self.propagate:',
          'if False:', _ORACLE),
    Fault('a folded layer scale leaves the bias', 'backbone/attention.py',
          'linear.bias.mul_(scale.gamma)', 'pass', _DEPLOYED),
    Fault('the MLP sees its input without a norm', 'backbone/attention.py',
          'self.mlp(self.norm2(x))', 'self.mlp(x)', _ORACLE),
    Fault('regions of carriers are rounded down', 'backbone/carriers.py',
          '(2 * (regions - 1)) + gaps', '(2 * (regions - 1))', _GEOMETRY),
    Fault('a cell\'s nearest carrier is its neighbour\'s', 'backbone/carriers.py',
          'sides[cell * ct_size // window_size]',
          'sides[(cell + 1) * ct_size // (window_size + 1)]',
          f'{_ORACLE} tests/backbone/test_hierarchical_attention.py'),
    Fault('coordinates lie between cells', 'backbone/positions.py', 'step[n - 1 - n // 2:][:n] / ',
          '(step[n - 1 - n // 2:][:n] + 0.5) / ', _ORACLE),
    Fault('offsets along both axes have the scale of one', 'backbone/positions.py',
          'step / max(n - 1, 1)', 'step / max(h - 1, 1)',
          f'{_POSITIONS} {_GEOMETRY}'),
    Fault('position terms round to 16 bits', 'backbone/positions.py',
          'torch.promote_types(self.weight1.dtype, torch.float32)', 'self.weight1.dtype',
          f'{_POSITIONS} tests/backbone/test_numbers.py {_DEPLOYED}'),
    Fault('the bias towards carriers is ignored', 'backbone/positions.py',
          'carrier_bias.expand(', '0 * carrier_bias.expand(', 'tests/backbone/'
          'test_carrier_bias.py'),
    Fault('statistics move twice where a block is recomputed', 'backbone/recomputing.py',
          'm.momentum, m.num_batches_tracked = 0.0, ', 'm.num_batches_tracked = ', _TRAINING),
    Fault('frozen parts train', 'backbone/base.py', 'part.eval().requires_grad_(False)',
          'part.eval()', _BACKBONE),
    Fault('maps stay channels last', 'backbone/base.py', 'dense(self.out_norms[str(i)](x))',
          'self.out_norms[str(i)](x)', _BACKBONE),
    Fault('stochastic depth does not grow', 'backbone/base.py',
          'torch.linspace(0, drop_path_rate, ',
          'torch.linspace(drop_path_rate, drop_path_rate, ', _TRAINING),
    Fault('blocks of a former file are stacked in the order of their names', 'backbone/names.py',
          '[int(block[0])] = tensor', '[block[0]] = tensor',
          f'tests/backbone/test_names.py {_ORACLE}'),
    Fault('a variant has a block less', 'backbone/variants.py', "'3': Variant(128, 64, (3, 3, 12",
          "'3': Variant(128, 64, (3, 3, 11", f'{_ORACLE} tests/test_timm_models.py'),
    # Resuming, checkpoints and stops.
    Fault('random numbers of the network do not depend on the iteration', 'engine/resuming.py',
          '_seed((_MODEL, self.runner.seed, get_rank(), self._iter), torch.manual_seed)', 'pass',
          f'{_RESUMING}::test_a_run_stopped_and_then_killed_ends_like_an_undisturbed_one'),
    Fault('augmentation after a resume is that of the first batches', 'engine/resuming.py',
          'enumerate(drawn, begin)', 'enumerate(drawn)', f'{_RESUMING}::'
          'test_random_numbers_depend_only_on_seed_process_epoch_and_index'),
    Fault('a resumed epoch has the order of the first epoch', 'engine/resuming.py',
          'draws.leave_out(self.done, self._epoch)', 'draws.leave_out(self.done, 0)',
          f'{_RESUMING}::test_an_epoch_resumes_from_its_middle_in_its_own_order'),
    Fault('training over iterations resumes with the first batches', 'engine/resuming.py',
          'leave_out(self.skipped)', 'leave_out(0)',
          f'{_RESUMING}::test_batches_are_skipped_one_by_one_or_at_once'),
    Fault('a missed validation is not made up for', 'engine/resuming.py',
          'now % loop.val_interval == 0 or now == end', 'False',
          f'{_RESUMING}::test_an_interrupted_validation_is_rerun'),
    Fault('a file is written in place', 'engine/checkpoints.py',
          'part = path.with_name(path.name + PART)', 'part = path',
          f'{_RESUMING}::test_a_write_that_fails_leaves_the_file_as_it_was'),
    Fault('damage within a checkpoint is not seen', 'engine/checkpoints.py',
          'broken = archive.testzip()', 'broken = None',
          f'{_RESUMING}::test_the_newest_whole_checkpoint_is_found'),
    Fault('a run that stops on notice says that it has ended', 'engine/notices.py',
          'raise SystemExit(REQUEUE)', 'raise SystemExit(0)',
          f'{_RESUMING}::test_a_run_stopped_and_then_killed_ends_like_an_undisturbed_one'),
    Fault('a loss of NaN does not stop a run', 'engine/notices.py',
          'torch.as_tensor(loss).isfinite().all()', 'True',
          f'{_RESUMING}::test_a_non_finite_loss_stops_the_run'),
    # Loading.
    Fault('tensors without a place are accepted', 'weights/loading.py',
          'if (unfilled or surplus) and not', 'if unfilled and not',
          f'{_LOADING}::test_a_deeper_file_is_refused'),
    Fault('values that are not finite are loaded', 'weights/loading.py',
          'check_finite(fitting, checkpoint)', 'pass',
          'tests/bad_input/test_bad_input.py::test_called_in_python'),
    Fault('files of other windows are loaded', 'weights/loading.py',
          'check_windows(backbone, found, checkpoint, prefix)', 'pass',
          'tests/weights/test_windows.py'),
    Fault('averaged weights come before those that were asked for', 'weights/reading.py',
          'is_averaged(entry[0]), _USUAL', 'not is_averaged(entry[0]), _USUAL',
          'tests/cases/test_checkpoints.py'),
    Fault('the classifier\'s norm is loaded to another stage', 'weights/finding.py',
          "'norm.': 'backbone.out_norms.3.'", "'norm.': 'backbone.out_norms.2.'",
          'tests/imagenet/test_logits.py'),
    Fault('norms of DINO\'s decoder change places', 'weights/dino.py',
          "decoder=('norm2', 'norm1', 'norm3')", "decoder=('norm1', 'norm2', 'norm3')", _DINO),
    Fault('a category of COCO is taken for unused', 'weights/dino.py',
          '{0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83}', '{0, 12, 26, 29, 30, 45, 66, 68, 69, 71, '
          '84}', _DINO),
    Fault('cells of Swin\'s patch merging change places', 'weights/swin.py',
          '.transpose(-1, -2).flatten(-2)', '.flatten(-2)', 'tests/backbone/test_swin_hat.py'),
    Fault('a checkpoint with more blocks fills a whole model', 'weights/whole.py',
          'if missing or mismatched or blocks:', 'if missing or mismatched:',
          'tests/engine/test_launch.py'),
    # Optimizers.
    Fault('a block has the learning rate of the one before it', 'engine/optimizers.py',
          '+ block + 1', '+ block', f'{_OPTIMIZERS}::'
          'test_layers_count_from_the_stem_to_the_heads'),
    Fault('layer decay has no effect', 'engine/optimizers.py',
          "settings['lr'] *= scales[name]", 'pass', f'{_OPTIMIZERS}::'
          'test_the_learning_rate_falls_from_layer_to_layer'),
    Fault('an optimizer takes the state of other parameters', 'engine/optimizers.py',
          'if _layout(saved) != _layout(groups):', 'if False:', f'{_OPTIMIZERS}::'
          'test_state_that_does_not_fit_is_an_error_of_one_line'),
    Fault('the best metric so far is the worst', 'engine/hooks.py',
          'place, best = max(curve', 'place, best = min(curve', 'tests/engine/test_logs.py::'
          'test_the_console_shows_the_main_metric_and_the_best_so_far'),
    Fault('MESA leaves the teacher\'s temperature out', 'engine/mesa.py',
          'teacher.detach().float() / _TEMPERATURE', 'teacher.detach().float()',
          'tests/engine/test_mesa.py'),
    Fault('FasterViT-5 trains in float16', 'engine/precision.py', "'5', '6')", "'6')",
          'tests/engine/test_precision.py'),
    # Checks before a run.
    Fault('widths unlike the neck\'s are not found', 'engine/checks.py', 'if has != right:',
          'if False:', f'{_CHECKS}::test_widths_that_the_neck_does_not_expect'),
    Fault('a missing path of the data is not found', 'engine/checks.py',
          'if not os.path.exists(path):', 'if False:',
          f'{_CHECKS}::test_a_missing_part_of_the_data_is_named'),
    Fault('the advised learning rate is upside down', 'engine/checks.py',
          '{lr * batch / base:g}: ', '{lr * base / batch:g}: ',
          f'{_CHECKS}::test_a_batch_whose_learning_rate_was_not_scaled'),
    Fault('classes in another order are not found', 'engine/class_checks.py',
          'one.names[label:label + 1] != (name,)', 'False',
          f'{_RUNS}::test_classes_have_one_order_in_files_and_config'),
    Fault('repeated names of categories are not found', 'engine/class_checks.py',
          'if count > 1]', 'if count > 2]', f'{_RUNS}::test_two_categories_of_one_name'),
    Fault('an evaluator\'s file of other images is not found', 'engine/metric_checks.py',
          'if here.get(number) != there.get(number):', 'if False:',
          f'{_RUNS}::test_the_evaluators_file_must_have_the_datasets_images'),
    # Data.
    Fault('YOLO\'s boxes begin in their centre', 'datasets/boxes/yolo.py', '(x - w / 2, y - h / 2',
          '(x, y', _BOXES),
    Fault('height and width of YOLO\'s polygons change places', 'datasets/boxes/yolo.py',
          'v * height for v', 'v * width for v', _BOXES),
    Fault('difficult objects of VOC are trained on', 'datasets/boxes/voc.py', "== '1')",
          "== '2')", _BOXES),
    Fault('a box that leaves its image is not found', 'datasets/checking/annotations.py',
          "y + height > image['height'] + 1", 'False', 'tests/datasets/test_checking.py'),
    Fault('colours of void become class 0', 'new_config/labels.py',
          'numbers.update(dict.fromkeys(void.values(), VOID))',
          'numbers.update(dict.fromkeys(void.values(), 0))',
          'tests/cases/test_segmentation_data.py::test_colours_become_the_classes_of_their_file'),
    Fault('label 0 of ADE20K becomes a class', 'new_config/labels.py', 'int(no_class == 0)', '0',
          'tests/cases/test_segmentation_data.py tests/new_config'),
    Fault('classes that ImageNet-A lacks are ranked', 'datasets/imagenet.py',
          'full(one[\'pred_score\'].shape, -1.)', 'full(one[\'pred_score\'].shape, 2.)',
          'tests/imagenet/test_tools.py::'
          'test_only_the_two_hundred_classes_of_a_set_are_ranked'),
    Fault('label maps are written from 0 where the data count from 1', 'engine/hooks.py',
          "int(bool(sample.get('reduce_zero_label')))", '0',
          'tests/apis/test_inferencer.py::test_label_maps_equal_mmsegs_and_those_of_tools_test'),
    Fault('a swapped neck reads maps of other strides', 'swapping/maps.py',
          "math.log2(_STRIDES[stage] / stride))", "math.log2(_STRIDES[stage] / stride / 2))",
          'tests/swapping/test_swapping.py::test_dependent_settings_are_changed'),
    # Operators, export, configs and import.
    Fault('Gaussian Soft-NMS lowers scores too little', 'operators/ext.py', '-iou**2 / sigma',
          '-iou**3 / sigma', _OPERATORS),
    Fault('RoIAlign forgets the half pixel', 'operators/ext.py', 'sampling_ratio or -1, aligned))',
          'sampling_ratio or -1, False))', _OPERATORS),
    Fault('an exported file names the wrong order of channels', 'export/writing.py',
          "'RGB' if rgb else 'BGR'", "'BGR' if rgb else 'RGB'", _EXPORT),
    Fault('an exported file takes one width', 'export/writing.py',
          ", 3: Dim('width', min=32)}", '}', _EXPORT),
    Fault('the check of a file accepts NaN', 'export/check.py',
          'self.error <= self.tolerance', 'not self.error > self.tolerance', _EXPORT),
    Fault('norms decay', 'configs/_base_/fastervit.py', 'norm_decay_mult=0.',
          'norm_decay_mult=1.', 'tests/configs/test_configs.py'),
    Fault('the weight decay is another', 'configs/mmdet/cascade_fvit.py', 'weight_decay=0.05',
          'weight_decay=0.5', 'tests/configs/test_configs.py'),
    Fault('a segmentor\'s auxiliary head reads another map', 'configs/mmseg/upernet_fvit_0.py',
          'in_channels=256', 'in_channels=512', 'tests/configs/test_segmentors.py'),
    Fault('a config names a file of another variant', 'configs/mmdet/cascade_fvit_3.py',
          'fastervit://3', 'fastervit://2', 'tests/configs/test_configs.py'),
    Fault('importing the package starts a program', '__init__.py', '\nregister()\n',
          "\nregister()\n__import__('subprocess').run(['true'])\n",
          'tests/packaging/test_supply_chain.py'),
    Fault('importing the package silences warnings', '__init__.py', '\nregister()\n',
          "\nregister()\n__import__('warnings').simplefilter('ignore')\n",
          'tests/test_registration.py'),
]


def copied(folder: Path) -> Path:
    """Copy of the working tree, as git would commit it."""
    names = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=REPO,
                           capture_output=True, text=True, check=True).stdout.split('\0')
    for name in filter(None, names):
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPO / name).read_bytes())
    return folder


def run(tests: List[str], folder: Path, *options: str) -> Tuple[int, List[str], str]:
    """Run pytest; return status, failed functions and last output.

    In a fork of this process, which saves the seconds of importing PyTorch.
    """
    with tempfile.TemporaryFile('w+') as said:
        process = os.fork()
        if not process:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            os.chdir(folder)
            sys.path[0] = os.environ['PYTHONPATH'] = str(folder)
            os._exit(pytest.main(['-m', 'not long', '-q', '-p', 'no:cacheprovider', *options,
                                  *tests]))
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        said.seek(0)
        text = said.read()
    failed = sorted(set(re.findall(r'^(?:FAILED|ERROR) ([^\s\[]+)', text, re.M)))
    return status, failed, text[-2000:]


def try_one(fault: Fault, folder: Path) -> dict:
    """Plant a fault in a copy, run its tests, restore."""
    path = folder / fault.file
    path = path if path.is_file() else folder / PACKAGE / fault.file
    text = path.read_text() if path.is_file() else ''
    if fault.old not in text:
        return dict(result='cannot be planted')
    tests = fault.tests.split()
    if not all((folder / name.partition('::')[0]).exists() for name in tests):
        return dict(result='its tests are not there')
    path.write_text(text.replace(fault.old, fault.new, 1))
    try:
        status, failed, said = run(tests, folder, '-x')
    finally:
        path.write_text(text)
    if status == 0:
        return dict(result='not found')
    if not failed:
        return dict(result='no test ran', said=said)
    return dict(result='found', by=failed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', default='', help='text in the file or description of faults')
    parser.add_argument('--out', type=Path, help='JSON file for the results')
    args = parser.parse_args()
    samples = REPO.parent / 'shared/data'
    if samples.is_dir():
        os.environ.setdefault('FASTERVIT_MM_SAMPLES', str(samples))
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = copied(Path(name))
        for fault in FAULTS:
            if args.only not in f'{fault.file}: {fault.about}':
                continue
            began = time.monotonic()
            result = dict(about=fault.about, file=fault.file, **try_one(fault, folder),
                          seconds=round(time.monotonic() - began))
            results.append(result)
            print(f'{result["result"]}: {fault.file}: {fault.about} {result.get("by", "")}',
                  flush=True)
        by = sorted({name for result in results for name in result.get('by', ())})
        broken = run(by, folder)[1] if by else []
    for result in results:
        if set(result.get('by', ())) & set(broken):
            result['result'] = 'its test fails without it'
            print(f'{result["result"]}: {result["file"]}: {result["about"]} {result["by"]}')
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))
    found = sum(result['result'] == 'found' for result in results)
    print(f'{found} of {len(results)} found')
    return int(found < len(results))


if __name__ == '__main__':
    sys.exit(main())
