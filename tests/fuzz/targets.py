"""What is fuzzed: readers of files and settings that others made, and the errors that they promise.

A target takes an input, drawn by hypothesis, and fails for anything but a result or a documented
error, for code that was run, and for memory that grows.
"""
import copy
import io
import json
import pickle
import resource
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import cv2
import numpy as np
import torch
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from rich.console import Console

from fastervit_mm import FasterViT
from fastervit_mm.config_files import ConfigError
from fastervit_mm.datasets.boxes import find_boxes
from fastervit_mm.datasets.checking import check_annotations, print_problems
from fastervit_mm.datasets.folders import DataError
from fastervit_mm.engine.checks import check_config
from fastervit_mm.weights import CheckpointError, load_backbone
from tests.bad_input import workshop

MEMORY = 512 * 2**20  # bytes that all inputs of a campaign may take beyond its first
_FORBIDDEN = ('os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'os.mkdir', 'os.remove',
              'os.rename', 'os.rmdir', 'os.putenv', 'subprocess.Popen', 'socket.connect',
              'shutil.rmtree', 'ctypes.dlopen', 'pty.spawn', 'code.__new__')
# Reading is as fast as the file is small.
SMALLEST = dict(embed_dim=4, stem_channels=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
_watching: List[List[str]] = []


def _audit(event: str, arguments: tuple) -> None:
    if _watching and event in _FORBIDDEN:
        _watching[-1].append(f'{event}{arguments!r:.80}')


sys.addaudithook(_audit)


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fail if a process is started, or a file or folder is made, renamed or removed."""
    _watching.append([])
    try:
        yield
    finally:
        happened = _watching.pop()
    assert not happened, f'code was run: {happened}'


class Target(NamedTuple):
    """What is fuzzed.

    Attributes:
        inputs: Strategy of inputs.
        check: Fails for an input that is not dealt with as promised.
        size: Bytes of an input.
    """
    inputs: st.SearchStrategy
    check: Callable[[Any], None]
    size: Callable[[Any], int]


def resident() -> int:
    """Most bytes of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from([0, -1, 1e308, 10**30, float('nan'), float('inf'), '', '\ud800', '../x',
                       [], {}, [[]], 'mmdet.CocoDataset']),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner,
                                                                max_size=4), max_leaves=8)
# Where, as a number that is taken modulo the places that there are, and what comes there; None
# takes the place away.
_CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.none() | st.tuples(_JSON)), min_size=1,
                    max_size=4)
# Of bytes: where, how many go, and what comes.
_EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=12)),
                  max_size=6)


def changed(content: Any, changes: List[Tuple[int, Any]]) -> Any:
    """A copy of nested dicts and lists, with other values in some places."""
    content = copy.deepcopy(content)
    for number, value in changes:
        places = list(_places(content))
        if not places:
            break
        node, key = places[number % len(places)]
        if value is None:
            del node[key]
        else:
            node[key] = copy.deepcopy(value[0])
    return content


def _places(node: Any) -> Iterator[Tuple[Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(
        node, list) else ()
    for key, value in items:
        yield node, key
        yield from _places(value)


def edited(data: bytes, edits: List[Tuple[float, int, bytes]]) -> bytes:
    """Bytes, of which some are replaced."""
    for where, gone, new in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + gone:]
    return data


# --- checkpoints -----------------------------------------------------------------------------

_GLOBALS = [('os', 'system'), ('posix', 'mkdir'), ('builtins', 'eval'), ('builtins', 'getattr'),
            ('builtins', 'exec'), ('subprocess', 'Popen'), ('torch', 'load'), ('torch.hub', 'load'),
            ('mmengine.logging.history_buffer', 'HistoryBuffer'), ('numpy', 'ndarray'),
            ('numpy', 'dtype'), ('numpy.core.multiarray', '_reconstruct'),
            ('numpy._core.multiarray', 'scalar'), ('_codecs', 'encode'), ('argparse', 'Namespace'),
            ('collections', 'OrderedDict'), ('collections', 'defaultdict'), ('builtins', 'dict'),
            ('mmengine.config.config', 'ConfigDict'), ('pathlib', 'PosixPath'),
            ('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler'),
            ('torch._utils', '_rebuild_tensor_v2'),
            ('torch', 'FloatStorage'), ('torch', 'Size'),
            ('torch._tensor', '_rebuild_from_type_v2')]
_OPCODES = st.one_of(
    st.sampled_from(_GLOBALS).map(lambda g: f'c{g[0]}\n{g[1]}\n'.encode()),
    st.sampled_from([b'(', b'R', b't', b')', b']', b'}', b'a', b'e', b'u', b's', b'b', b'\x81',
                     b'Q', b'2', b'0', b'N', b'\x88', b'\x85', b'\x86', b'\x87', b'.']),
    st.text(max_size=8).map(lambda t: b'X' + len(t.encode()).to_bytes(4, 'little') + t.encode()),
    st.integers(0, 2**31 - 1).map(lambda n: b'J' + n.to_bytes(4, 'little')),
    st.integers(0, 255).map(lambda n: b'q' + bytes([n])),
    st.integers(0, 255).map(lambda n: b'h' + bytes([n])))


def _seeds() -> Dict[str, bytes]:
    """Whole checkpoints in each format, as mmengine and the authors write them."""
    content = dict(state_dict=FasterViT(SMALLEST).state_dict(),
                   history=HistoryBuffer([1., 2.], [1, 1]), meta=dict(epoch=1, iter=2))
    small = dict(state_dict={'stem.conv1.weight': torch.rand(8, 3, 3, 3)}, n=np.arange(4))
    seeds = {}
    for name, value in (('whole', content), ('small', small)):
        for kind in (True, False):
            buffer = io.BytesIO()
            torch.save(value, buffer, _use_new_zipfile_serialization=kind)
            seeds[f'{name}-{"zip" if kind else "old"}'] = buffer.getvalue()
    seeds['pickle'] = pickle.dumps(dict(a=[1, 2, 3]), 2)
    return seeds


class Checkpoints:
    """Reads a file, and loads what it holds into a backbone."""

    def __init__(self, folder: Path):
        self.path, self.seeds = folder / 'fuzzed.pth', _seeds()
        self.backbone = FasterViT(SMALLEST)
        pickled = st.lists(_OPCODES, max_size=30).map(b''.join)
        name = st.sampled_from(sorted(self.seeds))
        self.inputs = st.one_of(
            st.tuples(name, _EDITS).map(lambda i: edited(self.seeds[i[0]], i[1])),
            st.tuples(st.sampled_from(['whole-zip', 'small-zip']), _EDITS, st.integers(0, 9),
                      st.booleans()).map(lambda i: self._rezipped(*i)),
            pickled.map(lambda p: self._rezipped('small-zip', [], 0, False,
                                                 b'\x80\x02' + p + b'.')),
            pickled.map(lambda p: b'\x80\x02' + p + b'.'))

    def _rezipped(self, name: str, edits: list, entry: int, packed: bool, pickled: bytes = None
                  ) -> bytes:
        """An archive that is whole, of which one entry is not: mostly the pickle."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self.seeds[name])) as source, zipfile.ZipFile(
                buffer, 'w', zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as target:
            names = source.namelist()
            chosen = names[entry % len(names)] if entry > 6 else next(
                n for n in names if n.endswith('data.pkl'))
            for one in names:
                data = source.read(one)
                if one == chosen:
                    data = edited(data, edits) if pickled is None else pickled
                target.writestr(one, data)
        return buffer.getvalue()

    def check(self, data: bytes) -> None:
        self.path.write_bytes(data)
        with nothing_runs():
            try:
                load_backbone(self.backbone, str(self.path), allow_partial=True)
            except CheckpointError as error:
                assert len(str(error)) < 4000
        assert not Path(workshop.RAN).exists()


# --- annotations -----------------------------------------------------------------------------

class Annotations:
    """Checks an annotation file, prints what is wrong, and makes splits of its boxes."""

    def __init__(self, folder: Path):
        self.folder = folder / 'data'
        (self.folder / 'train').mkdir(parents=True)
        images = []
        for i in range(2):
            cv2.imwrite(str(self.folder / f'train/{i}.png'), np.zeros((8, 8, 3), np.uint8))
            images.append(dict(id=i, file_name=f'{i}.png', width=8, height=8))
        masks = ([[1, 1, 5, 1, 5, 5]], dict(size=[8, 8], counts=[9, 3, 52]),
                 dict(size=[8, 8], counts='93d1'))
        content = dict(
            images=images, categories=[dict(id=1, name='cup'), dict(id=2, name='book')],
            annotations=[dict(id=i, image_id=i % 2, category_id=1 + i % 2, bbox=[1, 1, 4, 4],
                              area=16, iscrowd=0, segmentation=mask)
                         for i, mask in enumerate(masks, 1)])
        text = json.dumps(content).encode()
        voc = (b'<annotation><filename>0.png</filename><object><name>cup</name><bndbox><xmin>1'
               b'</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>')
        yolo = b'0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.5 0.1 0.5 0.5\n'
        self.inputs = st.one_of(
            _CHANGES.map(lambda c: ('train.json', json.dumps(changed(content, c)).encode())),
            _EDITS.map(lambda e: ('train.json', edited(text, e))),
            _EDITS.map(lambda e: ('train/0.xml', edited(voc, e))),
            _EDITS.map(lambda e: ('train/0.txt', edited(yolo, e))))

    def check(self, given: Tuple[str, bytes]) -> None:
        name, data = given
        path = self.folder / name
        path.write_bytes(data)
        try:
            with nothing_runs():
                if name.endswith('.json'):
                    found = check_annotations(path, self.folder / 'train')
                    stream = io.TextIOWrapper(io.BytesIO(), encoding='utf-8')
                    print_problems(found.problems, Console(file=stream))
                try:
                    boxes = find_boxes(self.folder)
                    for split in boxes.splits:
                        list(boxes.objects(split))
                    assert all(isinstance(name, str) for name in boxes.categories)
                except DataError as error:
                    assert str(error)
        finally:
            path.unlink()


# --- configs ---------------------------------------------------------------------------------

class Configs:
    """Checks a config that is right but for some settings."""

    def __init__(self, folder: Path):
        shop = folder / 'shop'
        shop.mkdir()
        workshop.furnish(shop)
        self.shop, self.work_dir = shop, folder / 'work'
        configs = [Config.fromfile(shop / f'{name}.py') for name in ('detector', 'segmentor')]
        for cfg in configs:
            for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
                root = cfg[loader].dataset.data_root
                cfg[loader].dataset.data_root = str(shop / root)
            if 'ann_file' in cfg.val_evaluator:
                for split in ('val', 'test'):
                    cfg[f'{split}_evaluator'].ann_file = str(
                        shop / 'data/annotations/instances_val.json')
        self.configs = [json.loads(json.dumps(cfg.to_dict(), default=list)) for cfg in configs]
        # A config is a dict from a file: its keys are names.
        self.inputs = st.tuples(st.integers(0, 1), _CHANGES, st.booleans())

    def check(self, given: Tuple[int, list, bool]) -> None:
        number, changes, training = given
        settings = changed(self.configs[number], changes)
        settings['work_dir'] = str(self.work_dir)
        try:
            cfg = Config(settings)
        except Exception:  # noqa: BLE001  mmengine's: a file with such keys gives no config
            return
        try:
            check_config(cfg, training)
        except (ConfigError, CheckpointError) as error:
            assert str(error)


def target(name: str, folder: Path) -> Target:
    """The target of a name, with its files in a folder of its own."""
    made = dict(checkpoints=Checkpoints, annotations=Annotations, configs=Configs)[name](folder)
    size = dict(checkpoints=len, annotations=lambda i: len(i[1]),
                configs=lambda i: len(repr(i[1])))[name]
    return Target(made.inputs, made.check, size)


NAMES = ('checkpoints', 'annotations', 'configs')
