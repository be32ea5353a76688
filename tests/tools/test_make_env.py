"""tools/make_env.py: its checks, and its messages about missing parts.

That it makes a working environment is seen by every run of this suite: `make test` uses it.
"""
import json
import subprocess

import pytest

from tests.conftest import load_make_env, needs_compiler


@pytest.fixture
def make_env():
    return load_make_env()


def program(folder, name, body):
    file = folder / name
    file.write_text(f'#!/bin/sh\n{body}\n')
    file.chmod(0o755)


def test_a_python_that_is_too_new_is_named(make_env, monkeypatch):
    monkeypatch.setattr(make_env.sys, 'version_info', (3, 14, 0))
    with pytest.raises(make_env.Missing, match='make demo PYTHON=python3.12'):
        make_env.check_python()


def test_a_missing_build_tool_is_named_with_the_remedy(make_env, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(make_env.Missing, match='needs a C.. compiler.*apt install g..\n'):
        make_env.build_mmcv()
    program(tmp_path, 'c++', 'true')
    with monkeypatch.context() as patch:
        patch.setattr(make_env.sysconfig, 'get_path', lambda name: str(tmp_path))
        with pytest.raises(make_env.Missing, match='apt install python3-dev'):
            make_env.build_mmcv()
    program(tmp_path, 'nvidia-smi', 'echo GPU 0')
    with pytest.raises(make_env.Missing, match='needs nvcc'):
        make_env.build_mmcv()


@pytest.mark.parametrize('body, expected', [('echo GPU 0', True), ('exit 9', False)])
def test_a_gpu_is_one_that_the_driver_lists(make_env, monkeypatch, tmp_path, body, expected):
    program(tmp_path, 'nvidia-smi', body)
    monkeypatch.setenv('PATH', f'{tmp_path}:/bin:/usr/bin')
    assert make_env.has_gpu() is expected


@needs_compiler
@pytest.mark.parametrize('torch, standard', [('2.13.0', 201703), ('2.14.1', 202002)])
def test_mmcv_is_built_by_the_standard_that_torch_needs(make_env, monkeypatch, tmp_path, torch,
                                                        standard):
    """mmcv 2.1 asks for C++17, with which headers of torch 2.14 do not compile."""
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'versions.txt').write_text(f'torch=={torch}\nmmcv==2.1.0\n')
    make_env.choose(make_env.parse_args(['--folder', str(tmp_path), '--constraints',
                                         str(tmp_path / 'versions.txt')]))
    program(tmp_path / 'bin', 'python', f'echo "${{CXX:-c++}} $*" >> {tmp_path}/asked')
    (tmp_path / 'lib/python3/site-packages').mkdir(parents=True)
    make_env.build_mmcv()
    asked = (tmp_path / 'asked').read_text().splitlines()[-1]
    assert 'mmcv==2.1.0 --no-build-isolation --no-cache-dir' in asked
    seen = subprocess.run([asked.split()[0], '-std=c++17', '-x', 'c++', '-E', '-'],
                          input='__cplusplus', capture_output=True, text=True, check=True).stdout
    assert seen.splitlines()[-1] == f'{standard}L'


def test_torch_comes_with_the_torchvision_of_its_index(make_env, tmp_path, capsys):
    """PyPI's pair if PyTorch's index is out of reach, and no CPU build without the other."""
    make_env.choose(make_env.parse_args(['--folder', str(tmp_path)]))
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'lib/python3/site-packages').mkdir(parents=True)
    program(tmp_path / 'bin', 'python',
            f'echo "$*" >> {tmp_path}/asked; case "$*" in *+cpu*) exit 1; esac')
    make_env.install_torch()
    first, second = (tmp_path / 'asked').read_text().splitlines()
    torch, vision = make_env.pinned('torch'), make_env.pinned('torchvision')
    assert f'install torch=={torch}+cpu torchvision=={vision}+cpu' in first
    assert f'install torch==={torch} torchvision==={vision}' in second


def test_errors_of_pip_are_shown(make_env, tmp_path):
    make_env.choose(make_env.parse_args(['--folder', str(tmp_path)]))
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'lib/python3/site-packages').mkdir(parents=True)
    program(tmp_path / 'bin', 'python', 'echo ERROR: no space >&2; exit 1')
    with pytest.raises(make_env.Missing, match='pip failed(.|\n)*ERROR: no space\nWithout'):
        make_env.pip('install', 'torch')
    assert not make_env.pip('install', 'torch', must=False)


def test_a_folder_that_cannot_be_made_is_named(make_env, tmp_path):
    """Without advice to install python3-venv. Inside a file, because root may write anywhere."""
    (tmp_path / 'file').write_text('')
    make_env.choose(make_env.parse_args(['--folder', str(tmp_path / 'file/env')]))
    with pytest.raises(make_env.Missing, match='Errno .*file/env') as error:
        make_env.make_venv()
    assert 'apt install' not in str(error.value)


@pytest.fixture
def nothing_but(make_env, monkeypatch, tmp_path):
    """Hide all browsers; return a folder for programs on the PATH."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    monkeypatch.setenv('PATH', str(folder))
    monkeypatch.setenv('PLAYWRIGHT_BROWSERS_PATH', str(tmp_path / 'playwright'))
    monkeypatch.delenv('CI', raising=False)
    monkeypatch.setattr(make_env, 'BROWSER_TRIED', tmp_path / 'tried')
    monkeypatch.setattr(make_env, 'PYTHON', folder / 'python')
    return folder


def test_a_browser_is_one_that_runs(make_env, nothing_but, tmp_path):
    assert make_env.find_browser() is None
    program(nothing_but, 'chromium', 'echo "install the snap" >&2; exit 1')
    for build in ('chromium-1255/chrome-linux64', 'chromium-999/chrome-linux'):
        (tmp_path / 'playwright' / build).mkdir(parents=True)
        program(tmp_path / 'playwright' / build, 'chrome', 'exit 127')  # a library is missing
    assert make_env.find_browser() is None
    shell = tmp_path / 'playwright/chromium_headless_shell-1255/chrome-headless-shell-linux64'
    shell.mkdir(parents=True)
    program(shell, 'chrome-headless-shell', 'test "$1" = --version')
    assert make_env.find_browser() == str(shell / 'chrome-headless-shell')
    program(nothing_but, 'google-chrome', 'true')
    assert make_env.find_browser() == str(nothing_but / 'google-chrome')


ARRIVES = 'echo "#!/bin/sh" > {0}; /bin/chmod +x {0}'


def test_playwrights_own_browser_comes_first(make_env, nothing_but, tmp_path, capsys):
    program(nothing_but, 'python', f'echo $* >> {tmp_path}/asked; '
            + ARRIVES.format(nothing_but / 'chromium'))
    program(nothing_but, 'apt-get', f'echo apt >> {tmp_path}/asked')
    for _ in range(2):
        make_env.make_browser()  # once is enough
    assert (tmp_path / 'asked').read_text() == '-m playwright install --only-shell chromium\n'
    assert capsys.readouterr().out.count('\n') == 1


@pytest.mark.parametrize('user, sudo, installed', [
    (0, None, True), (1000, 'test "$1" = -n && shift && exec "$@"', True),
    (1000, 'echo a password is required >&2; exit 1', False), (1000, None, False)])
def test_the_systems_browser_is_installed_where_no_password_is_needed(
        user, sudo, installed, make_env, nothing_but, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_env.os, 'geteuid', lambda: user)
    program(nothing_but, 'python', 'exit 1')  # no network for playwright
    program(nothing_but, 'true', 'exit 0')
    program(nothing_but, 'env', 'exec /usr/bin/env "$@"')
    program(nothing_but, 'apt-get', f'echo $* >> {tmp_path}/asked; case "$*" in *install*) '
            + ARRIVES.format(nothing_but / 'chromium') + ';; esac')
    if sudo:
        program(nothing_but, 'sudo', sudo)
    make_env.make_browser()
    said = capsys.readouterr().out
    if installed:
        update, install = (tmp_path / 'asked').read_text().splitlines()
        assert update.endswith(' update') and install.endswith(' chromium')
        assert make_env.find_browser() and 'skipped' not in said
    else:
        assert not (tmp_path / 'asked').exists()
        assert 'are skipped. Install one:  sudo apt-get install chromium' in said


def test_an_unavailable_browser_is_tried_once_and_fails_ci(
        make_env, nothing_but, tmp_path, monkeypatch, capsys):
    program(nothing_but, 'python', f'echo asked >> {tmp_path}/asked; exit 1')
    for _ in range(2):
        make_env.make_browser()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and said[1] == said[2] and 'playwright install --with-deps' in said[1]
    assert (tmp_path / 'asked').read_text() == 'asked\n'
    monkeypatch.setenv('CI', 'true')
    with pytest.raises(make_env.Missing, match='CI=true, and there is no Chromium'):
        make_env.make_browser()
    assert (tmp_path / 'asked').read_text() == 'asked\n' * 2
    program(nothing_but, 'chromium', 'true')
    make_env.make_browser()
    assert not make_env.BROWSER_TRIED.exists()  # should it go again, it is looked for again


def test_a_hanging_command_is_abandoned(make_env, nothing_but):
    program(nothing_but, 'chromium', 'exec /bin/sleep 60')
    assert not make_env.runs(['chromium'], seconds=0.2)


def test_an_environment_that_is_up_to_date_is_left_alone(make_env, monkeypatch, tmp_path, capsys):
    def make_venv():
        raise make_env.Missing('made anew')

    monkeypatch.setattr(make_env, 'make_venv', make_venv)
    monkeypatch.setattr(make_env, 'STAMP', tmp_path / 'stamp.json')
    looked = []
    monkeypatch.setattr(make_env, 'make_browser', lambda: looked.append('for a browser'))
    assert make_env.main() == 1  # no stamp
    make_env.STAMP.write_text(json.dumps(make_env.fingerprint()))
    assert make_env.main() == 0 and 'is up to date' in capsys.readouterr().out
    assert looked == ['for a browser']  # which may have come or gone since
    monkeypatch.setattr(make_env, 'has_gpu', lambda: True)  # a GPU came: CPU builds will not do
    assert make_env.main() == 1
