#!/usr/bin/env python3
"""Make .venv with everything this project needs.

Or say what is missing and what to do. Needs only Python's standard library. Run by `make`; running
it again does only what is left.
"""
import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
STAMP = VENV / 'made_by_make_env.json'
BROWSER_TRIED = VENV / 'no_browser_was_found'
CONSTRAINTS = ROOT / 'constraints.txt'
# The extra of setup.py that brings mmdet and mmseg.
STACK = 'openmmlab'
COMPILED = False
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'
# Debian's name, Ubuntu's and Fedora's, Google's.
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
BROWSER_REMEDY = ('sudo apt-get install chromium  (Debian), or  '
                  '.venv/bin/python -m playwright install --with-deps chromium')

CHECK_OPS = """
import fastervit_mm, torch
from mmcv.ops import nms, roi_align
devices = ['cpu'] + (['cuda'] if torch.cuda.is_available() else [])
for device in devices:
    boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 10., 10.], [20., 20., 30., 30.]]).to(device)
    kept = nms(boxes, torch.tensor([.9, .8, .7]).to(device), iou_threshold=.5)[1].tolist()
    assert kept == [0, 2], kept
    x = torch.ones(1, 1, 8, 8, device=device, requires_grad=True)
    y = roi_align(x, torch.tensor([[0., 0., 0., 4., 4.]], device=device), (2, 2))
    assert torch.allclose(y, torch.ones_like(y)), y
    y.sum().backward()
"""


class Missing(Exception):
    """Something this machine lacks; the message has the remedy."""


def parse_args(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, default=VENV,
                        help='the environment (default: .venv of this repository)')
    parser.add_argument('--constraints', type=Path, default=CONSTRAINTS,
                        help='its versions (default: constraints.txt)')
    parser.add_argument('--stack', choices=('openmmlab', 'onedl'), default=STACK,
                        help='OpenMMLab\'s packages or OneDL\'s forks (default: openmmlab)')
    parser.add_argument('--compiled', action='store_true',
                        help='build mmcv with its operators, 10 to 20 minutes more and a C++ '
                        'compiler (default: torchvision\'s serve them)')
    return parser.parse_args(arguments)


def choose(args):
    """Replace the defaults above by arguments."""
    global VENV, PYTHON, STAMP, BROWSER_TRIED, CONSTRAINTS, STACK, COMPILED
    here, COMPILED = VENV, args.compiled
    VENV, CONSTRAINTS, STACK = args.folder.absolute(), args.constraints.absolute(), args.stack
    PYTHON, STAMP, BROWSER_TRIED = (
        VENV / path.relative_to(here) for path in (PYTHON, STAMP, BROWSER_TRIED))


def main(arguments=()):
    started = time.time()
    if arguments:
        choose(parse_args(arguments))
    try:
        check_python()
        wanted = fingerprint()
        if STAMP.is_file() and json.loads(STAMP.read_text()) == wanted:
            say(f'{VENV.name} is up to date ({wanted["python"]}).')
        else:
            make_environment(wanted)
            say(f'Environment ready after {(time.time() - started) / 60:.1f} minutes.')
        make_browser()
        return 0
    except Missing as error:
        print(f'\nmake_env: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nmake_env: stopped; the same command goes on with what is installed',
              file=sys.stderr)
        return 130


def make_environment(wanted):
    say(f'Making {VENV} with Python {platform.python_version()}: '
        f'{"15 to 25 minutes" if COMPILED else "2 to 5 minutes"} on two idle cores.')
    make_venv()
    install_torch()
    if COMPILED:
        build_mmcv()
    say('Installing mmdet, mmsegmentation, this package and its tests (a minute or two).')
    pip('install', '-e', f'{ROOT}[{STACK},test,dev]', '--no-build-isolation')
    ask_python(f'import fastervit_mm, mmdet.models, mmseg.models\n{CHECK_OPS}',
               'The environment does not work.')
    BROWSER_TRIED.unlink(missing_ok=True)
    STAMP.write_text(json.dumps(wanted))


def check_python():
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise Missing(f'Python {platform.python_version()} runs this, but it needs 3.10 to 3.13. '
                      'Name one:  make demo PYTHON=python3.12')


def fingerprint():
    """Everything that the environment depends on."""
    digest = hashlib.sha256()
    for file in (CONSTRAINTS, ROOT / 'setup.py'):
        digest.update(file.read_bytes())
    return dict(python=f'Python {platform.python_version()}', root=str(ROOT), gpu=has_gpu(),
                stack=STACK, compiled=COMPILED,
                requirements=digest.hexdigest())


def has_gpu():
    if shutil.which('nvidia-smi') is None:
        return False
    return subprocess.run(['nvidia-smi', '-L'], capture_output=True).returncode == 0


def make_venv():
    if PYTHON.exists():
        version = subprocess.run([PYTHON, '-c', 'import platform as p; print(p.python_version())'],
                                 capture_output=True, text=True).stdout.strip()
        if version != platform.python_version():
            say(f'{VENV.name} was made with Python {version or "that is gone"}; making it again.')
            shutil.rmtree(VENV)
    if not PYTHON.exists():
        done = subprocess.run([sys.executable, '-m', 'venv', str(VENV)], capture_output=True,
                              text=True)
        if done.returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            said = done.stdout + done.stderr
            raise Missing(f'python -m venv failed:\n{said}' + (
                '' if 'Errno' in said else  # such as no permission to write
                '\nOn Debian and Ubuntu:  sudo apt install python3-venv python3-pip'))
    pip('install', '--upgrade', 'pip', 'wheel', 'setuptools<81')


def install_torch():
    torch, vision = pinned('torch'), pinned('torchvision')
    say(f'Installing torch {torch} and torchvision {vision}.')
    # PyTorch's CPU builds save gigabytes of CUDA libraries, which the registry's bring. Both come
    # from one source: torchvision's operators do not load with another build of torch.
    if has_gpu() or not pip(
            'install', f'torch=={torch}+cpu', f'torchvision=={vision}+cpu', '--retries', '1',
            '--extra-index-url', CPU_INDEX, must=False):
        # === excludes a local CPU build, which == would prefer.
        pip('install', f'torch==={torch}', f'torchvision==={vision}')


def build_mmcv():
    name = 'onedl-mmcv' if STACK == 'onedl' else 'mmcv'
    for what, there, package in (
            ('a C++ compiler', find_compiler(), 'g++'),
            ('Python\'s headers', (Path(sysconfig.get_path('include')) / 'Python.h').is_file(),
             'python3-dev'),
            ('nvcc', not has_gpu() or shutil.which('nvcc'), 'nvidia-cuda-toolkit')):
        if not there:
            raise Missing(f'--compiled needs {what}. On Debian and Ubuntu:  sudo apt install '
                          f'{package}\nWithout --compiled nothing has to be built.')
    say(f'Building {name} {pinned(name)} with its operators, 10 to 20 minutes.')
    environment = dict(MMCV_WITH_OPS='1', MAX_JOBS=os.environ.get('MAX_JOBS', str(os.cpu_count())))
    if has_gpu():
        environment['FORCE_CUDA'] = '1'
    if tuple(map(int, pinned('torch').split('.')[:2])) >= (2, 14):
        environment['CXX'] = str(cpp20_compiler())
    pip('install', 'ninja')
    # pip would cache the build, and reuse it for any other torch.
    pip('install', f'{name}=={pinned(name)}', '--no-build-isolation', '--no-cache-dir',
        env=environment)


def cpp20_compiler():
    """Compiler that forces C++20 for mmcv, which asks for C++17.

    torch's headers need C++20 from 2.14 on.
    """
    path = VENV / 'bin' / 'c++20'
    path.write_text(f'#!/bin/sh\nexec {find_compiler()} "$@" -std=c++20\n')  # the last one counts
    path.chmod(0o755)
    return path


def find_compiler():
    return os.environ.get('CXX') or next(filter(shutil.which, ('c++', 'g++', 'clang++')), None)


def make_browser():
    """Provide a Chromium for the tests of tools/demo_app.py.

    An installed one, else playwright's, else the system's package if no password is needed. This is
    tried once for an environment: without a network every `make` would wait for it.
    """
    if find_browser():
        BROWSER_TRIED.unlink(missing_ok=True)
        return
    if in_ci() or not BROWSER_TRIED.is_file():
        for title, commands in ways_to_a_browser():
            say(f'There is no Chromium for the tests of tools/demo_app.py; trying {title}.')
            if all(map(runs, commands)) and find_browser():
                return
    if in_ci():
        raise Missing('CI=true, and there is no Chromium, which the tests of tools/demo_app.py '
                      f'need.\nInstall one:  {BROWSER_REMEDY}')
    BROWSER_TRIED.touch()
    say('Without a Chromium the tests of tools/demo_app.py are skipped. Install one:  '
        + BROWSER_REMEDY)


def find_browser():
    """Path of a working Chromium: on the PATH, else playwright's."""
    # Ubuntu's program may only ask for a snap; playwright's may lack libraries.
    return next((path for path in [*filter(None, map(shutil.which, BROWSERS)),
                                   *downloaded_browsers()] if runs([path, '--version'], 20)), None)


def downloaded_browsers():
    """Paths of playwright's browsers, the newest first."""
    named = os.environ.get('PLAYWRIGHT_BROWSERS_PATH')
    folders = [Path(named)] if named else [
        CACHE / 'ms-playwright', Path.home() / 'Library/Caches/ms-playwright']
    return [str(path) for folder in folders for pattern in (
        'chromium-*/*/chrome', 'chromium_headless_shell-*/*/*headless*shell',
        'chromium-*/*/*.app/Contents/MacOS/*') for path in sorted(folder.glob(pattern))[::-1]]


def ways_to_a_browser():
    """Ways to install a browser and their commands, preferred first."""
    playwright = [str(PYTHON), '-m', 'playwright']
    yield 'playwright\'s own', [[*playwright, 'install', '--only-shell', 'chromium']]
    root = [] if os.geteuid() == 0 else ['sudo', '-n']
    if not (shutil.which('apt-get') and runs([*root, 'true'], 10)):
        return
    apt = [*root, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-o',
           'Acquire::http::Timeout=15', '-o', 'Acquire::Retries=1']
    yield 'the system\'s package (apt-get install chromium)', [
        [*apt, 'update'], [*apt, 'install', '--yes', '--no-install-recommends', 'chromium']]
    if downloaded_browsers():
        yield 'the libraries of playwright\'s own', [[*playwright, 'install-deps', 'chromium']]


def in_ci():
    return os.environ.get('CI') == 'true'


def runs(command, seconds=900):
    """Whether a command succeeds in time; its output is hidden."""
    # Playwright tries five times; if a firewall drops packets, 5 seconds each instead of 30.
    environment = {**os.environ, 'PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT': '5000'}
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=seconds, env=environment).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def pinned(name):
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith(f'{name}=='):
            return line.split('==')[1].split(';')[0].strip()
    raise Missing(f'{CONSTRAINTS.name} names no version of {name}.')


def pip(*arguments, must=True, env=None):
    """Run pip, with a line of progress every ten seconds."""
    # Compiling bytecode would take a minute, mostly for modules never imported.
    command = [str(PYTHON), '-m', 'pip', *arguments, '--disable-pip-version-check', '--no-compile',
               '--progress-bar', 'off', '--constraint', str(CONSTRAINTS)]
    lines, started = [''], time.time()
    site = next(VENV.glob('lib/python*/site-packages'))
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1', **(env or {})}
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as done:
        reader = threading.Thread(target=lambda: lines.extend(done.stdout))
        reader.start()
        while reader.join(10) or reader.is_alive():
            newest = max(site.iterdir(), key=os.path.getmtime).name
            line = lines[-1].strip().replace('Installing collected packages', f'Unpacking {newest}')
            say(f'{time.time() - started:4.0f} s  {line[:80]}')
    if done.returncode and must:
        raise Missing(f'pip failed:  {" ".join(command)}\n{"".join(lines[-25:])}Without a network, '
                      'or behind a proxy, set pip\'s index first (pip config set global.index-url '
                      '...).')
    return done.returncode == 0


def ask_python(code, failure):
    done = subprocess.run([str(PYTHON), '-W', 'ignore', '-c', code], capture_output=True,
                          text=True, cwd=str(VENV))
    if done.returncode:
        raise Missing(f'{failure}\n{done.stderr[-2000:]}\nIf it persists:  make distclean, then '
                      'again.')
    return done.stdout.strip()


def say(text):
    print(f'[make_env] {text}', flush=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
