"""The table of versions: outcomes come from runs, and other rows are marked."""
import json

import pytest

from tests.conftest import REPO, load_make_env, load_program


@pytest.fixture
def matrix():
    return load_program('tools/make_matrix.py')


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="one"/><testcase classname="tests.a" name="two"/>
<testcase classname="tests.a" name="three"><failure message="no"/></testcase>
<testcase classname="tests.b" name="four"><skipped/></testcase>
<testcase classname="" name="tests.c"><error message="import"/></testcase>
</testsuite></testsuites>"""


def test_the_page_has_the_rows_that_were_run(matrix):
    figures = json.loads(matrix.FIGURES.read_text())
    assert set(figures) <= set(matrix.ROWS)
    page = matrix.PAGE.read_text()
    assert page == matrix.with_table(page, figures), 'run  python tools/make_matrix.py --rows'
    for name, found in figures.items():
        assert found['date'] and found['machine']
        wanted = {**matrix.ROWS[name]['versions'], 'python': matrix.ROWS[name]['python']}
        for package in {'python', 'torch', 'numpy'} & set(wanted) if 'versions' in found else ():
            # A figure of other versions is another row's.
            assert found['versions'][package].split('+')[0].startswith(wanted[package]), package


def test_a_row_that_was_not_run_is_marked(matrix):
    rows = matrix.table({}).splitlines()[2:]
    assert len(rows) == len(matrix.ROWS)
    assert all(row.endswith('| not run | – |') for row in rows)
    assert '| 3.10 | 2.1.2 | – | –, – | 1.26.4 |' in rows[0]


@pytest.mark.parametrize('distribution, cell', [
    ('mmcv', '2.1.0 compiled'), ('mmcv-lite', '2.1.0'), ('onedl-mmcv', '2.1.0 (OneDL)')])
def test_the_table_names_the_mmcv(matrix, distribution, cell):
    assert matrix.shown('mmcv', {distribution: '2.1.0'}) == cell


def test_failures_errors_and_skips_are_counted_and_fail_the_run(matrix):
    counts = dict(matrix.counted(REPORT), tests=list(matrix.TESTS))
    assert counts['passed'] == 2 and counts['failed'] == ['tests.a::three', '::tests.c']
    assert matrix.outcome(counts) == '2 passed, 2 failed, 1 skipped'
    assert not matrix.passed(counts) and matrix.passed(dict(counts, failed=[]))
    assert not matrix.passed(dict(counts, failed=[], passed=0))
    assert matrix.outcome(dict(counts, tests=['tests/a'])).endswith(', of an earlier list of tests')
    assert matrix.outcome(dict(counts, tests=list(matrix.OPERATORS))).endswith(', of the operators')


def test_a_row_is_made_with_its_python_and_versions(matrix, tmp_path, monkeypatch):
    """make_env.py gets both; if it fails, its message is the outcome."""
    monkeypatch.setattr(matrix, 'find_python', lambda version: str(tmp_path / 'python'))
    (tmp_path / 'python').write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
                                     'echo "make_env: no compiler" >&2\nexit 1\n')
    (tmp_path / 'python').chmod(0o755)
    monkeypatch.setattr(matrix, 'FIGURES', tmp_path / 'matrix.json')
    page = tmp_path / 'page.md'
    page.write_text(f'a\n{matrix.BEGIN}\nold\n{matrix.END}\nb\n')
    monkeypatch.setattr(matrix, 'PAGE', page)
    assert matrix.main(['--rows', 'torch-2.1', '--folder', str(tmp_path / 'rows')]) == 1
    versions = (tmp_path / 'rows/torch-2.1.txt').read_text().splitlines()
    assert [line for line in versions if line.startswith(('torch==', 'numpy=='))] == [
        'torch==2.1.2', 'numpy==1.26.4'] and 'mmcv==2.1.0' in versions
    asked = (tmp_path / 'asked').read_text()
    assert f'--folder {tmp_path}/rows/torch-2.1 ' in asked and '--stack' not in asked
    assert 'the environment cannot be made: make_env: no compiler' in page.read_text()
    assert page.read_text().startswith('a\n') and page.read_text().endswith('b\n')


def test_a_python_that_does_not_run_is_passed_over(matrix, tmp_path, monkeypatch):
    """As pyenv's shim for a version that is installed but not selected, first on the PATH."""
    for name, body in (('first/python3.10', 'exit 127'),
                       ('home/.pyenv/versions/3.10.1/bin/python3.10', 'exit 0')):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f'#!/bin/sh\n{body}\n')
        path.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}/first:/bin:/usr/bin')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert matrix.find_python('3.10') == str(path)
    path.unlink()
    assert matrix.find_python('3.10') is None


def test_make_env_takes_a_folder_versions_and_a_stack(tmp_path, monkeypatch):
    make_env = load_make_env()
    assert make_env.parse_args([]).folder == REPO / '.venv'
    (tmp_path / 'versions.txt').write_text('torch==2.1.2\nonedl-mmcv==1\n')
    make_env.choose(make_env.parse_args(
        ['--folder', str(tmp_path / 'env'), '--constraints', str(tmp_path / 'versions.txt'),
         '--stack', 'onedl']))
    assert make_env.PYTHON == tmp_path / 'env/bin/python'
    assert make_env.STAMP.parent == tmp_path / 'env' and make_env.pinned('torch') == '2.1.2'
    assert make_env.fingerprint()['stack'] == 'onedl'
