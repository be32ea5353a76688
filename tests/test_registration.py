"""Importing the package only adds names to other libraries."""
import json
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPO

HELD = """
import builtins, importlib, json, os, pickle, sys, warnings
import timm.models, torch
from mmengine import config, registry, runner
from mmengine.config import utils
from mmengine.runner import checkpoint
from mmengine.utils import package_utils
from timm.models import _registry

safe = getattr(torch.serialization, 'get_safe_globals', list)
roots = {f'{name}': root for name, root in vars(registry).items()
         if isinstance(root, registry.Registry)}
places = (builtins, importlib, os, pickle, warnings, torch, torch.serialization,
          torch._weights_only_unpickler, torch._weights_only_unpickler.Unpickler, config.Config,
          utils, registry.Registry, registry.DefaultScope, checkpoint, checkpoint.CheckpointLoader,
          package_utils, _registry)

def held():
    by_name = {place.__name__: dict(vars(place)) for place in places}
    by_name['torch._weights_only_unpickler'].pop('_marked_safe_globals_set', None)  # safe types
    by_name['CheckpointLoader'].pop('_schemes')
    by_name.update({name: dict(root.module_dict) for name, root in roots.items()},
                   scopes={name: tuple(root.children) for name, root in roots.items()},
                   schemes=dict(checkpoint.CheckpointLoader._schemes),
                   packages=dict(utils.MODULE2PACKAGE),
                   environment={name: sys.intern(value) for name, value in os.environ.items()},
                   models=dict(_registry._model_entrypoints), safe={
                       str(value): value for value in safe()})
    return by_name, list(warnings.filters), list(sys.meta_path)

before, filters, finders = held()
import fastervit_mm
after, filters_after, finders_after = held()
assert filters_after == filters
assert finders_after[:-1] == finders
replaced = [f'{place}: {name}' for place, names in before.items() if place != 'scopes'
            for name, value in names.items() if after[place].get(name) is not value]
assert not replaced, replaced
assert all(after['scopes'][name] == (*scopes, 'fastervit_mm')
           for name, scopes in before['scopes'].items())
print(json.dumps({place: sorted(set(names) - set(before[place]))
                  for place, names in after.items() if set(names) - set(before[place])}))
"""


# What somebody else's program does, and how each step ends.
PROGRAM = """
import contextlib, itertools, json, os, warnings
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader
IMPORT

class Own:
    def method(self): pass

class Reach:
    def __reduce__(self):
        return getattr, (Own, 'method')

def end(call, *arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try:
            value = call(*arguments)
        except Exception as error:
            value = type(error)
    return str(value).partition(' at 0x')[0], sorted({str(warning.message) for warning in caught})

def shared(values):
    one, two = (value.untyped_storage().data_ptr() for value in values['shared'])
    return values['sparse'].to_dense().sum(), values['meta'].device, one == two

number = torch.arange(1000.)
values = dict(shared=[number[:500], number[500:]], sparse=torch.eye(3).to_sparse(),
              meta=torch.empty(3, device='meta'))
for name, value in dict(own=Own(), reach=Reach(), values=values).items():
    torch.save(value, f'{name}.pth')
declared = dict(nothing=[])
if hasattr(torch.serialization, 'safe_globals'):
    declared.update(own=[Own], getattr=[getattr, Own])
if torch.__version__ >= '2.6':
    declared.update(stand_in=[(lambda *_: 'stood in', 'builtins.getattr'), Own])
ends = {}
for (allowed, types), forced in itertools.product(declared.items(), ('0', '1')):
    os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = forced
    with torch.serialization.safe_globals(types) if types else contextlib.nullcontext():
        for reader in (torch.load, CheckpointLoader.load_checkpoint):
            place = f'{allowed}, {forced}, {reader.__name__}'
            ends[f'{place}: own'] = end(reader, 'own.pth')
            ends[f'{place}: reach'] = end(reader, 'reach.pth')
            ends[f'{place}: values'] = end(lambda: shared(reader('values.pth')))
for name, text in dict(
        base="_base_ = 'mmdet::_base_/default_runtime.py'",
        metafile="_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'",
        absent="_base_ = './nowhere.py'", unknown="_base_ = 'nobody::a/b.py'",
        wrong='x = (').items():
    open(f'{name}.py', 'w').write(text)
    ends[name] = end(lambda: Config.fromfile(f'{name}.py').pretty_text)
print()
print(json.dumps(ends))
"""


def run(imports, folder):
    """Lines that the program prints, with uncaught warnings as errors."""
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', PROGRAM.replace('IMPORT', imports)], cwd=folder,
        text=True, capture_output=True, env={**os.environ, 'PYTHONPATH': str(REPO)})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
    return run(HELD, tmp_path_factory.mktemp('imported'))


def test_importing_only_adds_names_to_other_libraries(imported):
    added = json.loads(imported[0])  # the import itself prints nothing
    assert len(added.pop('models')) == 11
    safe = added.pop('safe', [])
    assert any('Namespace' in name for name in safe) == (torch.__version__ >= '2.6')
    assert added == dict(
        MODELS=['FasterViT', 'SwinHAT'], WEIGHT_INITIALIZERS=['FasterViTPretrained'],
        packages=['fastervit_mm'], schemes=['fastervit://'])


def test_another_program_ends_as_without_the_import(imported, tmp_path):
    without, ends = (json.loads(lines[-1]) for lines in (run('', tmp_path), imported))
    assert ends == without
    assert "'mmdet'" in without['base'][0] and 'True' in without['nothing, 0, load: values'][0]
