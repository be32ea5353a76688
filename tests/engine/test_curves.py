"""Curves of real runs, resumed ones too."""
import json
import re
import runpy
import shutil
import sys

import pytest
from matplotlib import image as mpimg
from matplotlib.figure import Figure

from fastervit_mm.engine import curves
from tests.conftest import REPO


def scalars(folder):
    return [json.loads(line) for line in
            (folder / 'vis_data/scalars.json').read_text().splitlines()]


def test_a_resumed_run_is_one_curve(resumed):
    """The first run went to 8, the second from 4 on."""
    first, second = (scalars(folder.parent)
                     for folder in sorted(resumed.work_dir.glob('*/vis_data')))
    found = curves.read_run(resumed.work_dir)
    expected = [(s['iter'], s['loss']) for s in first if 'loss' in s and s['iter'] <= 4] + [
        (s['iter'], s['loss']) for s in second if 'loss' in s]
    assert found['loss'] == expected and [i for i, _ in expected] == [2, 4, 6, 8, 10, 12]
    # The last validation that had ended was at 8, and so the second began with one at 4.
    metrics = [s for s in second if 'mIoU' in s]
    assert found['mIoU'] == [(s['step'], s['mIoU']) for s in metrics]
    assert [i for i, _ in found['mIoU']] == [4, 8, 12]
    for curve in found.values():  # validation's seconds are not among training's
        assert [i for i, _ in curve] == sorted({i for i, _ in curve})
    assert len(found['time']) == 6 and len(found['val/time']) == 3


def test_a_repeated_validation_counts_at_the_iteration_of_the_kill(by_epoch, tmp_path):
    shutil.copytree(by_epoch.work_dir, tmp_path / 'run')
    folder = tmp_path / 'run/99991231_235959/vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('{"coco/bbox_mAP": 0.5, "iter": 8, "epoch": 2}\n')
    found = curves.read_run(tmp_path / 'run')
    assert found['coco/bbox_mAP'][1] == (8, 0.5) and len(found['coco/bbox_mAP']) == 3
    assert [i for i, _ in found['loss']] == [3, 7, 11]  # nothing else is replaced


def test_the_final_figure_shows_the_whole_training(resumed, monkeypatch, tmp_path):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        drawn.append(figure), save(figure, *args, **kwargs)))
    assert curves.plot_run(resumed.work_dir, tmp_path / 'again.png')
    loss, metric = drawn[0].axes
    assert (loss.get_title(), metric.get_title()) == ('loss', 'mIoU')
    assert list(loss.lines[0].get_xdata()) == [2, 4, 6, 8, 10, 12]
    assert list(metric.lines[0].get_xdata()) == [4, 8, 12]
    # What the resumed run left by itself is this very picture.
    assert (mpimg.imread(tmp_path / 'again.png')
            == mpimg.imread(resumed.work_dir / 'curves.png')).all()


def test_metrics_of_an_epoch_stand_at_their_iteration(by_epoch):
    """Also if the last loss was logged an iteration earlier, and after a resumption."""
    found = curves.read_run(by_epoch.work_dir)
    assert [i for i, _ in found['loss']] == [3, 7, 11]
    assert [i for i, _ in found['coco/bbox_mAP']] == [4, 8, 12]
    assert found['epoch'] == [(3, 1), (4, 1), (7, 2), (8, 2), (11, 3), (12, 3)]
    assert curves.headlines(found) == ['coco/bbox_mAP', 'coco/segm_mAP']
    assert (by_epoch.work_dir / 'curves.png').is_file()


def test_a_run_that_was_killed_is_read_to_its_last_whole_line(resumed, tmp_path):
    folder, _ = sorted(resumed.work_dir.glob('*/vis_data'))
    shutil.copytree(folder, tmp_path / 'killed/vis_data')
    with (tmp_path / 'killed/vis_data/scalars.json').open('a') as file:
        file.write('{"lr": 0.0001, "loss": 3.')
    assert curves.read_run(tmp_path / 'killed') == curves.read_run(folder.parent)


def test_a_run_begun_anew_in_its_folder_replaces_the_old(resumed, tmp_path):
    first, second = sorted(resumed.work_dir.glob('*/vis_data'))
    shutil.copytree(second, tmp_path / '20260101_000000/vis_data')  # the older of the two
    shutil.copytree(first, tmp_path / '20260102_000000/vis_data')
    assert curves.read_run(tmp_path) == curves.read_run(first.parent)


def test_runs_are_compared_by_loss_and_main_metrics(resumed, by_epoch):
    found = curves.compare_runs([resumed.work_dir, by_epoch.work_dir])
    assert {key: list(lines) for key, lines in found.items()} == {
        'loss': ['tiny_segmentor', 'tiny_detector'], 'mIoU': ['tiny_segmentor'],
        'coco/bbox_mAP': ['tiny_detector'], 'coco/segm_mAP': ['tiny_detector']}
    assert found['mIoU']['tiny_segmentor'] == curves.read_run(resumed.work_dir)['mIoU']
    chosen = curves.compare_runs([resumed.work_dir, by_epoch.work_dir], ['bbox_mAP_50', 'lr'])
    assert list(chosen) == ['coco/bbox_mAP_50', 'lr'] and len(chosen['lr']) == 2


def test_runs_of_one_name_are_told_apart(resumed):
    first, second = sorted(p.parent for p in resumed.work_dir.glob('*/vis_data'))
    assert list(curves.compare_runs([first, second])['loss']) == [first.name, second.name]
    copy = resumed.work_dir.parent.parent / 'other' / resumed.work_dir.name
    shutil.copytree(resumed.work_dir, copy, ignore=shutil.ignore_patterns('*.pth'))
    assert list(curves.compare_runs([resumed.work_dir, copy])['loss']) == [
        'work_dirs/tiny_segmentor', 'other/tiny_segmentor']


def plot_logs(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['plot_logs.py', *map(str, arguments)])
    runpy.run_path(str(REPO / 'tools/plot_logs.py'), run_name='__main__')


def test_the_tool_draws_runs_and_prints_their_last_values(resumed, by_epoch, monkeypatch, tmp_path,
                                                          capsys):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        drawn.append(figure), save(figure, *args, **kwargs)))
    target = tmp_path / 'new' / 'both.png'
    plot_logs(monkeypatch, resumed.work_dir, by_epoch.work_dir, '--out', target, '--keys', 'loss',
              'mIoU')
    loss, metric = drawn[0].axes
    assert [line.get_label() for line in loss.lines] == ['tiny_segmentor', 'tiny_detector']
    assert (loss.get_title(), metric.get_title()) == ('loss', 'mIoU')
    assert metric.lines[0].get_color() == loss.lines[0].get_color() != loss.lines[1].get_color()
    assert mpimg.imread(target).std() > 0.05
    said = capsys.readouterr().out
    last = curves.read_run(by_epoch.work_dir)['loss'][-1]
    assert re.search(rf'loss +│ tiny_detector +│ +11 │ +{last[1]:.4g} ', said)
    last = curves.read_run(resumed.work_dir)['loss'][-1]
    assert re.search(rf'loss +│ tiny_segmentor +│ +12 │ +{last[1]:.4g} ', said)
    assert str(target) in said


@pytest.mark.parametrize('arguments, message', [
    (('nowhere', ), "run='nowhere': no such folder"),
    (('EMPTY', ), 'nothing was logged here; give a work directory'),
    (('RUN', '--keys', 'top5'), "keys='top5': not in any run. Give some of .*mIoU"),
    (('RUN', 'RUN'), 'give each once'),
])
def test_undrawable_runs_are_one_line(arguments, message, resumed, monkeypatch, tmp_path):
    names = dict(RUN=resumed.work_dir, EMPTY=tmp_path)
    with pytest.raises(SystemExit, match=message) as caught:
        plot_logs(monkeypatch, *(names.get(a, a) for a in arguments), '--out', tmp_path / 'a.png')
    assert caught.value.code.startswith('plot_logs: ')
    assert not (tmp_path / 'a.png').exists()
