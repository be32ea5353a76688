"""Users' configs in any folder: their bases, and errors for mistakes."""
from importlib import metadata

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope

from fastervit_mm import FasterViT, compat
from fastervit_mm.config_files import ConfigError, config_folder, read_config
from fastervit_mm.engine import launch

DET, SEG = 'mmdet/cascade_fvit.py', 'mmseg/upernet_fvit.py'
# What a user writes: a setting, and values of the base, one of them a dict with a `type`.
OWN = """
_base_ = '{base}'
model = dict(backbone=dict(arch='0'), test_cfg=_base_.model.test_cfg)
optim_wrapper = _base_.optim_wrapper
images = _base_.train_dataloader.batch_size * 2
"""


def write(folder, **files):
    for name, text in files.items():
        (folder / f'{name}.py').write_text(text)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('name', [DET, SEG])
def test_a_base_by_name_is_a_base_by_path(elsewhere, name):
    write(elsewhere, named=OWN.format(base=f'fastervit_mm::{name}'),
          path=OWN.format(base=config_folder() / name),
          nested=OWN.format(base='./named.py'), nested_path=OWN.format(base='./path.py'))
    for named, path in (('named', 'path'), ('nested', 'nested_path')):
        named, path, mmengines = (read(f'{name}.py') for read, name in (
            (read_config, named), (read_config, path), (Config.fromfile, named)))
        assert named.to_dict() == path.to_dict() == unscoped(mmengines.to_dict())
        assert named.pretty_text == path.pretty_text  # what a run saves
        assert "_scope_='fastervit_mm'" not in named.pretty_text
        assert named.model.backbone.arch == '0' and named.images == 4


def unscoped(value):
    if isinstance(value, dict):
        return {key: unscoped(inner) for key, inner in value.items()
                if (key, inner) != ('_scope_', 'fastervit_mm')}
    return type(value)(map(unscoped, value)) if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_parts_of_a_base_by_name_are_built_in_the_scope_of_the_program(elsewhere, scope, capfd):
    """By mmengine's own reader and registries, and without a warning."""
    write(elsewhere, named=f"_base_ = 'fastervit_mm::{DET if scope == 'mmdet' else SEG}'\n"
          "optim_wrapper = dict(type='OptimWrapper')\n")  # a CPU has no other
    cfg = Config.fromfile('named.py')
    assert cfg.optim_wrapper._scope_ == 'fastervit_mm'
    init_default_scope(scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(model).__module__.startswith(scope)
    assert type(model.backbone) is FasterViT
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert isinstance(wrapper, OptimWrapper)
    loader = TRANSFORMS.build(dict(type='LoadAnnotations', _scope_='fastervit_mm'))
    assert type(loader).__module__.startswith(scope)
    assert 'WARNING' not in ''.join(capfd.readouterr())


def test_bases_of_forks_are_found_by_the_module(elsewhere, monkeypatch):
    """As with OneDL, whose mmseg is not in a distribution mmsegmentation."""
    there = metadata.distribution

    def without(name):
        if name == 'mmsegmentation':
            raise metadata.PackageNotFoundError(name)
        return there(name)
    monkeypatch.setattr(metadata, 'distribution', without)
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    monkeypatch.setitem(MODULE2PACKAGE, 'mmrotate', 'mmrotate')  # not installed
    compat.find_forks_by_module()
    assert MODULE2PACKAGE['mmseg'] == 'mmseg' and MODULE2PACKAGE['mmdet'] == 'mmdet'
    write(elsewhere, own="_base_ = 'mmseg::_base_/default_runtime.py'\n")
    assert read_config('own.py').default_scope == 'mmseg'


def test_parts_of_configs_are_bases_too(elsewhere):
    write(elsewhere, own="_base_ = ['fastervit_mm::_base_/fastervit.py']\n",
          short="_base_ = 'fastervit_mm::cascade_fvit'\n")
    assert (read_config('own.py').to_dict()
            == read_config(config_folder() / '_base_/fastervit.py').to_dict())
    assert read_config('short.py').model == read_config('mmdet/cascade_fvit').model


@pytest.mark.parametrize('base, says', [
    ('configs/mmdet/cascade_fvit.py', "write _base_ = 'fastervit_mm::mmdet/cascade_fvit.py'"),
    ('../_base_/fastervit.py', "write _base_ = 'fastervit_mm::_base_/fastervit.py'"),
    ('cascade_fvit_3.py', "write _base_ = 'fastervit_mm::mmdet/cascade_fvit_3.py'"),
    ('configs/mmseg/upernet_fvit_2.py', "Similar in fastervit_mm: 'fastervit_mm::mmseg/upernet"),
    ('fastervit_mm::mmdet/cascade_fvitt.py', 'similar: mmdet/cascade_fvit,'),
    ('mmdet::nowhere/nothing.py', 'nowhere/nothing.py" does not exist'),
    ('quite_other.py', 'no such file'),
])
@pytest.mark.parametrize('nested', [False, True])
def test_an_absent_base_names_config_base_and_remedy(elsewhere, base, says, nested):
    write(elsewhere, mine=f'_base_ = {base!r}\n', outer="_base_ = './mine.py'\n")
    with pytest.raises(FileNotFoundError) as caught:
        read_config('outer.py' if nested else 'mine.py')
    message = str(caught.value)
    assert message.startswith(f'{elsewhere / "mine.py"}: _base_={base!r}: ')
    assert says in message and '\n' not in message


BASE = f"_base_ = 'fastervit_mm::{DET}'\n"


@pytest.mark.parametrize('text, line, says', [
    (BASE + 'model = dict(\n    backbone=dict(arch="0")\n    neck=None)\n', 3, 'invalid syntax'),
    (BASE + 'x = 1\nclasses = num_clases\n', 3, "NameError: name 'num_clases' is not defined"),
    (BASE + 'a = _base_.model.nothing\n', 2, "has no attribute 'nothing'"),
    (BASE + 'def f():\n    return 1 / 0\n\nx = f()\n', 3, 'ZeroDivisionError'),
    (BASE + 'x = open("classes.txt").read()\n', 2, 'classes.txt'),
    (BASE + 'model = dict(type=dict(a=1))\n', None, 'mine.py: TypeError: type='),
    ("_base_ = folder + '/base.py'\n", None, "mine.py: NameError: name 'folder'"),
    (BASE + 'custom_imports = dict(imports=["no_such_module"])\n', None,
     "custom_imports: Failed to import no_such_module (No module named 'no_such_module')"),
])
@pytest.mark.parametrize('nested', [False, True])
def test_a_mistake_in_a_config_is_one_line_with_its_place(elsewhere, text, line, says,
                                                          nested):
    write(elsewhere, mine=text, outer="_base_ = './mine.py'\n")
    with pytest.raises(ConfigError) as caught:
        read_config('outer.py' if nested else 'mine.py')
    message = str(caught.value)
    assert says in message and '\n' not in message
    if line is not None:
        assert f'mine.py, line {line}: ' in message


def test_configs_in_pure_python_are_read_alike(elsewhere):
    write(elsewhere, base='x = 1\n', good='from mmengine.config import read_base\n'
          'with read_base():\n    from .base import *\ny = x + 1\n')
    assert read_config('good.py').y == 2
    write(elsewhere, base='x = nothing\n')
    with pytest.raises(ConfigError, match="base.py, line 1: NameError: name 'nothing'"):
        read_config('good.py')


def test_settings_that_do_not_fit_the_config_are_named():
    with pytest.raises(ConfigError, match='fvit.py: --cfg-options: .*type='):
        launch.load_config(DET, cfg_options={'model.type.a': 5})
