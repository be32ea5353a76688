"""The environment's maker: what it checks, and what it says when something is missing.

That it makes a working environment is seen by every run of this suite: `make test` uses it.
"""
import importlib.util
import json
import sys

import pytest

from tests.conftest import REPO


@pytest.fixture
def make_env():
    spec = importlib.util.spec_from_file_location('make_env', REPO / 'tools' / 'make_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder, name, body):
    file = folder / name
    file.write_text(f'#!/bin/sh\n{body}\n')
    file.chmod(0o755)


def test_a_python_that_is_too_new_is_named(make_env, monkeypatch):
    monkeypatch.setattr(make_env.sys, 'version_info', (3, 13, 0))
    with pytest.raises(make_env.Missing, match='make demo PYTHON=python3.11'):
        make_env.check_python()


def test_a_missing_compiler_is_named_with_the_remedy(make_env, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(make_env.Missing, match='no C.. compiler.*\n.*apt install g..\n') as error:
        make_env.check_compiler(gpu=False)
    assert 'mmwheels.onedl.ai' in str(error.value)


def test_missing_headers_are_named_with_the_remedy(make_env, monkeypatch, tmp_path):
    monkeypatch.setattr(make_env.sysconfig, 'get_path', lambda name: str(tmp_path))
    with pytest.raises(make_env.Missing, match='apt install python3-dev'):
        make_env.check_compiler(gpu=False)


def test_a_gpu_without_nvcc_is_named_with_the_remedy(make_env, monkeypatch, tmp_path):
    program(tmp_path, 'c++', 'true')
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'nowhere'))
    monkeypatch.delenv('CXX', raising=False)
    with pytest.raises(make_env.Missing, match='nvcc is missing') as error:
        make_env.check_compiler(gpu=True)
    assert 'CUDA toolkit' in str(error.value) and 'Ready-made pairs' in str(error.value)


@pytest.mark.parametrize('body, expected', [('echo GPU 0', True), ('exit 9', False)])
def test_a_gpu_is_one_that_the_driver_lists(make_env, monkeypatch, tmp_path, body, expected):
    program(tmp_path, 'nvidia-smi', body)
    monkeypatch.setenv('PATH', f'{tmp_path}:/bin:/usr/bin')
    assert make_env.has_gpu() is expected


@pytest.fixture
def mmcv_steps(make_env, monkeypatch, tmp_path):
    """install_mmcv with pip written down, and torch of a given build."""
    steps = []

    def pip(*arguments, **kwargs):
        steps.append(arguments)
        if arguments[0] == 'wheel':
            folder = arguments[arguments.index('--wheel-dir') + 1]
            tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'
            (make_env.Path(folder) / f'mmcv-2.1.0-{tag}-{tag}-linux_x86_64.whl').touch()
        return True

    monkeypatch.setattr(make_env, 'WHEELS', tmp_path / 'wheels')
    monkeypatch.setattr(make_env, 'pip', pip)

    def run(torch_build, ops_work=True):
        steps.clear()
        monkeypatch.setattr(make_env, 'ask_python', lambda code, failure: torch_build)
        monkeypatch.setattr(make_env, 'works', lambda code: ops_work)
        make_env.install_mmcv(gpu=False)
        return [step for step in steps if step[0] == 'wheel']

    return run


def test_a_wheel_of_another_torch_is_not_used(mmcv_steps):
    build, = mmcv_steps('2.12.0+cpu')
    assert '--no-cache-dir' in build  # nor one that pip kept
    assert mmcv_steps('2.12.0+cpu') == []  # built before for this torch
    assert len(mmcv_steps('2.13.0+cpu')) == 1
    assert len(mmcv_steps('2.13.0+cpu', ops_work=False)) == 1  # there, but broken


def test_an_environment_that_is_up_to_date_is_left_alone(make_env, monkeypatch, tmp_path, capsys):
    def make_venv():
        raise make_env.Missing('made anew')

    monkeypatch.setattr(make_env, 'make_venv', make_venv)
    monkeypatch.setattr(make_env, 'STAMP', tmp_path / 'stamp.json')
    assert make_env.main() == 1  # no stamp
    make_env.STAMP.write_text(json.dumps(make_env.fingerprint()))
    assert make_env.main() == 0 and 'is up to date' in capsys.readouterr().out
    monkeypatch.setattr(make_env, 'has_gpu', lambda: True)  # a GPU came: CPU builds will not do
    assert make_env.main() == 1
