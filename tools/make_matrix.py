#!/usr/bin/env python3
"""Test several sets of versions and write their table.

Needs only Python's standard library. A row of versions has an environment of its own, made by
make_env.py with the row's Python in some four minutes on two idle cores (twenty with a compiled
mmcv). Figures go to benchmarks/matrix.json, a row at a time, and the table to docs/install.md,
where rows without figures are "not run".
"""
import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / 'benchmarks/matrix.json'
PAGE = ROOT / 'docs/install.md'
BEGIN, END = '<!-- versions: written by tools/make_matrix.py -->', '<!-- end of versions -->'

OPERATORS = ('tests/test_operators.py', 'tests/test_operators_compiled.py',
             'tests/end_to_end/test_other_programs.py')
# Differences from constraints.txt: the oldest supported torch, which does not work with numpy 2;
# the first with weights_only by default; one between; the newest; that of `make env`, with OneDL's
# forks and with a compiled mmcv.
ROWS = {
    'torch-2.1': dict(python='3.10', versions={
        'torch': '2.1.2', 'torchvision': '0.16.2', 'numpy': '1.26.4',
        'opencv-python': '4.11.0.86'}),
    'torch-2.6': dict(python='3.10', versions={'torch': '2.6.0', 'torchvision': '0.21.0'}),
    'torch-2.13': dict(python='3.11', versions={'torch': '2.13.0', 'torchvision': '0.28.0'}),
    'newest': dict(python='3.13', versions={'torch': '2.15.0', 'torchvision': '0.29.2'}),
    'onedl': dict(python='3.11', versions={}, options=['--stack', 'onedl']),
    'compiled': dict(python='3.12', versions={}, options=['--compiled'], tests=OPERATORS),
}
# The tests that another library's version can break: all but those of documents, packaging, the
# browser and long trainings.
TESTS = (
    'tests/backbone', 'tests/weights', 'tests/configs/test_configs.py', 'tests/test_models.py',
    *OPERATORS, 'tests/cases/test_checkpoints.py',
    'tests/test_complexity.py', 'tests/engine/test_launch.py', 'tests/engine/test_onednn.py',
    'tests/engine/test_optimizers.py', 'tests/engine/test_precision.py',
    'tests/engine/test_resuming.py', 'tests/export')
SHOWN = ('torch', 'mmcv', 'mmcv-lite', 'mmengine', 'mmdet', 'mmsegmentation', 'numpy')
VERSIONS = """
import importlib.metadata as m, json, platform
found = dict(python=platform.python_version())
for name in ({names}):
    for distribution in (name, 'onedl-' + dict(mmdet='mmdetection').get(name, name)):
        try:
            found[distribution] = m.version(distribution)
        except m.PackageNotFoundError:
            pass
print(json.dumps(found))
"""


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', nargs='*', choices=ROWS, default=list(ROWS), metavar='ROW',
                        help=f'those to run: {", ".join(ROWS)} (default: all; none after --rows '
                        'only writes the table)')
    parser.add_argument('--folder', type=Path, default=ROOT / 'work_dirs/matrix',
                        help='where the environments are (default: work_dirs/matrix)')
    parser.add_argument('--as-it-is', action='store_true',
                        help='run in the environment that is there, without making it')
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse_args(arguments)
    figures = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    for name in args.rows:
        print(f'[make_matrix] {name}', flush=True)
        figures[name] = run_row(name, args)
        FIGURES.write_text(json.dumps(figures, indent=1) + '\n')
        print(f'[make_matrix] {name}: {outcome(figures[name])}', flush=True)
    PAGE.write_text(with_table(PAGE.read_text(), figures))
    return int(any(not passed(figures[name]) for name in args.rows))


def run_row(name, args):
    """Result of one row, for the table."""
    row, folder = ROWS[name], args.folder.absolute() / name
    python, environment = folder / 'bin/python', dict(os.environ, PYTHONDONTWRITEBYTECODE='1')
    about = dict(date=datetime.date.today().isoformat(), machine=machine(), commit=commit())
    if not args.as_it_is:
        folder.parent.mkdir(parents=True, exist_ok=True)
        constraints = folder.parent / f'{name}.txt'
        constraints.write_text(constrained((ROOT / 'constraints.txt').read_text(),
                                           row['versions']))
        interpreter = find_python(row['python'])
        if interpreter is None:
            return dict(about, error=f'no Python {row["python"]} was found')
        # The machine's constraints would override the row's.
        made = subprocess.run(
            [interpreter, ROOT / 'tools/make_env.py', '--folder', folder, '--constraints',
             constraints, *row.get('options', ())],
            env={**environment, 'PIP_CONSTRAINT': os.devnull}, stderr=subprocess.PIPE, text=True)
        if made.returncode:
            print(made.stderr, file=sys.stderr)
            return dict(about, error='the environment cannot be made: '
                        + first_line(made.stderr))
    names = ', '.join(map(repr, SHOWN))
    about['versions'] = json.loads(subprocess.run(
        [python, '-c', VERSIONS.format(names=names)], check=True, capture_output=True,
        text=True).stdout)
    tests = list(row.get('tests', TESTS))
    report, started = folder.parent / f'{name}.xml', time.time()
    report.unlink(missing_ok=True)
    subprocess.run([python, '-W', 'ignore', '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
                    '-n', 'auto', '--maxprocesses', '4', '--dist', 'loadfile',
                    '--no-loadscope-reorder', f'--junitxml={report}', *tests],
                   cwd=ROOT, env=environment)
    if not report.is_file():
        return dict(about, error='pytest did not start')
    return dict(about, tests=tests, seconds=round(time.time() - started),
                **counted(report.read_text()))


def constrained(text, versions):
    """constraints.txt with other versions of some packages."""
    kept = [line for line in text.splitlines()
            if line.partition('==')[0].strip() not in versions]
    return '\n'.join([*kept, *(f'{name}=={version}' for name, version in versions.items()), ''])


def counted(report):
    """Numbers of tests in a pytest report, and failed tests."""
    counts = dict(passed=0, skipped=0, failed=[])
    for case in ElementTree.fromstring(report).iter('testcase'):
        if case.find('failure') is not None or case.find('error') is not None:
            counts['failed'].append(f'{case.get("classname")}::{case.get("name")}')
        else:
            counts['skipped' if case.find('skipped') is not None else 'passed'] += 1
    return counts


def find_python(version):
    """Working Python of a version: on the PATH, else pyenv's."""
    pyenv = sorted(Path.home().glob(f'.pyenv/versions/{version}.*/bin/python{version}'))
    found = [shutil.which(f'python{version}'), *map(str, pyenv[::-1])]
    # The one on the PATH may be pyenv's shim, which fails for versions that are not selected.
    return next((path for path in found if path and not subprocess.run(
        [path, '-c', ''], capture_output=True).returncode), None)


def passed(figures):
    return not figures.get('error') and not figures['failed'] and figures['passed'] > 0


def outcome(figures):
    """Outcome of a row as text; without figures, 'not run'."""
    if figures is None:
        return 'not run'
    if figures.get('error'):
        return figures['error']
    failed, skipped = len(figures['failed']), figures['skipped']
    text = ', '.join([f'{figures["passed"]} passed'] + [f'{failed} failed'] * bool(failed)
                     + [f'{skipped} skipped'] * bool(skipped))
    if figures['tests'] == list(OPERATORS):
        return f'{text}, of the operators'
    return text if figures['tests'] == list(TESTS) else f'{text}, of an earlier list of tests'


def table(figures):
    lines = ['| Python | torch | mmcv | mmdet, mmsegmentation | numpy | outcome | when |',
             '|---|---|---|---|---|---|---|']
    for name, row in ROWS.items():
        found = figures.get(name)
        versions = (found or {}).get('versions') or dict(row['versions'], python=row['python'])
        cells = [versions['python']]
        for names in (('torch', ), ('mmcv', ), ('mmdet', 'mmsegmentation'), ('numpy', )):
            cells.append(', '.join(shown(n, versions) for n in names))
        lines.append('| ' + ' | '.join([*cells, outcome(found),
                                        found['date'] if found else '–']) + ' |')
    return '\n'.join(lines)


def shown(name, versions):
    onedl = f'onedl-{dict(mmdet="mmdetection").get(name, name)}'
    if onedl in versions:
        return f'{versions[onedl]} (OneDL)'
    return f'{versions[name]} compiled' if name == 'mmcv' and name in versions else versions.get(
        name, versions.get(f'{name}-lite', '–'))


def with_table(text, figures):
    """Page with the table between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f'the page has no "{BEGIN}" and "{END}"')
    return f'{before}{BEGIN}\n\n{table(figures)}\n\n{END}{after}'


def first_line(text):
    return next((line for line in text.splitlines() if line.strip()), 'no message')[:160]


def machine():
    info = Path('/proc/cpuinfo')
    names = [line.partition(':')[2].strip() for line in info.read_text().splitlines()
             if line.startswith('model name')] if info.is_file() else []
    return f'{names[0] if names else platform.machine()}, {os.cpu_count()} cores'


def commit():
    done = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, text=True,
                          capture_output=True)
    return done.stdout.strip() or None


if __name__ == '__main__':
    sys.exit(main())
