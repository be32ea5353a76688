"""The GPU steps rehearsed on a CPU at small sizes: their reports, and what they skip."""
import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPO
from tests.running import run_tool

RUN = REPO / 'benchmarks/gpu/run.sh'


def left_in(folder):
    """JSON and table that a step wrote."""
    (path,) = folder.glob('*.json')
    return json.loads(path.read_text()), path.with_suffix('.txt').read_text()


def values(report, part):
    return {row['case']: row['value'] for row in report['rows']
            if row['part'] == part and row['value'] is not None}


@pytest.fixture(scope='module')
def reports(tmp_path_factory):
    """Each step's report, made when it is first asked for."""
    made = {}

    def of(step):
        if step not in made:  # what run.sh calls, without its seconds
            folder = tmp_path_factory.mktemp(f'step{step}')
            done = run_tool('benchmarks.gpu', step, '--rehearse', '--out', folder,
                            cwd=folder, environment=dict(CUDA_VISIBLE_DEVICES=''))
            made[step] = *left_in(folder), done
        report, table, done = made[step]
        wrong = [row for row in report['rows'] if row['state'] in ('fail', 'error', 'left out')]
        assert not wrong and done.returncode == 0, (wrong, done.stderr[-2000:])
        assert report['rehearsal'] and report['passed'] and table
        return report
    return of


def test_correctness_compares_maps_attention_and_replays(reports):
    report = reports(1)
    assert set(values(report, 'maps')) == {'width 16, 70 x 101', 'width 20, 70 x 101'}
    row = next(row for row in report['rows'] if row['case'] == 'width 20, 70 x 101')
    assert len(row['detail']['distances']) == 7 and 0 < row['value'] < 1
    tokens = {case.split(', ')[1] for case in values(report, 'attention')}
    assert tokens == {'49 tokens', '53 tokens', '64 tokens'}
    assert any(case.endswith('chosen') for case in values(report, 'attention'))
    assert len(values(report, 'graph')) == 4


def test_training_falls_and_compiles_to_few_graphs(reports):
    report = reports(2)
    mixed = values(report, 'mixed precision')
    assert all(mixed[f'{name}, 6 steps'] < 0.95 for name in ('float32', 'bfloat16', 'float16'))
    assert values(report, 'with_cp')['compiled: statistics moved'] == 1
    assert values(report, 'compile')['2 sizes, training: graphs'] in (1, 2)
    assert {'gradients', 'bfloat16, with_cp, 6 steps'} == set(values(report, 'DDP'))


def test_kernels_are_named_and_timed(reports):
    report = reports(3)
    row = next(row for row in report['rows'] if row['case'] == 'width 16, deployed')
    assert 'flash' in row['note'] and len(row['detail']['shapes']) == 3
    assert values(report, 'chosen').keys() >= {'width 16, training', 'width 20'}
    assert len(next(row for row in report['rows'] if row['part'] == 'plan')['detail'][
        'extra_seconds']) == 20
    assert all(value > 0 for value in values(report, 'time').values())
    assert {'heads of 10: attention, as PyTorch chooses', 'whole network, folded'} < set(
        values(report, 'padding'))


@pytest.mark.parametrize('step, batches', [(4, (2, 1)), (5, (1,))])
def test_speed_has_ratios_for_the_targets(reports, step, batches, authors):
    report = reports(step)
    assert len(report['results']) == 4 * len(batches)
    assert all(r['images_per_second'] > 0 for r in report['results'])
    targets = values(report, 'target')
    seconds = {(r['model'], r['mode'], r['batch']): r['seconds'] for r in report['results']}
    for batch in batches:
        assert targets[f'64 x 64, batch {batch}: ours compiled beside the authors\' eager AMP'] == (
            pytest.approx(seconds['authors-0', 'eager', batch]
                          / seconds['fastervit-0', 'channels_last+deployed', batch]))


def test_profiles_count_operators_and_groups(reports):
    report = reports(6)
    counts = {case: value for case, value in values(report, 'profile').items()
              if case.endswith(': operators')}
    eager, deployed = (counts[f'{mode}, 64 x 64, batch 1: operators']
                       for mode in ('eager', 'deployed'))
    assert 0 < deployed < eager
    groups = {row['case'].split(':')[0]: row['detail']['groups'] for row in report['rows']
              if row['case'].endswith(': optimizer')}
    assert groups['merged'] == 2 and groups['default'] > 50


def test_detectors_are_compared_and_trained(reports):
    report = reports(7)
    parts = {case.rpartition(': ')[2] for case in values(report, 'equal')}
    assert parts == {'losses', 'gradients', 'predictions', 'masks'}
    # Two ways to compute: not the same numbers compared with themselves.
    assert all(value > 0 for case, value in values(report, 'equal').items() if 'losses' in case)
    trained = {case: value for case, value in values(report, 'training').items()
               if case.endswith('batch 1')}
    assert len(trained) == 4 and all(value > 0 for value in trained.values())


@pytest.mark.parametrize('step', range(1, 8))
def test_reports_name_the_machine_and_what_needs_a_gpu(reports, step):
    report = reports(step)
    assert report['machine']['cpu'] and report['machine']['torch'] and report['date']
    assert report['machine']['gpu'] is None and '--rehearse' in report['command']
    skipped = [row for row in report['rows'] if row['state'] == 'skipped']
    assert any('CUDA' in row['note'] for row in skipped)


def test_a_step_out_of_time_names_the_rows_it_left_out(tmp_path):
    """By its name, and through the shell."""
    done = subprocess.run(
        [RUN, 'training', '--budget', '0.1', '--rehearse', '--out', tmp_path], capture_output=True,
        text=True, env={**os.environ, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': ''})
    report, table = left_in(tmp_path)
    left_out = [row for row in report['rows'] if row['state'] == 'left out']
    assert len(left_out) >= 6 and done.returncode == 0
    assert 'left out' in table and report['counts']['left out'] == len(left_out)


def test_an_unknown_step_is_named():
    done = subprocess.run([RUN, 'speed'], capture_output=True, text=True,
                          env={**os.environ, 'PYTHON': sys.executable})
    assert done.returncode == 2 and "'speed': give some of 1, 2, 3, 4, 5, 6, 7" in done.stderr
