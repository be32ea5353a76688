"""Checkpoints that this package writes, and others', can be read."""
import argparse
import collections
import datetime
import enum
import pathlib
import sys
import types

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OneCycleParamScheduler
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from fastervit_mm import FasterViT
from fastervit_mm.engine import launch
from fastervit_mm.engine.plain_values import plain
from fastervit_mm.models import check_complete, load_model, rename_published
from fastervit_mm.weights import CheckpointError, convert, load_backbone, read_checkpoint
from tests.bad_input.workshop import Attack
from tests.conftest import TINY, stir

Kind = enum.Enum('Kind', dict(RED='red'))
META = dict(
    classes=('ground', np.str_('thing')), palette=np.array([[0, 0, 0], [255, 0, 0]], np.uint8),
    source=ConfigDict(camera='A', inner=dict(year=np.int64(2024), scale=np.float32(0.5))),
    counts=collections.defaultdict(list, a=[1, 2]), where=pathlib.Path('x/y'), some={'p', 'q'},
    ordered=collections.OrderedDict(b=frozenset({1})), nothing=None, words=np.array(['a', 'b']),
    when=datetime.date(2024, 1, 2), function=len, type=np.float32, kind=Kind.RED,
    queue=collections.deque([1]), long=np.longdouble(2), size=torch.Size([3]), flag=np.bool_(True))
PLAIN = dict(
    classes=('ground', 'thing'), palette=[[0, 0, 0], [255, 0, 0]],
    source=dict(camera='A', inner=dict(year=2024, scale=0.5)), counts=dict(a=[1, 2]),
    where=str(pathlib.Path('x/y')), some={'p', 'q'}, ordered=dict(b=(1, )), nothing=None,
    words=['a', 'b'], when='2024-01-02', function='builtins.len', type='numpy.float32', kind='red',
    queue=[1], long=2.0, size=(3, ), flag=True)


def same(a, b):
    """Equal, and of equal types."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) is dict and a.keys() == b.keys() and all(
            same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@DATASETS.register_module()
class Numbers(torch.utils.data.Dataset):
    metainfo = META

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.full((2, ), float(index)))


@MODELS.register_module()
class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.line(torch.stack(inputs) if isinstance(inputs, list)
                                   else inputs).square().mean())


def settings(work_dir, **changes):
    return Config(dict(
        model=dict(type='Line'), work_dir=str(work_dir), randomness=dict(seed=0),
        train_dataloader=dict(dataset=dict(type='Numbers'), batch_size=2, num_workers=0,
                              sampler=dict(type='InfiniteSampler')),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=[dict(type='OneCycleLR', eta_max=0.1, total_steps=6, by_epoch=False)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=3, by_epoch=False)),
        default_scope='mmengine', log_level='WARNING',
        experiment_name=str(work_dir),  # else runs of one second share a log
        **{**dict(custom_hooks=[dict(type='EMAHook')]), **changes}))


def trained(work_dir, **changes):
    cfg = settings(work_dir, **changes)
    launch.add_for_training(cfg)
    launch.build_runner(cfg).train()
    return work_dir


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp('run'))


def test_a_trained_checkpoint_is_plain_values_whatever_its_metainfo(run):
    content = read_checkpoint(str(run / 'iter_6.pth'))
    assert same(content['meta']['dataset_meta'], PLAIN)
    assert same(content['message_hub']['runtime_info']['dataset_meta'], PLAIN)
    assert content['state_dict']._metadata['line'] == dict(version=1)
    for name in ('meta', 'param_schedulers', 'optimizer'):
        assert same(plain(content[name], name), content[name])
    assert CheckpointLoader.load_checkpoint(str(run / 'iter_6.pth'))['meta'] == content['meta']


def test_a_run_with_one_cycle_resumes_bit_for_bit(run, tmp_path):
    """Also from mmengine's own checkpoint, which contains the scheduler's function."""
    content = read_checkpoint(str(run / 'iter_3.pth'))
    assert not any(map(callable, content['param_schedulers'][0].values()))
    older = dict(content, param_schedulers=[dict(
        content['param_schedulers'][0], anneal_func=OneCycleParamScheduler._annealing_cos)])
    older['meta'] = dict(content['meta'], dataset_meta={**PLAIN, **META_OF_CONFIGS})
    torch.save(older, tmp_path / 'older.pth')
    last = read_checkpoint(str(run / 'iter_6.pth'))
    for path in (run / 'iter_3.pth', tmp_path / 'older.pth'):
        again = trained(tmp_path / path.stem, load_from=str(path), resume=True)
        log = ''.join(path.read_text() for path in again.glob('*/*.log'))
        assert 'metainfo from the resumed checkpoint' not in log
        assert not (again / 'iter_3.pth').exists()  # it went on behind it
        again = read_checkpoint(str(again / 'iter_6.pth'))
        assert same(again['param_schedulers'], last['param_schedulers'])
        assert again['optimizer']['param_groups'] == last['optimizer']['param_groups']
        for name in ('line.weight', 'line.bias'):
            assert torch.equal(again['state_dict'][name], last['state_dict'][name])


def test_a_config_in_a_checkpoint_is_not_run(run, tmp_path):
    """mmengine's resume would, to see on how many GPUs an older version had trained."""
    content = read_checkpoint(str(run / 'iter_3.pth'))
    content['meta']['config'] = f'open({str(tmp_path / "ran")!r}, "w")'
    torch.save(content, tmp_path / 'older.pth')
    trained(tmp_path / 'again', load_from=str(tmp_path / 'older.pth'), resume=True)
    assert (tmp_path / 'again/iter_6.pth').is_file() and not (tmp_path / 'ran').exists()


META_OF_CONFIGS = {key: META[key] for key in (
    'classes', 'source', 'counts', 'where', 'some', 'ordered', 'nothing')}


@pytest.fixture
def attributes(monkeypatch):
    """Lightning's dict of hyperparameters, without Lightning."""
    name = 'pytorch_lightning.utilities.parsing'
    for part in ('pytorch_lightning', 'pytorch_lightning.utilities', name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    kind = type('AttributeDict', (dict, ), dict(__module__=name))
    sys.modules[name].AttributeDict = kind
    return kind(lr=0.1, a=[1])


@pytest.mark.parametrize('zipped', [True, False])
def test_older_checkpoints_are_read_as_plain_values(tmp_path, attributes, zipped):
    torch.save(dict(
        state_dict=dict(a=torch.ones(2)), meta=META_OF_CONFIGS, words=META['words'],
        hyper_parameters=attributes,
        foreign=pathlib.PureWindowsPath('c:/x')), tmp_path / 'older.pth',
        _use_new_zipfile_serialization=zipped)
    content = read_checkpoint(str(tmp_path / 'older.pth'))
    meta = content['meta']
    assert meta['classes'] == ('ground', 'thing') and content['words'].tolist() == ['a', 'b']
    for name in ('counts', 'where', 'some', 'nothing'):
        assert same(meta[name], PLAIN[name])
    assert type(meta['source']) is type(meta['source']['inner']) is dict
    assert plain(meta['source'], '') == PLAIN['source']
    assert same(content['hyper_parameters'], dict(lr=0.1, a=[1]))
    assert content['foreign'] == 'c:\\x'


class Own(torch.Tensor):
    """A tensor subclass that no reader knows."""


@HOOKS.register_module()
class OwnTensors(Hook):
    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['state_dict']['own'] = torch.zeros(1).as_subclass(Own)


def test_unreadable_values_are_not_saved(tmp_path):
    """The first checkpoint already fails, and no partial file is left."""
    with pytest.raises(CheckpointError, match='iter_3.pth was not saved.*Own'):
        trained(tmp_path, custom_hooks=[dict(type='OwnTensors')])
    assert not [*tmp_path.glob('*.pth*')]


def foreign(path):
    shared = torch.arange(1000.)
    torch.save(dict(
        args=argparse.Namespace(mean=torch.ones(3)), shared=[shared[:500], shared[500:]],
        sparse=torch.eye(3).to_sparse(), meta=torch.empty(3, device='meta')), path)


@pytest.mark.parametrize('read', [CheckpointLoader.load_checkpoint, read_checkpoint])
def test_importing_changes_nothing_for_other_readers(tmp_path, read):
    path = tmp_path / 'foreign.pth'
    foreign(path)
    content = read(str(path))
    path.write_bytes(bytes(path.stat().st_size))
    assert content['args'].mean.tolist() == [1, 1, 1]
    assert torch.equal(content['sparse'].to_dense(), torch.eye(3))
    assert content['meta'].is_meta
    one, two = content['shared']
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()
    assert torch.equal(torch.cat([one, two]), torch.arange(1000.))


@pytest.mark.skipif(not hasattr(torch.serialization, 'safe_globals'), reason='older torch')
def test_declared_classes_are_read(tmp_path):
    torch.save(Declared(), tmp_path / 'own.pth')
    with pytest.raises(CheckpointError):
        read_checkpoint(str(tmp_path / 'own.pth'))
    with torch.serialization.safe_globals([Declared]):
        for read in (torch.load, read_checkpoint):
            assert type(read(str(tmp_path / 'own.pth'))) is Declared


class Declared:
    pass


@pytest.mark.parametrize('forced', ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD',
                                    'TORCH_FORCE_WEIGHTS_ONLY_LOAD'])
def test_the_tools_stay_strict_whatever_others_allow(tmp_path, run, monkeypatch,
                                                     forced):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(forced, '1')
    torch.save(dict(state_dict=nn.Linear(1, 1).state_dict(), extra=Attack()), 'evil.pth')
    with pytest.raises(CheckpointError, match='no code in it was run'):
        read_checkpoint('evil.pth')
    with pytest.raises(CheckpointError, match='no code in it was run'):
        trained(tmp_path / 'run', load_from='evil.pth')
    assert [path.name for path in tmp_path.iterdir() if path.name != 'run'] == ['evil.pth']
    assert read_checkpoint(str(run / 'iter_6.pth'))['meta']['iter'] == 6
    if forced == 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD':  # mmengine's own loader runs it, as it would
        CheckpointLoader.load_checkpoint('evil.pth')
        assert len([*tmp_path.iterdir()]) > 2


@pytest.fixture(scope='module')
def network():
    backbone = FasterViT(TINY)
    stir(backbone)
    return nn.ModuleDict(dict(backbone=backbone, head=nn.Linear(3, 2)))


def named(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def averaged(tensors):
    return {name: torch.full_like(tensor, 7) for name, tensor in tensors.items()}


ALONE = dict(
    compiled=lambda t: named('_orig_mod.', t),
    blocks_compiled=lambda t: {k.replace('stages.0.', 'stages.0._orig_mod.'): v
                               for k, v in t.items()},
    lightning=lambda t: dict(state_dict={**named('model.backbone.', t),
                                         'loss.weight': torch.ones(2)},
                             pytorch_lightning_version='2.5'),
    compiled_in_lightning=lambda t: dict(state_dict=named('model._orig_mod.backbone.', t)),
    parallel_and_compiled=lambda t: dict(model=named('module._orig_mod.', t)),
    encoder=lambda t: dict(state_dict=named('encoder.', t)),
    fsdp=lambda t: named('_fsdp_wrapped_module.backbone.', t),
    deep=lambda t: dict(epoch=1, net=dict(weights=named('module.', t)),
                        optimizer=dict(state={0: dict(exp_avg=torch.ones(2))})),
    swa=lambda t: dict(named('module.', t), n_averaged=torch.tensor(3)),
    timm_ema=lambda t: dict(state_dict=t, state_dict_ema=averaged(t), arch='fastervit'),
    timm_model_ema=lambda t: dict(model=t, model_ema=averaged(t)),
    ema_of_names=lambda t: {**named('ema_model.module.', averaged(t)), **named('model.', t)},
    only_ema=lambda t: dict(ema=dict(module=t, updates=3)),
    twice_the_same=lambda t: {**named('net.', t), **named('compiled._orig_mod.', t)},
    momentum=lambda t: dict(state_dict={**named('backbone.', t),
                                        **named('encoder_k.0.', averaged(t))}))


@pytest.mark.parametrize('name', ALONE)
def test_the_backbone_is_found_in_files_of_other_trainers(tmp_path, network, name):
    tensors, path = network['backbone'].state_dict(), str(tmp_path / 'other.pth')
    torch.save(ALONE[name](tensors), path)
    backbone = FasterViT(TINY)
    assert load_backbone(backbone, path).fresh == []
    convert(path, str(tmp_path / 'out.pth'))
    for found in (backbone.state_dict(), read_checkpoint(str(tmp_path / 'out.pth'))['state_dict']):
        assert all(torch.equal(found[key], value) for key, value in tensors.items())


@pytest.mark.parametrize('prefix', ['student.backbone.', 'teacher._orig_mod.backbone', None])
def test_of_several_backbones_the_prefix_decides(tmp_path, network, prefix):
    tensors, path = network['backbone'].state_dict(), str(tmp_path / 'other.pth')
    torch.save({**named('student.backbone.', tensors),
                **named('teacher._orig_mod.backbone.', averaged(tensors))}, path)
    backbone = FasterViT(TINY)
    if prefix is None:
        with pytest.raises(CheckpointError, match="prefix='student.backbone.'"):
            load_backbone(backbone, path)
        return
    load_backbone(backbone, path, prefix)
    assert (backbone.stem.conv1.weight.eq(7).all() == prefix.startswith('teacher'))


@pytest.mark.parametrize('prefix', ['state_dict_ema', 'state_dict_ema.model'])
def test_averaged_weights_are_used_only_on_request(tmp_path, network, prefix):
    tensors, path = network['backbone'].state_dict(), str(tmp_path / 'other.pth')
    inner = prefix.partition('.')[2]
    torch.save(dict(state_dict=tensors, state_dict_ema=named(
        inner and f'{inner}.', averaged(tensors))), path)
    backbone = FasterViT(TINY)
    load_backbone(backbone, path, prefix)
    assert backbone.stem.conv1.weight.eq(7).all()
    convert(path, str(tmp_path / 'out.pth'), prefix=prefix)
    out = read_checkpoint(str(tmp_path / 'out.pth'))['state_dict']
    assert out['stem.conv1.weight'].eq(7).all()


WHOLE = dict(
    compiled=lambda t: dict(state_dict=named('_orig_mod.', t), meta={}),
    lightning=lambda t: dict(state_dict={**named('model.', t), 'metric.total': torch.ones(1)}),
    parallel=lambda t: named('module._orig_mod.', t),
    other_entry=lambda t: dict(model=t, optimizer=dict(state={0: dict(exp_avg=torch.ones(2))})),
    ema=lambda t: dict(state_dict={**named('model_ema.module.', averaged(t)),
                                   **named('model.', t)}),
    plain=lambda t: dict(state_dict=t, state_dict_ema=averaged(t)))


@pytest.mark.parametrize('name', WHOLE)
def test_a_whole_model_is_found_too(network, name):
    tensors = network.state_dict()
    content = rename_published(WHOLE[name](tensors), network, 'other.pth')
    check_complete(network, content, 'other.pth')
    assert content['state_dict'].keys() == tensors.keys()
    assert all(torch.equal(content['state_dict'][k], v) for k, v in tensors.items())


@pytest.mark.parametrize('meta', [
    dict(dataset_meta=dict(CLASSES=('red', 'blue'), PALETTE=[[1, 2, 3], [4, 5, 6]])),
    dict(dataset_meta=dict(classes=np.array(['red', 'blue']),
                           palette=np.array([[1, 2, 3], [4, 5, 6]]))),
    dict(CLASSES=('red', 'blue'), PALETTE=[[1, 2, 3], [4, 5, 6]], epoch=1)])
def test_classes_of_numpy_and_of_the_older_generation(tmp_path, meta):
    torch.save(dict(state_dict=Line().state_dict(), meta=meta), tmp_path / 'a.pth')
    found = load_model(settings(tmp_path), str(tmp_path / 'a.pth')).dataset_meta
    assert tuple(found['classes']) == ('red', 'blue')
    assert found['palette'] == [[1, 2, 3], [4, 5, 6]]


def test_mmengines_own_runner_resumes_what_ours_saved(run, tmp_path):
    cfg = settings(tmp_path, load_from=str(run / 'iter_3.pth'), resume=True)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 6
