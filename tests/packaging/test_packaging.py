"""Wheel and sdist of this tree install and work elsewhere, with configs and tools."""
import json
import os
import re
import runpy
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import fastervit_mm
from fastervit_mm import config_files
from tests import samples
from tests.conftest import REPO, load_program

PACKAGE = 'fastervit_mm'
SITE = next(path for path in map(Path, sys.path) if (path / 'mmengine').is_dir())


def run(*command, cwd, **environment):
    done = subprocess.run([str(part) for part in command], cwd=cwd, text=True, capture_output=True,
                          env={**os.environ, **environment})
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    """The tree as git would see it, in a repository of its own."""
    folder = tmp_path_factory.mktemp('packaging') / 'clone'
    files = run('git', 'ls-files', '-co', '--exclude-standard', '-z', cwd=REPO).split('\0')
    for name in filter(None, files):
        if (REPO / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((REPO / name).read_bytes())
            target.chmod((REPO / name).stat().st_mode)
    run('git', 'init', '-q', cwd=folder)
    run('git', 'add', '-A', cwd=folder)
    return folder


def unseen(clone):
    """Files that git would offer to add."""
    return run('git', 'ls-files', '-o', '--exclude-standard', cwd=clone)


@pytest.fixture(scope='module')
def built(clone):
    """The wheel, built from the sdist, and the sdist."""
    dist = clone.parent / 'dist'
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', dist, cwd=clone)
    wheel, = dist.glob('*.whl')
    sdist, = dist.glob('*.tar.gz')
    assert not unseen(clone)
    return wheel, sdist


class Environment:
    """A virtual environment that sees this one's packages, but none that is installed editable.

    Python reads no ``.pth`` in a folder that came from one, so this tree is out of its reach.
    """

    def __init__(self, folder, *what):
        run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder.parent)
        self.python = folder / 'bin/python'
        self.site, = folder.glob('lib/python*/site-packages')
        (self.site / 'others.pth').write_text(f'{SITE}\n')
        # Nothing of ours before it is installed.
        assert 'None' in self(folder, '-c', 'from importlib.util import find_spec as f;'
                                            f'print(f({PACKAGE!r}))')
        run(sys.executable, '-m', 'pip', '--python', self.python, 'install', '--quiet', '--no-deps',
            '--no-index', '--no-build-isolation', *what, cwd=folder)

    def __call__(self, cwd, *arguments, **environment):
        environment.setdefault('PYTHONPATH', '')
        return run(self.python, '-W', 'ignore', *arguments, cwd=cwd, **environment)


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    """An environment with the wheel."""
    return Environment(tmp_path_factory.mktemp('wheel') / 'venv', built[0])


def test_wheel_and_sdist_have_the_packages_version_and_the_citation_none(built):
    version = fastervit_mm.__version__
    assert [path.name for path in built] == [f'fastervit_mm-{version}-py3-none-any.whl',
                                             f'fastervit_mm-{version}.tar.gz']
    assert 'version' not in yaml.safe_load((REPO / 'CITATION.cff').read_text())


def test_twine_takes_what_is_built(built):
    run(sys.executable, '-m', 'twine', 'check', '--strict', *built, cwd=REPO)


def test_what_keeps_a_tree_from_being_released_is_listed(built, tmp_path):
    unready = load_program('tools/make_release.py').unready
    git = ('git', '-c', 'user.name=x', '-c', 'user.email=x@y')
    (tmp_path / 'CHANGELOG.md').write_text('# Changelog\n\n## Unreleased (0.2)\n')
    run('git', 'init', '-q', cwd=tmp_path)
    changed, heading, url = unready(tmp_path, '0.2', built[0])
    assert '1 files differ' in changed and 'Unreleased (0.2)' in heading and 'set url' in url
    (tmp_path / 'CHANGELOG.md').write_text('# Changelog\n\n## 0.2 - 2026-12-01\n')
    run(*git, 'add', '.', cwd=tmp_path)
    run(*git, 'commit', '-qm', 'x', cwd=tmp_path)
    assert unready(tmp_path, '0.2', built[0]) == [url]
    run('git', 'tag', 'v0.2', cwd=tmp_path)
    assert 'tagged already' in unready(tmp_path, '0.2', built[0])[0]


def test_the_wheel_carries_configs_tools_and_licences(built):
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
        modes = {info.filename: info.external_attr >> 16 for info in wheel.infolist()}
    mim = {name.partition('.mim/')[2] for name in names if '/.mim/' in name}
    tracked = {name for name in run('git', 'ls-files', 'configs', 'tools', 'model-index.yml',
                                    cwd=REPO).split() if not name.startswith('tools/make_')}
    assert tracked <= mim
    assert all(name.startswith(('configs/', 'tools/', 'model-index.yml')) for name in mim)
    assert modes['fastervit_mm/.mim/tools/dist_train.sh'] & stat.S_IXUSR
    packages = {path.parent.relative_to(REPO).as_posix()
                for path in (REPO / 'fastervit_mm').rglob('__init__.py')}
    assert packages <= {name.rpartition('/')[0] for name in names}
    assert not [name for name in names if name.startswith(('tests/', 'configs/', 'tools/'))
                or '__pycache__' in name]
    for licence in ('LICENSE', 'WEIGHTS_LICENSE.md'):
        assert any(name.endswith(f'.dist-info/licenses/{licence}') for name in names)


def test_the_sdist_carries_what_a_wheel_is_built_from(built):
    with tarfile.open(built[1]) as sdist:
        names = {name.partition('/')[2] for name in sdist.getnames()}
    assert {'setup.py', 'model-index.yml', 'README.md', 'LICENSE', 'WEIGHTS_LICENSE.md',
            'configs/mmdet/cascade_fvit.py', 'tools/train.py', 'docs/images/speed.png'} <= names
    assert not [name for name in names if '.mim' in name or name.startswith('tests')]


EVERYWHERE = """
import json
import fastervit_mm, mmengine.hub
import torch
from fastervit_mm import config_files
from fastervit_mm.models import build_model
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
facts = dict(package=fastervit_mm.__file__, folder=str(config_files.config_folder()),
             names=config_files.config_names(), parameters={}, whole=[])
for name in ('mmdet/cascade_fvit', 'mmseg/upernet_fvit'):
    cfg = fastervit_mm.get_config(name)
    assert cfg.to_dict() == mmengine.hub.get_config(f'fastervit_mm::{name}.py').to_dict(), name
    init_default_scope(cfg.default_scope)
    facts['parameters'][name] = sum(
        p.numel() for p in MODELS.build(cfg.model.backbone).parameters())
    with torch.device('meta'):  # without the memory
        facts['whole'].append(type(build_model(cfg)).__name__)
open('own.py', 'w').write("_base_ = 'fastervit_mm::mmdet/cascade_fvit.py'\\n")
assert Config.fromfile('own.py').model == fastervit_mm.get_config('mmdet/cascade_fvit').model
print('FACTS' + json.dumps(facts))
"""


def check_everywhere(printed, package, folder):
    facts = json.loads(printed.partition('FACTS')[2])
    assert Path(facts['package']) == package / '__init__.py'
    assert Path(facts['folder']) == folder
    assert facts['names'] == config_files.config_names()
    assert all(75e6 < n < 76e6 for n in facts['parameters'].values())
    assert facts['whole'] == ['CascadeRCNN', 'EncoderDecoder']


def test_the_wheel_works_from_any_folder(installed, tmp_path):
    package = installed.site / PACKAGE
    check_everywhere(installed(tmp_path, '-c', EVERYWHERE), package, package / '.mim/configs')


FACTS = """
import functools, json
import fastervit_mm
from fastervit_mm import config_files
from mmengine.config import utils
utils.load = functools.cache(utils.load)  # as in tests/conftest.py
facts = {}
for name in config_files.config_names():
    cfg = fastervit_mm.get_config(name)
    assert 'fastervit_mm' in cfg.custom_imports.imports, name
    backbone, loop = cfg.model.backbone, cfg.get('train_cfg') or {}
    facts[name] = dict(
        type=backbone.type, arch=backbone.arch, crop_size=cfg.get('crop_size'),
        checkpoint=(backbone.get('init_cfg') or {}).get('checkpoint'),
        batch_size=cfg.get('train_dataloader', {}).get('batch_size'),  # None: evaluation alone
        epochs=loop.get('max_epochs'), iterations=loop.get('max_iters'))
print('FACTS' + json.dumps(facts))
"""


@pytest.fixture(scope='module')
def facts(installed, tmp_path_factory):
    """What each of the wheel's configs says, by its name."""
    printed = installed(tmp_path_factory.mktemp('elsewhere'), '-c', FACTS)
    return json.loads(printed.partition('FACTS')[2])


def test_every_installed_config_resolves(facts):
    assert list(facts) == config_files.config_names()
    assert all(fact['type'] == ('SwinHAT' if 'swin_hat' in name else 'FasterViT')
               for name, fact in facts.items())


def test_pip_install_of_a_clone_gives_what_the_wheel_gives(installed, clone, tmp_path):
    run(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-index',
        '--no-build-isolation', '--target', tmp_path, clone, cwd=tmp_path)
    assert not unseen(clone)

    def files(site):
        return {path.relative_to(site): path.read_bytes()
                for path in (site / PACKAGE).rglob('*')
                if path.is_file() and path.suffix != '.pyc'}

    assert files(tmp_path) == files(installed.site)


@pytest.fixture(scope='module')
def mim(installed, tmp_path_factory):
    """OpenMMLab's ``mim``, in the environment of the wheel.

    Not among this project's requirements: a client for downloads, which ``mim`` asks for and which
    the commands here never import, wants a setuptools of 2022.
    """
    folder = tmp_path_factory.mktemp('mim')
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', folder,
         'openmim==0.3.9', 'tabulate==0.10.0'], text=True, capture_output=True)
    assert done.returncode == 0, f'openmim: a registry is needed for `make test-all`. {done.stderr}'
    return lambda cwd, *arguments: installed(cwd, '-m', 'mim', *arguments, PYTHONPATH=str(folder))


@pytest.mark.long
def test_mim_lists_the_models(mim, tmp_path):
    mim(tmp_path, 'search', PACKAGE, '--config', 'cascade_fvit', '--json', 'found.json')
    found = json.loads((tmp_path / 'found.json').read_text())
    assert found['config'] == {'cascade_fvit': 'configs/mmdet/cascade_fvit.py'}
    assert found['coco/box_ap'] == {'cascade_fvit': 52.1}


@pytest.mark.long
def test_mim_trains_and_runs_tools(mim, tmp_path):
    """From a folder of data alone, with a config that it finds in the package by its name."""
    data = tmp_path / 'data/shapes'
    samples.draw_shapes(data, train=8, val=8)
    mim(tmp_path, 'train', PACKAGE, 'upernet_fvit_shapes.py', '--gpus', '0', '--work-dir', 'run',
        '--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
        'param_scheduler.1.end=60', 'default_hooks.checkpoint.interval=2',
        'val_dataloader.dataset.indices=2')
    assert (tmp_path / 'run/iter_2.pth').is_file() and len(list((data / 'train').iterdir())) == 8
    mim(tmp_path, 'run', PACKAGE, 'infer', 'mmseg/upernet_fvit_shapes', 'run/iter_2.pth',
        data / 'val/000001.png', '--out', 'seen', '--device', 'cpu')
    assert (tmp_path / 'seen/pred/000001.png').is_file()


def test_a_model_index_that_openmmlab_reads(installed):
    """By mmengine's own reader, for the wheel."""
    from mmengine.infer.infer import BaseInferencer
    mim = installed.site / PACKAGE / '.mim'
    models = list(BaseInferencer._get_models_from_metafile(str(mim)))
    assert sorted(model['Config'] for model in models) == [
        f'configs/{name}.py' for name in config_files.config_names()]
    assert all((mim / model['Config']).is_file() for model in models)


@pytest.fixture(scope='module')
def models():
    index = yaml.safe_load((REPO / 'model-index.yml').read_text())
    files = [yaml.safe_load((REPO / path).read_text()) for path in index['Import']]
    collections = {c['Name'] for file in files for c in file['Collections']}
    found = [model for file in files for model in file['Models']]
    assert {model['In Collection'] for model in found} == collections
    assert len({model['Name'] for model in found}) == len(found)
    return found


def test_metafiles_agree_with_the_configs(models, facts):
    for model in models:
        name, meta = model['Name'], model['Metadata']
        fact = facts[model['Config'].removeprefix('configs/').removesuffix('.py')]
        assert Path(model['Config']).stem == name
        if fact['batch_size'] is None:
            assert 'Published Weights' in meta and 'Batch Size' not in meta, name
        elif name.endswith('_train'):  # 4096 images by as many processes as there are
            assert meta['Batch Size'] == 4096, name
        else:
            processes = 8 if fact['checkpoint'] else 1
            assert fact['batch_size'] * processes == meta['Batch Size'], name
        for key, own in (('Epochs', 'epochs'), ('Iterations', 'iterations')):
            if key in meta:
                assert fact[own] == meta[key], name
        assert fact['checkpoint'] == meta.get('Pretrained Backbone'), name
        if fact['checkpoint']:
            assert f'{fact["type"]}-{fact["arch"]}' == meta['Backbone']
        if 'Crop Size' in meta and fact['crop_size']:
            assert fact['crop_size'] == [meta['Crop Size']] * 2


def test_published_figures_are_marked_as_the_papers(models):
    """And are those of the README's tables; no weights are claimed to be here."""
    readme = (REPO / 'README.md').read_text()
    marked = 0
    for model in models:
        assert 'Weights' not in model
        if 'Results' not in model:
            continue
        if 'this project' in model['Metadata']['Results Source']:
            assert model['Name'].endswith(('shapes', 'imagenette')), model['Name']
            continue
        if 'authors' in model['Metadata']['Results Source']:  # rows of docs/model_zoo.md
            assert 'not evaluated here' in model['Metadata']['Results Source']
            continue
        assert 'not re-trained here' in model['Metadata']['Results Source']
        row = next(line for line in readme.splitlines() if f'({model["Config"]})' in line
                   and line.startswith('|'))
        cells = [cell.strip(' ¹') for cell in row.split('|')[3:-1]]
        figures = [figure for result in model['Results'] for figure in result['Metrics'].values()]
        throughput = model['Metadata']['Paper Throughput (im/s, one A100)']
        assert cells == [str(throughput), *map(str, figures)]
        marked += 1
    assert marked == 6


def test_an_editable_install_sees_a_new_config_and_builds_a_whole_wheel(clone, tmp_path):
    environment = Environment(tmp_path / 'venv', '-e', clone)
    assert not unseen(clone)
    links = clone / PACKAGE / '.mim'
    assert (links / 'configs').resolve() == clone / 'configs'
    # A new config is there at once.
    (clone / 'configs/mmdet/new.py').write_text("_base_ = './cascade_fvit.py'\n")
    code = ('import fastervit_mm as f\ncfg = f.get_config("new")\n'
            'print(f.__file__, cfg.filename, cfg.model.type)')
    assert environment(tmp_path, '-c', code).split() == [
        str(clone / PACKAGE / '__init__.py'), str(clone / 'configs/mmdet/new.py'), 'CascadeRCNN']
    (clone / 'configs/mmdet/new.py').unlink()
    run(sys.executable, '-m', 'build', '--no-isolation', '--wheel', '--outdir', tmp_path, cwd=clone)
    wheel, = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as file:  # the configs, and no links to them
        assert b'cascade-mask-rcnn' in file.read(
            'fastervit_mm/.mim/configs/mmdet/cascade_fvit.py')


@pytest.mark.parametrize('name, expected', [
    ('mmdet/cascade_fvit', 'mmdet/cascade_fvit'), ('cascade_fvit_3.py', 'mmdet/cascade_fvit_3'),
    ('configs/mmseg/upernet_fvit.py', 'mmseg/upernet_fvit'),
    ('fastervit_mm::mmseg/upernet_fvit_640', 'mmseg/upernet_fvit_640')])
def test_names_of_configs(name, expected):
    assert config_files.config_path(name) == REPO / f'configs/{expected}.py'


@pytest.mark.parametrize('name, near', [
    ('mmdet/cascade_fvitt', 'similar: mmdet/cascade_fvit,'),
    ('upernet_fvit_5', 'mmseg/upernet_fvit_4'), ('mmdet/upernet_fvit', 'mmseg/upernet_fvit,'),
    ('zzzz', 'give one of mmdet/'), ('_base_/fastervit', "name='_base_/fastervit'")])
def test_an_unknown_name_lists_near_ones(name, near):
    with pytest.raises(ValueError, match=re.escape(near)):
        fastervit_mm.get_config(name)


def test_an_install_without_configs_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(config_files, '_PACKAGE', tmp_path / 'fastervit_mm')
    (tmp_path / 'configs/mmdet').mkdir(parents=True)  # some other package's, no clone
    with pytest.raises(FileNotFoundError, match='came without its configs'):
        config_files.config_folder()


@pytest.mark.parametrize('installing, installed, wanted', [
    (True, 'mmcv-2.1.0', 'mmcv'), (True, 'mmcv_lite-2.1.0', 'mmcv-lite>=2.0.1,<2.2'),
    (False, 'mmcv-2.1.0', 'mmcv-lite>=2.0.1,<2.2')])
def test_an_mmcv_that_is_installed_stays(monkeypatch, tmp_path, installing, installed, wanted):
    """pip would unpack mmcv-lite over it; a wheel that is built is for others."""
    given = {}
    monkeypatch.setattr('setuptools.setup', given.update)
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(tmp_path))
    (tmp_path / f'{installed}.dist-info').mkdir()
    monkeypatch.delenv('PIP_BUILD_TRACKER', raising=False)
    if installing:
        monkeypatch.setenv('PIP_BUILD_TRACKER', str(tmp_path))
    runpy.run_path(str(REPO / 'setup.py'))
    assert [name for name in given['extras_require']['openmmlab'] if name.startswith('mmcv')] == [
        wanted]
