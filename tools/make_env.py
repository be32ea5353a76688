#!/usr/bin/env python3
"""Make .venv with everything this project needs, or say what is missing and what to do.

Needs Python's standard library only. Run by `make`; running it again does only what is missing.
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
# Wheels of mmcv that were built here, a folder for each build of torch: compiled ops of one torch
# do not work with another, and pip's own cache does not tell them apart.
WHEELS = CACHE / 'fastervit_mm' / 'wheels'

# Debian's name, Ubuntu's and Fedora's, Google's.
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
BROWSER_REMEDY = ('sudo apt-get install chromium  (Debian), or  '
                  '.venv/bin/python -m playwright install --with-deps chromium')

READY_MADE = """\
Without --compiled nothing is compiled: mmcv's operators are served by torchvision's. Ready-made pairs
of torch and a compiled mmcv, in an environment of your own:
  * OneDL's maintained forks with wheels for CUDA (the same import names; see the README of
    onedl-mmcv for the list):  pip install torch==<version> --index-url <its CUDA index>
    pip install onedl-mmcv --extra-index-url https://mmwheels.onedl.ai/simple/<cuda>-torch<version>/
    pip install 'fastervit_mm[onedl]'
  * OpenMMLab's own wheels of mmcv, which end with torch 2.1 (and want numpy<2):
    pip install torch==2.1.2 torchvision==0.16.2 'numpy<2'
    pip install mmcv==2.1.0 -f https://download.openmmlab.com/mmcv/dist/<cuda>/torch2.1/index.html
    pip install 'fastervit_mm[openmmlab]'"""

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
    """Something this machine lacks; the message holds the remedy."""


def parse_args(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--folder', type=Path, default=VENV,
                        help='the environment (default: .venv of this repository)')
    parser.add_argument('--constraints', type=Path, default=CONSTRAINTS,
                        help='its versions (default: constraints.txt)')
    parser.add_argument('--stack', choices=('openmmlab', 'onedl'), default=STACK,
                        help='OpenMMLab\'s packages or OneDL\'s forks (default: openmmlab)')
    parser.add_argument('--compiled', action='store_true',
                        help='build mmcv with its compiled operators, 10 minutes and a C++ compiler '
                        'more (default: torchvision\'s serve them)')
    return parser.parse_args(arguments)


def choose(args):
    """Take another folder, other versions or other packages than those at the top."""
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


def make_environment(wanted):
    gpu = has_gpu()
    say(f'Making {VENV} with Python {platform.python_version()}: '
        + ('15 minutes on two idle cores, most of them to build mmcv.' if COMPILED else
           '3 to 5 minutes on two idle cores.'))
    make_venv()
    install_torch(gpu)
    say('Installing mmdet, mmsegmentation, this package and its tests (a minute or two).')
    pip('install', '-e', f'{ROOT}[{STACK},test,dev]', '--no-build-isolation')
    if COMPILED:
        if STACK == 'openmmlab':
            pip('uninstall', '--yes', 'mmcv-lite')  # both own the folder mmcv
        install_mmcv(gpu)
    ask_python(f'import fastervit_mm, mmdet.models, mmseg.models\n{CHECK_OPS}',
               'The environment does not work.')
    BROWSER_TRIED.unlink(missing_ok=True)
    STAMP.write_text(json.dumps(wanted))


def check_python():
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        raise Missing(f'Python {platform.python_version()} runs this, but mmcv and mmdet need 3.10 '
                      'to 3.12. Name one:  make demo PYTHON=python3.11')


def fingerprint():
    """What the environment depends on."""
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
            say(f'{VENV.name} was made with Python {version or "that is gone"}; making it anew.')
            shutil.rmtree(VENV)
    if not PYTHON.exists():
        done = subprocess.run([sys.executable, '-m', 'venv', str(VENV)], capture_output=True,
                              text=True)
        if done.returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            raise Missing(f'python -m venv failed:\n{done.stdout}{done.stderr}\nOn Debian and '
                          'Ubuntu:  sudo apt install python3-venv python3-pip')
    pip('install', '--upgrade', 'pip', 'wheel', 'ninja', 'setuptools<81')


def install_torch(gpu):
    torch, vision = pinned('torch'), pinned('torchvision')
    say(f'Installing torch {torch} and torchvision {vision} (a minute or two).')
    # PyTorch's CPU pair spares gigabytes of CUDA libraries, which the registry's brings along. Always
    # a pair: the operators of a torchvision of another build do not load.
    if gpu or not pip('install', f'torch=={torch}+cpu', f'torchvision=={vision}+cpu', '--retries',
                      '1', '--extra-index-url', CPU_INDEX, must=False, quiet=True):
        pip('install', f'torch=={torch}', f'torchvision=={vision}')


def install_mmcv(gpu):
    name = 'onedl-mmcv' if STACK == 'onedl' else 'mmcv'
    version = pinned(name)
    build = ask_python('import torch; print(torch.__version__)', 'torch does not import.')
    wheels = WHEELS / f'torch{build}-{sysconfig.get_platform()}{"-cuda" if gpu else ""}'
    tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    pattern = f'{name.replace("-", "_")}-{version}-{tag}-*.whl'
    kept = sorted(wheels.glob(pattern))
    if kept:
        say(f'Installing {name} {version} that was built here before for torch {build}.')
        pip('install', str(kept[-1]), '--force-reinstall', '--no-deps')
        pip('install', str(kept[-1]))
        if works(CHECK_OPS):
            return
        say('It does not work any more; building it anew.')
    check_compiler(gpu)
    say(f'Building {name} {version} with its compiled ops for torch {build}, once: the longest '
        'step. (A wheel of mmcv that pip kept is not used: it may be of another torch.)')
    wheels.mkdir(parents=True, exist_ok=True)
    environment = dict(MMCV_WITH_OPS='1', MAX_JOBS=os.environ.get('MAX_JOBS', str(os.cpu_count())))
    if gpu:
        environment['FORCE_CUDA'] = '1'
    if tuple(map(int, build.split('+')[0].split('.')[:2])) >= (2, 15):
        environment['CXX'] = str(cpp20_compiler())
    pip('wheel', f'{name}=={version}', '--no-build-isolation', '--no-deps', '--no-cache-dir',
        '--wheel-dir', str(wheels), env=environment)
    kept = sorted(wheels.glob(pattern))
    pip('install', str(kept[-1]), '--force-reinstall', '--no-deps')
    pip('install', str(kept[-1]))
    ask_python(CHECK_OPS, 'mmcv was built, but its ops do not work.')


def cpp20_compiler():
    """A C++ compiler for mmcv, which asks for C++17; torch's headers need C++20 from 2.15 on."""
    path = VENV / 'bin' / 'c++20'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {find_compiler()} "$@" -std=c++20\n')  # the last one counts
    path.chmod(0o755)
    return path


def find_compiler():
    return os.environ.get('CXX') or next(
        (c for c in ('c++', 'g++', 'clang++') if shutil.which(c)), None)


def check_compiler(gpu):
    compiler = find_compiler()
    if compiler is None or shutil.which(compiler.split()[0]) is None:
        raise Missing('mmcv\'s ops must be compiled and there is no C++ compiler.\nOn Debian and '
                      f'Ubuntu:  sudo apt install g++\n{READY_MADE}')
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.is_file():
        raise Missing(f'mmcv\'s ops must be compiled and Python\'s headers are missing ({header}).'
                      f'\nOn Debian and Ubuntu:  sudo apt install python3-dev\n{READY_MADE}')
    home = os.environ.get('CUDA_HOME') or '/usr/local/cuda'
    if gpu and not (shutil.which('nvcc') or (Path(home) / 'bin' / 'nvcc').is_file()):
        cuda = ask_python('import torch; print(torch.version.cuda)', 'torch does not import.')
        raise Missing(
            'this machine has a GPU, so mmcv\'s ops must be built for CUDA, and nvcc is missing.\n'
            f'Install the CUDA toolkit {cuda} (that of the installed torch) and set CUDA_HOME if '
            'it is not in /usr/local/cuda; or hide the GPU for a CPU build: a PATH without '
            f'nvidia-smi.\n{READY_MADE}')


def make_browser():
    """See to a Chromium, which the tests of the page of tools/demo_app.py need and no other does.

    One that is here, else playwright's own, else the system's where nobody has to be asked. It is
    tried once for an environment: without a network every `make` would wait for it.
    """
    if find_browser():
        BROWSER_TRIED.unlink(missing_ok=True)
        return
    if in_ci() or not BROWSER_TRIED.is_file():
        for title, commands in ways_to_a_browser():
            say(f'No Chromium is here for the tests of the page; trying {title}.')
            if all(map(runs, commands)) and find_browser():
                return
    if in_ci():
        raise Missing('CI=true, and there is no Chromium, which the tests of the page of '
                      f'tools/demo_app.py need.\nInstall one:  {BROWSER_REMEDY}')
    BROWSER_TRIED.touch()
    say('Without a Chromium the tests of the page of tools/demo_app.py are skipped. Install one:  '
        + BROWSER_REMEDY)


def find_browser():
    """Path of a Chromium that runs: on the PATH, else one that playwright has downloaded."""
    # Ubuntu's program may only say that it wants a snap; playwright's may lack libraries.
    return next((path for path in [*filter(None, map(shutil.which, BROWSERS)),
                                   *downloaded_browsers()] if runs([path, '--version'], 20)), None)


def downloaded_browsers():
    """Paths of playwright's own, the newest first."""
    named = os.environ.get('PLAYWRIGHT_BROWSERS_PATH')
    folders = [Path(named)] if named else [
        CACHE / 'ms-playwright', Path.home() / 'Library/Caches/ms-playwright']
    return [str(path) for folder in folders for pattern in (
        'chromium-*/*/chrome', 'chromium_headless_shell-*/*/*headless*shell',
        'chromium-*/*/*.app/Contents/MacOS/*') for path in sorted(folder.glob(pattern))[::-1]]


def ways_to_a_browser():
    """What may bring one, and its commands; the first to be tried first."""
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
    """Whether a command ends well, and in time; nobody sees what it says."""
    # Playwright tries five times; where a firewall swallows packets, 5 seconds each and not 30.
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


def pip(*arguments, must=True, quiet=False, env=None):
    command = [str(PYTHON), '-m', 'pip', *arguments, '--disable-pip-version-check', '--quiet']
    if arguments[0] in ('install', 'wheel'):
        command += ['--constraint', str(CONSTRAINTS)]
    done = subprocess.run(command, env={**os.environ, **(env or {})}, text=True,
                          capture_output=True)
    if done.returncode and must:
        tail = '\n'.join((done.stdout + done.stderr).splitlines()[-25:])
        raise Missing(f'pip failed:  {" ".join(command)}\n{tail}\nWithout a network, or behind a '
                      'proxy, set pip\'s index first (pip config set global.index-url ...).')
    if done.returncode and not quiet:
        print(done.stderr, file=sys.stderr)
    return done.returncode == 0


def works(code):
    return subprocess.run([str(PYTHON), '-W', 'ignore', '-c', code], capture_output=True,
                          cwd=str(VENV)).returncode == 0


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
