"""Each row of cases.py: the user's view, nothing lost, no code run."""
import fnmatch
import os
import re
import shlex
import shutil

import pytest
import torch

from fastervit_mm import FasterViT, get_config
from fastervit_mm.weights import CheckpointError, load_backbone
from tests.bad_input import workshop
from tests.bad_input.cases import PARTS, TOGETHER, Case
from tests.running import run_tool

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')
NAMES = dict(FasterViT=FasterViT, get_config=get_config, torch=torch, load_backbone=load_backbone)
ERRORS = dict(ValueError=ValueError, CheckpointError=CheckpointError)
# What a run that was stopped may leave: its config and log, and predictions of other inputs.
NEW = ('work_dirs/*/*.py', 'work_dirs/*/20*/*', 'work_dirs/*/20*/vis_data/*', 'out/*')


def rows(chosen):
    return [pytest.param(case, id=f'{part}: {case.given}') for part, cases in PARTS.items()
            for case in cases if chosen(part, case)]


def in_python(part, case):
    return case.command.startswith('(')


def together_with_others(part, case):
    return part in TOGETHER


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shop')
    workshop.furnish(folder)
    return folder


def furnished(shop, folder, *cases):
    """A folder with the common files, an earlier run's results, and the files of these rows."""
    shutil.copytree(shop, folder, dirs_exist_ok=True, copy_function=os.link)
    shutil.rmtree(folder / 'data')
    shutil.copytree(shop / 'data', folder / 'data')  # some rows change it
    earlier = folder / 'work_dirs/detector'
    earlier.mkdir(parents=True)
    (earlier / 'epoch_1.pth').write_text('of an earlier run')
    (earlier / 'last_checkpoint').write_text('epoch_1.pth')
    for case in cases:
        case.make(folder)
    return folder


def contents(folder):
    """Every file's bytes, and where links lead."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = (
                os.readlink(path) if os.path.islink(path) else open(path, 'rb').read())
    return found


def check_nothing_lost(before, folder):
    after = contents(folder)
    assert {name: data for name, data in after.items() if name in before} == before
    assert not (folder / workshop.RAN).exists(), 'code in a file was run'
    new = [name for name in after if name not in before and not any(
        fnmatch.fnmatch(name, pattern) for pattern in NEW)]
    assert not new


def fits(sees, line):
    return re.fullmatch('.*'.join(map(re.escape, sees.split('…'))), line.strip()) is not None


@pytest.mark.parametrize('case', rows(
    lambda *row: not in_python(*row) and not together_with_others(*row)))
def test_typed_in_a_terminal(case: Case, shop, tmp_path):
    folder = furnished(shop, tmp_path / 'here', case)
    before = contents(folder)
    tool, *arguments = shlex.split(case.command)
    done = run_tool(tool, *arguments, cwd=folder)
    assert done.returncode == case.status, done.output
    assert 'Traceback' not in done.output
    said, report = done.stderr.strip().splitlines(), done.stdout.splitlines()
    if case.status == 1 and said:
        assert len(said) == 1, done.stderr
    # A report, such as of annotations, has a line for each kind of problem.
    lines = said[-1:] if said else report
    assert any(fits(case.sees, line) for line in lines), done.output
    assert case.begins or 'Checkpoints will be saved to' not in done.stdout, 'training began'
    check_nothing_lost(before, folder)


@pytest.mark.parametrize('case', rows(in_python))
def test_called_in_python(case: Case, shop, tmp_path, monkeypatch):
    folder = furnished(shop, tmp_path / 'here', case)
    monkeypatch.chdir(folder)
    before = contents(folder)
    with pytest.raises(ERRORS[case.status]) as caught:
        eval(case.command, dict(NAMES))
    assert fits(case.sees, f'{type(caught.value).__name__}: {caught.value}')
    check_nothing_lost(before, folder)


def network_and_input(case):
    _, config, _, name, *_ = shlex.split(case.command)
    return config.removesuffix('.py'), name


@pytest.fixture(scope='module')
def together(shop, tmp_path_factory):
    """One run of each network on the images and videos of all rows, and its results."""
    runs, cases_of = {}, {}
    for case in (case for part in TOGETHER for case in PARTS[part]):
        cases_of.setdefault(network_and_input(case)[0], []).append(case)
    for network, cases in cases_of.items():
        folder = furnished(shop, tmp_path_factory.mktemp(network), *cases)
        before = contents(folder)
        inputs = [network_and_input(case)[1] for case in cases]
        done = run_tool('infer.py', f'{network}.py', f'{network}.pth', *inputs, '--out', 'out',
                        '--device', 'cpu', cwd=folder)
        assert done.returncode == 1 and 'Traceback' not in done.output
        check_nothing_lost(before, folder)
        head, *lines = done.stderr.splitlines()
        failed = [case for case in cases if case.status == 1]
        if len(failed) == 1:
            lines = [head.replace('infer: ', '  ').replace(' gave no prediction', '')]
        else:
            assert head == f'infer: {len(failed)} inputs gave no prediction:'
        assert len(lines) == len(failed)
        runs[network] = folder, lines
    return runs


@pytest.mark.parametrize('case', rows(together_with_others))
def test_a_bad_image_among_many(case: Case, together):
    network, name = network_and_input(case)
    folder, lines = together[network]
    drawn = folder / 'out/vis' / f'{os.path.splitext(name)[0]}.jpg'
    if case.status == 0:
        assert drawn.is_file() and fits(case.sees, workshop.size(drawn))
    else:
        line, = (line for line in lines if line.startswith(f'  {name}: '))
        alone = case.sees.replace(f'infer: {name} gave no prediction: ', f'{name}: ')
        assert fits(alone, line) and not drawn.exists()
