"""The checkpoint reader makes plain values, on every torch, and runs no code."""
import argparse
import io
import pickle
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler

from fastervit_mm.weights import CheckpointError
from fastervit_mm.weights.reading import read_checkpoint
from fastervit_mm.weights.restricted import CheckpointPickle
from tests.bad_input.workshop import Attack


def same(a, b):
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return a.dtype == b.dtype and bool((a == b).all())
    if isinstance(a, (HistoryBuffer, argparse.Namespace)):
        return same(vars(a), vars(b))
    return type(a) is type(b) and (a == b or a is b)


@pytest.mark.parametrize('zipped', [True, False])
def test_the_usual_contents_of_checkpoints_are_read(tmp_path, zipped):
    tensors = OrderedDict(a=torch.rand(3, 2), b=torch.ones(2).bfloat16(), n=torch.tensor(7))
    tensors['view'] = tensors['a'][:, 1]
    tensors._metadata = dict(version=1)
    content = dict(
        state_dict=tensors, parameter=torch.nn.Parameter(torch.rand(2)),
        optimizer=torch.optim.AdamW([torch.nn.Parameter(torch.rand(2))]).state_dict(),
        message_hub=dict(loss=HistoryBuffer([1.0, 2.0], [1, 1]), mean=np.float32(0.5)),
        args=argparse.Namespace(lr=5e-3, mean=(0.485, )), seed=2**40, dtype=torch.float16,
        words=['a', None, True, {1, 2}, b'\x00\xff', 1.5], device=torch.device('cpu'),
        array=np.arange(6, dtype='int64').reshape(2, 3), size=torch.Size([1, 2]))
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    again = read_checkpoint(path)
    assert same(again, content)
    assert again['state_dict']._metadata == tensors._metadata
    assert again['message_hub']['loss'].mean() == 1.5


def test_a_history_that_is_read_first_knows_its_statistics(monkeypatch):
    """As in a resumed run: the first history of this process."""
    file = io.BytesIO()
    pickle.dump(HistoryBuffer([1.0, 2.0], [1, 1]), file, protocol=2)
    file.seek(0)
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', {})
    assert CheckpointPickle.load(file).statistics('mean') == 1.5


class Call:
    """An object that is pickled as a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


# Sets an attribute of a class, which restoring an object's state can where only names are checked.
CLASS_CHANGED = (b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
                 b'(N}X\x04\x00\x00\x00meanK\x01stb.')
EVIL = dict(
    attack=lambda: Attack(), eval=lambda: Call(eval, ('1', )),
    getattr=lambda: Call(getattr, (HistoryBuffer, '__init__')),
    scheduler_made=lambda: Call(OneCycleParamScheduler, ()),
    scheduler_reached=lambda: Call(getattr, (OneCycleParamScheduler, '__init__')),
    module=lambda: torch.nn.Linear(1, 1), instance=lambda: pickle.PickleBuffer)
RAW = dict(
    class_changed=CLASS_CHANGED,
    item_of_no_dict=b'ctorch\nSize\nK\x01\x85\x85RK\x00K\x01s.',
    old_instance=b'(ios\nsystem\n.', old_object=b'(cos\nsystem\no.',
    extension=b'\x82\x01.', call_of_a_value=b'K\x01)R.', instance_of_a_value=b'K\x01)\x81.')


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', EVIL)
def test_other_contents_are_refused(tmp_path, name, zipped, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=EVIL[name]()), 'evil.pth',
               _use_new_zipfile_serialization=zipped)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match='refused, and no code in it was run'):
        read_checkpoint('evil.pth')
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('name', RAW)
def test_no_pickle_operation_bypasses_the_allow_list(name):
    mean = HistoryBuffer.mean
    with pytest.raises((pickle.UnpicklingError, KeyError)):
        CheckpointPickle.load(io.BytesIO(b'\x80\x02' + RAW[name]))
    assert HistoryBuffer.mean is mean


def test_torchscript_and_tar_are_refused_before_torch_sees_them(tmp_path, monkeypatch):
    torch.jit.script(torch.nn.ReLU()).save(tmp_path / 'script.pth')
    with tarfile.open(tmp_path / 'tar.pth', 'w') as tar:
        tar.addfile(tarfile.TarInfo('\x80storages'), io.BytesIO())
    monkeypatch.setattr(torch, 'load', lambda *a, **k: pytest.fail('torch.load was called'))
    for name in ('script.pth', 'tar.pth'):
        with pytest.raises(CheckpointError):
            read_checkpoint(str(tmp_path / name))
