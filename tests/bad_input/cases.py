"""Bad input and its result; each row is a test.

A row is typed in a folder that has ``detector.py`` and ``segmentor.py``, two small configs, their
checkpoints, ``data/`` with four training images, ``photo.jpg`` and what the row itself makes.
"""
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Union

import torch

from tests.bad_input import workshop as w
from tests.conftest import TINY
from tests.imagenet.conftest import save_as_published, their_model
from tests.weights import official_dino

CHECK = 'prepare_data.py check --images data/train --ann bad.json'
SEGMENT = 'infer.py segmentor.py segmentor.pth {} --out out --device cpu'
DETECT = 'infer.py detector.py detector.pth {} --out out --device cpu'


class Case(NamedTuple):
    """A row.

    Attributes:
        given: What is bad.
        command: A program of ``tools/`` and its arguments, or Python in parentheses.
        sees: The line that the user sees; ``…`` stands for any text. Of an image that is
            predicted, the overlay's width and height.
        status: Exit status; of Python, the exception's name.
        make: Makes the file that is bad.
        begins: Whether training begins before the error.
    """
    given: str
    command: str
    sees: str
    status: Union[int, str] = 1
    make: w.Make = lambda folder: None
    begins: bool = False


def _train(*settings: str) -> str:
    return ' '.join(['train.py detector.py --cfg-options', *settings])


def _test(checkpoint: str) -> str:
    return f'test.py detector.py {checkpoint}'


def _box(*box: float):
    return w.annotates(lambda c: c['annotations'][0].update(bbox=list(box)))


def _mask(segmentation):
    return w.annotates(lambda c: c['annotations'][0].update(segmentation=segmentation))


def _nan(content):
    next(iter(content['state_dict'].values()))[0, 0, 0, 0] = float('nan')
    return content


def _half(content):
    names = list(content['state_dict'])
    return dict(state_dict={k: content['state_dict'][k] for k in names[::2]})


def _starts(checkpoint: str, arch: str = '', **settings) -> w.Make:
    """``mine.py``, the detector that starts from a checkpoint, and the checkpoint."""
    return w.writes('mine.py', f"""_base_ = 'detector.py'
model = dict(backbone=dict(arch=dict({arch}), init_cfg=dict(
    _delete_=True, type='Pretrained', checkpoint={checkpoint!r}, **{settings!r})))
""")


def _both(*makers: w.Make) -> w.Make:
    def make(folder: Path) -> None:
        for one in makers:
            one(folder)
    return make


def _dino(change: Callable[[dict], Any]) -> w.Make:
    """A checkpoint of the official DINO code that is changed."""
    def make(folder: Path) -> None:
        tensors = official_dino.small_tensors()
        change(tensors)
        official_dino.save(folder / 'dino.pth', tensors)
    return make


def _w24(folder: Path) -> None:
    """The authors' network of 4-21k-384, narrow, as they publish it."""
    model = their_model('4-21k-384', dim=16, in_dim=8, depths=list(TINY['depths']),
                        num_heads=list(TINY['num_heads']))
    save_as_published(model, folder / 'w24.pth')


CLASSIFIER = f"""_base_ = 'fastervit_mm::mmpretrain/fastervit-4-21k_224_in1k.py'
arch = dict(_delete_=True, hierarchical=False, layer_scale=1e-5, **{TINY!r})
model = dict(backbone=dict(arch=arch), head=dict(in_channels=128))
"""


def _loop(folder: Path) -> None:
    (folder / 'loop.pth').symlink_to('loop.pth')


ARGUMENTS = [
    Case('a stage that does not exist',
         '(FasterViT(out_indices=(4,)))',
         'ValueError: out_indices=(4,): FasterViT has stages 0 to 3…',
         status='ValueError'),
    Case('a field that does not exist',
         "(FasterViT(dict(depth=3)))",
         "ValueError: arch={'depth': 3}: unknown fields ['depth'], missing fields ['embed_dim', "
         "'stem_channels', 'depths']; the fields are …",
         status='ValueError'),
    Case('an image smaller than 32 x 32',
         "(FasterViT('0').eval()(torch.rand(1, 3, 16, 16)))",
         'ValueError: input of shape (1, 3, 16, 16): expected (B, 3, H, W), H and W at least 32: '
         'the network divides the image by 32',
         status='ValueError'),
    Case('an image with four channels',
         "(FasterViT('0').eval()(torch.rand(1, 4, 64, 64)))",
         'ValueError: input of shape (1, 4, 64, 64): expected (B, 3, H, W)…',
         status='ValueError'),
    Case('a checkpoint that is not published',
         "(load_backbone(FasterViT('0'), 'fastervit://2'))",
         "ValueError: checkpoint='fastervit://2': no published checkpoint has this name; give "
         'one of …',
         status='ValueError'),
    Case('a config that does not exist',
         "(get_config('mmdet/cascade_fvitt'))",
         "ValueError: name='mmdet/cascade_fvitt': no config of fastervit_mm has this name; "
         'similar: …',
         status='ValueError'),
]
CONFIGS = [
    Case('an `arch` that does not exist',
         _train('model.backbone.arch=9'),
         'train: detector.py: this config cannot run as it is: model.backbone: arch=9: give one '
         "of ['0', '1', '2', …"),
    Case('an `arch` with a word for a number',
         _train('model.backbone.arch.embed_dim=wide'),
         "train: detector.py: this config cannot run as it is: model.backbone: embed_dim='wide': "
         'give a whole number of at least 1'),
    Case('an absent config',
         'train.py nowhere.py',
         "train: config='nowhere.py': no such file (…), and no config of fastervit_mm has this "
         'name; give one of …'),
    Case('a misspelt name of a config',
         'infer.py mmseg/upernet_fvitt segmentor.pth photo.jpg --out out',
         "infer: config='mmseg/upernet_fvitt': no such file (…), and no config of fastervit_mm has "
         'this name; similar: mmseg/upernet_fvit, …'),
    Case('an absent `_base_`',
         'train.py mine.py',
         "train: …mine.py: _base_='a.py': no such file (…)",
         make=w.writes('mine.py', "_base_ = 'a.py'\n")),
    Case('a Python error in a config',
         'train.py mine.py',
         "train: …mine.py, line 2: NameError: name 'nothing' is not defined",
         make=w.writes('mine.py', '\nx = nothing\n')),
    Case('a config that is not Python',
         'train.py mine.py',
         "train: mine.py, line 1: '(' was never closed: model = (",
         make=w.writes('mine.py', 'model = (')),
    Case('a config of bytes',
         'train.py mine.py',
         "train: mine.py: UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position "
         '0: invalid start byte',
         make=w.writes('mine.py', b'\xff\xfe\x00\x01')),
    Case('a config without a model',
         'train.py mine.py',
         'train: mine.py: the config has no model, train_dataloader, train_cfg, optim_wrapper; '
         'give a config of a detector, segmentor or classifier, or one that inherits from it',
         make=w.writes('mine.py', 'x = 1\n')),
    Case('a config that is a text',
         'train.py notes.txt',
         'train: …notes.txt: OSError: Only py/yml/yaml/json type are supported now!',
         make=w.writes('notes.txt', 'lr = 1')),
    Case('a missing module',
         'train.py mine.py',
         "train: mine.py: custom_imports: Failed to import nowhere (No module named 'nowhere'). "
         'Install it, or add its folder to PYTHONPATH',
         make=w.writes(
        'mine.py', "_base_ = 'detector.py'\ncustom_imports = dict(imports=['nowhere'])\n")),
    Case('a learning rate that is a word',
         _train('optim_wrapper.optimizer.lr=abc'),
         "train: detector.py: this config cannot run as it is: optim_wrapper.optimizer.lr='abc': "
         'give a number of at least 0'),
    Case('a negative learning rate',
         _train('optim_wrapper.optimizer.lr=-1'),
         'train: detector.py: this config cannot run as it is: optim_wrapper.optimizer.lr=-1: '
         'give a number of at least 0'),
    Case('a learning rate that is not a number',
         _train('optim_wrapper.optimizer.lr=nan'),
         'train: detector.py: this config cannot run as it is: optim_wrapper.optimizer.lr=nan: '
         'give a number of at least 0'),
    Case('an unknown optimizer',
         _train('optim_wrapper.optimizer.type=AdamV'),
         'train: detector.py: this config cannot run as it is: '
         "optim_wrapper.optimizer.type='AdamV': no such class is registered; similar: Adam, …"),
    Case('an unknown model',
         _train('model.type=CascadeRCN'),
         "train: detector.py: this config cannot run as it is: model.type='CascadeRCN': no such "
         'class is registered; similar: CascadeRCNN, …'),
    Case('an unknown head',
         _train('model.rpn_head.type=RPNHed'),
         "train: detector.py: this config cannot run as it is: model.rpn_head.type='RPNHed': no "
         'such class is registered; similar: RPNHead, …'),
    Case('an unknown dataset',
         _train('train_dataloader.dataset.type=CoccoDataset'),
         'train: detector.py: this config cannot run as it is: '
         "train_dataloader.dataset.type='CoccoDataset': no such class is registered; similar: "
         'CocoDataset, …'),
    Case('an unknown schedule',
         _train('param_scheduler.1.type=CosineLR'),
         'train: detector.py: this config cannot run as it is: '
         "param_scheduler.1.type='CosineLR': no such class is registered; similar: … To use your "
         'own class, name its module in custom_imports'),
    Case('an unknown step of the pipeline',
         _train('train_dataloader.dataset.pipeline.2.type=RandomFlop'),
         'train: detector.py: this config cannot run as it is: '
         "train_dataloader.dataset.pipeline.2.type='RandomFlop': no such class is registered; "
         'similar: RandomFlip, …'),
    Case('an unknown argument of the backbone',
         _train('model.backbone.depth=3'),
         'train: detector.py: this config cannot run as it is: model.backbone: …__init__() got '
         "an unexpected keyword argument 'depth'"),
    Case('stages that do not exist',
         _train('model.backbone.out_indices=(1,4)'),
         'train: detector.py: this config cannot run as it is: model.backbone: out_indices=(1, '
         '4): FasterViT has stages 0 to 3; …'),
    Case('widths that are not those of the neck',
         _train('model.neck.in_channels=[1,2,3,4]'),
         'train: detector.py: this config cannot run as it is: model.neck.in_channels=[1, 2, 3, '
         '4], but the backbone (…) gives [16, 32, 64, 128]. Set model.neck.in_channels=[16, 32, '
         '64, 128]'),
    Case('another number of classes',
         _train('model.roi_head.mask_head.num_classes=7'),
         'train: detector.py: this config cannot run as it is: '
         "model.roi_head.mask_head.num_classes=7, but the data have 4 ('circle', 'square', "
         "'triangle', 'star'). Set model.roi_head.mask_head.num_classes=4"),
    Case('a batch of no image',
         _train('train_dataloader.batch_size=0'),
         'train: detector.py: this config cannot run as it is: train_dataloader.batch_size=0: '
         'give a whole number of at least 1'),
    Case('epochs in words',
         _train('train_cfg.max_epochs=many'),
         "train: detector.py: this config cannot run as it is: train_cfg.max_epochs='many': give "
         'a whole number of at least 1'),
    Case('a scope that is a list',
         _train('default_scope=[1,2]'),
         'train: detector.py: this config cannot run as it is: …of another kind than expected '
         '(AssertionError: scope_name should be a string, but got [1, 2])'),
    Case('a negative number of workers',
         _train('train_dataloader.num_workers=-1'),
         'train: detector.py: this config cannot run as it is: train_dataloader.num_workers=-1: '
         'give a whole number of at least 0'),
    Case('a missing folder of data',
         _train('train_dataloader.dataset.data_root=gone'),
         'train: detector.py: this config cannot run as it is: '
         "train_dataloader.dataset.data_root='gone': no such folder (…). if the data are "
         'elsewhere, set train_dataloader.dataset.data_root'),
    Case('a work dir that cannot be written to',
         'train.py detector.py --work-dir /proc/nothing',
         "train: detector.py: this config cannot run as it is: work_dir='/proc/nothing': cannot "
         'be written to (No such file or directory: /proc/nothing). Give another --work-dir'),
]
CHECKPOINTS = [
    Case('cut to a half',
         _test('cut.pth'),
         "test: checkpoint='cut.pth': truncated or not a PyTorch checkpoint (… bytes at cut.pth; "
         '…). Delete it and download or copy it again',
         make=w.cuts('cut.pth', 'detector.pth')),
    Case('cut to a half, in the old format',
         _test('cut.pth'),
         "test: checkpoint='cut.pth': truncated or not a PyTorch checkpoint (… bytes at cut.pth; "
         '…). Delete it and download or copy it again',
         make=w.cuts('cut.pth', 'detector.pth', old=True)),
    Case('empty',
         _test('empty.pth'),
         "test: checkpoint='empty.pth': truncated or not a PyTorch checkpoint (0 bytes at "
         'empty.pth; EOFError). Delete it and download or copy it again',
         make=w.writes('empty.pth', '')),
    Case('a page in place of a file',
         _test('page.pth'),
         "test: checkpoint='page.pth': not a PyTorch checkpoint: it begins with "
         "b'<html><body>404 Not ' (39 bytes at page.pth). Delete it and download or copy it again",
         make=w.writes('page.pth', '<html><body>404 Not Found</body></html>')),
    Case('a zip of other files under its name',
         _test('photos.pth'),
         "test: checkpoint='photos.pth': truncated or not a PyTorch checkpoint (…; …). Delete it "
         'and download or copy it again',
         make=lambda folder: w.zips(folder / 'photos.pth', 'photo.jpg')),
    Case('safetensors, cut to a half',
         _test('cut.safetensors'),
         "test: checkpoint='cut.safetensors': truncated or not a safetensors file (… bytes at "
         'cut.safetensors; incomplete metadata, file not fully covered). Delete it and download or '
         'copy it again',
         make=w.safe('cut.safetensors', damage=lambda b: b[:len(b) // 2])),
    Case('safetensors, empty',
         _test('empty.safetensors'),
         "test: checkpoint='empty.safetensors': truncated or not a safetensors file (0 bytes at "
         'empty.safetensors; header too small). Delete it and download or copy it again',
         make=w.writes('empty.safetensors', '')),
    Case('safetensors, whose header is said to have an exabyte',
         _test('huge.safetensors'),
         "test: checkpoint='huge.safetensors': truncated or not a safetensors file (… bytes at "
         'huge.safetensors; header too large). Delete it and download or copy it again',
         make=w.safe('huge.safetensors', damage=lambda b: (2**60).to_bytes(8, 'little') + b[8:])),
    Case('safetensors, whose header gives a tensor another shape',
         _test('lie.safetensors'),
         "test: checkpoint='lie.safetensors': truncated or not a safetensors file (… bytes at "
         'lie.safetensors; invalid shape, data type, or offset for tensor). Delete it and download '
         'or copy it again',
         make=w.safe('lie.safetensors', damage=lambda b: b.replace(
             b'"shape":[16,', b'"shape":[96,', 1))),
    Case('safetensors, NaN in a weight',
         _test('nan.safetensors'),
         "test: checkpoint='nan.safetensors': NaN or infinity in 1 of … tensors (…). The training "
         'that wrote it had diverged, or the file is damaged; take an earlier checkpoint',
         make=w.safe('nan.safetensors', lambda t: {
             k: v * float('nan') if k == 'backbone.stem.conv1.weight' else v
             for k, v in t.items()})),
    Case('safetensors, of half of the tensors',
         _test('half.safetensors'),
         "test: checkpoint='half.safetensors': does not fit the model of this config: … tensors "
         'are missing …',
         make=w.safe('half.safetensors', lambda t: {k: t[k] for k in list(t)[::2]})),
    Case("safetensors, to start from, of another variant",
         'train.py mine.py',
         "train: checkpoint='other.safetensors': does not fit this backbone (arch=…): … tensors of "
         'the backbone would stay random …',
         make=_both(_starts('other.safetensors', 'depths=(1, 3, 2, 1)'),
                    w.safe('other.safetensors'))),
    Case('a PyTorch file named as safetensors',
         _test('torch.safetensors'),
         "test: checkpoint='torch.safetensors': truncated or not a safetensors file (… bytes at "
         'torch.safetensors; header too large). Delete it and download or copy it again',
         make=lambda folder: (folder / 'torch.safetensors').write_bytes(
             (folder / 'detector.pth').read_bytes())),
    Case('with code, as torch saves it',
         _test('evil.pth'),
         "test: checkpoint='evil.pth': refused, and no code in it was run. The file contains "
         'more than tensors and plain values, or is not a checkpoint: …posix.mkdir…',
         make=w.saves('evil.pth', lambda c: dict(c, extra=w.Attack()))),
    Case('with code, in the old format',
         _test('evil.pth'),
         "test: checkpoint='evil.pth': refused, and no code in it was run. The file contains "
         'more than tensors and plain values, or is not a checkpoint: …posix.mkdir…',
         make=w.saves('evil.pth', lambda c: dict(c, extra=w.Attack()), old=True)),
    Case('with code, a plain pickle',
         _test('evil.pkl'),
         "test: checkpoint='evil.pkl': refused, and no code in it was run. The file contains "
         'more than tensors and plain values, or is not a checkpoint: …',
         make=w.writes('evil.pkl', lambda: pickle.dumps(w.Attack()))),
    Case('with code, to continue from',
         'train.py detector.py --resume evil.pth',
         "train: checkpoint='evil.pth': refused, and no code in it was run. The file contains "
         'more than tensors and plain values, or is not a checkpoint: …posix.mkdir…',
         make=w.saves('evil.pth', lambda c: dict(c, extra=w.Attack()))),
    Case('of another network',
         _test('segmentor.pth'),
         "test: checkpoint='segmentor.pth': does not fit the model of this config: … of … "
         'tensors are missing […], 0 have another shape [], 82 of the file have no place […]. '
         'Give the config that the checkpoint was trained with; it is in the same work directory. '
         'The file looks like …'),
    Case('of another library',
         _test('resnet.pth'),
         "test: checkpoint='resnet.pth': does not fit the model of this config: … 1 of the file "
         "have no place ['layer1.0.conv1.weight']. Give the config that the checkpoint was "
         'trained with; it is in the same work directory',
         make=w.saves('resnet.pth', lambda c: {'layer1.0.conv1.weight': torch.rand(8, 8)})),
    Case('of another variant',
         'train.py mine.py --cfg-options '
         'model.neck.in_channels=[32,64,128,256]',
         "train: checkpoint='detector.pth': does not fit this backbone (…): … tensors of the "
         'backbone would stay random (…); … have another shape (…). The file looks like a '
         'custom FasterViT with {…}. Set arch to that; allow_partial=True in init_cfg loads what '
         'fits',
         make=_starts('detector.pth', 'embed_dim=32')),
    Case('another prefix than the file has',
         'train.py mine.py',
         "train: checkpoint='detector.pth': not a FasterViT: no tensor in it has a name and a "
         'shape of the backbone\'s. It looks like no FasterViT; its first '
         "names are [… below prefix='neck'",
         make=_starts('detector.pth', prefix='neck')),
    Case('with half of the tensors',
         _test('half.pth'),
         "test: checkpoint='half.pth': does not fit the model of this config: … of … tensors "
         'are missing […], 0 have another shape [], 0 of the file have no place []. Give the '
         'config that the checkpoint was trained with; it is in the same work directory. …',
         make=w.saves('half.pth', _half)),
    Case('with half of the tensors, to start from',
         'train.py mine.py',
         "train: checkpoint='half.pth': does not fit this backbone (…): … tensors of the "
         'backbone would stay random (…). … allow_partial=True in init_cfg loads what fits',
         make=_both(_starts('half.pth'), w.saves('half.pth', _half))),
    Case('of the authors, of a network with other windows',
         'infer.py classifier.py w24.pth photo.jpg --out out',
         "infer: checkpoint='w24.pth': trained with windows of 24 and 12 cells a side in stages 3 "
         'and 4, but arch={…} has 7 and 7, in which its position terms would stand for other '
         'places. Set window_size=(24, 12), as the file has, or other_windows=True …',
         make=_both(w.writes('classifier.py', CLASSIFIER), _w24)),
    Case('without a tensor',
         _test('list.pth'),
         "test: checkpoint='list.pth': contains no named tensors, but a list. Expected a state "
         'dict, or a dict with one under "state_dict"',
         make=w.saves('list.pth', lambda c: [1, 2, 3])),
    Case('with NaN in a tensor',
         _test('nan.pth'),
         "test: checkpoint='nan.pth': NaN or infinity in 1 of … tensors "
         '(backbone.stem.conv1.weight). The training that wrote it had diverged, or the file is '
         'damaged; take an earlier checkpoint',
         make=w.saves('nan.pth', _nan)),
    Case('with NaN in a tensor, to start from',
         'train.py mine.py',
         "train: checkpoint='nan.pth': NaN or infinity in 1 of … tensors (stem.conv1.weight). "
         'The training that wrote it had diverged, or the file is damaged; take an earlier '
         'checkpoint',
         make=_both(_starts('nan.pth'), w.saves('nan.pth', _nan))),
    Case('that says it has 2^28 numbers where it has 216',
         _test('huge.pth'),
         "test: checkpoint='huge.pth': truncated or not a PyTorch checkpoint (…). Delete it and "
         'download or copy it again',
         make=w.rezips('huge.pth', w.enlarges)),
    Case('with code, for a backbone alone',
         "(load_backbone(FasterViT(), 'evil.pth'))",
         "CheckpointError: checkpoint='evil.pth': refused, and no code in it was run. …",
         'CheckpointError', make=w.saves('evil.pth', lambda c: dict(c, extra=w.Attack()))),
    Case('of another network, to predict with',
         'infer.py segmentor.py detector.pth photo.jpg --out out',
         "infer: checkpoint='detector.pth': does not fit the model of this config: …. Give the "
         'config that the checkpoint was trained with; it is in the same work directory. The file '
         'looks like …'),
    Case('missing, to predict with',
         'infer.py segmentor.py gone.pth photo.jpg --out out',
         "infer: checkpoint='gone.pth': no such file (…)"),
    Case('compressed, so that a small file could be any size',
         _test('packed.pth'),
         "test: checkpoint='packed.pth': a compressed archive (… bytes, … uncompressed), which "
         'torch.save does not write. Take the file from its original source',
         make=w.rezips('packed.pth', packed=True)),
    Case('a detector of the official DINO code without one tensor',
         'convert_weights.py dino.pth out.pth',
         "convert_weights: checkpoint='dino.pth': not a whole DINO detector with FasterViT: "
         'tensors missing: 1 (label_enc.weight). Take the file from its original source',
         make=_dino(lambda tensors: tensors.pop('label_enc.weight'))),
    Case('one of a later DINO',
         'convert_weights.py dino.pth out.pth',
         "convert_weights: checkpoint='dino.pth': not a whole DINO detector with FasterViT: "
         'tensors without a place: 1 (refpoint_embed.weight). Take the file from its original '
         'source',
         make=_dino(lambda tensors: tensors.update({'refpoint_embed.weight': torch.ones(30, 4)}))),
    Case('one of a variant with carrier tokens',
         'convert_weights.py dino.pth out.pth',
         "convert_weights: checkpoint='dino.pth': a DINO detector whose FasterViT has carrier "
         'tokens (0 to 6), in an order that this backbone cannot reproduce with any weights. '
         'Detectors without carriers (4-21k) can be converted',
         make=_dino(lambda tensors: tensors.update(
             {'backbone.0.levels.2.blocks.0.hat_norm1.weight': torch.ones(32)}))),
    Case('a tensor of 4 TB that is one number',
         'convert_weights.py wide.pth out.pth',
         "convert_weights: checkpoint='wide.pth': its tensors would take 3725.3 GiB, but the "
         'file has … GiB. Take the file from its original source',
         make=w.saves('wide.pth', lambda c: dict(state_dict=dict(c['state_dict'], **{
             'backbone.wide': torch.zeros(1).expand(10**6, 10**6)})))),
    Case('a link to itself',
         _test('loop.pth'),
         "test: detector.py: this config cannot run as it is: load_from='loop.pth': "
         'a link that leads to no file (…). Give a file, a URL or a published name such as '
         'fastervit://2-224-1k',
         make=_loop),
    Case('a folder',
         _test('data'),
         "test: detector.py: this config cannot run as it is: load_from='data': a "
         'folder; give a file in it (…). Give a file, a URL or a published name such as '
         'fastervit://2-224-1k'),
    Case('an address that does not answer',
         _test('http://127.0.0.1:9/epoch_36.pth'),
         "test: checkpoint='http://127.0.0.1:9/epoch_36.pth': http://127.0.0.1:9/epoch_36.pth "
         'could not be downloaded (<urlopen error …>). Download it elsewhere and put it at …'),
    Case('to continue from, without the state of training',
         'train.py detector.py --resume detector.pth',
         "train: checkpoint='detector.pth': has no training state to resume (no "
         'meta, no message_hub). To start from its weights, leave --resume out: --cfg-options '
         'load_from=detector.pth'),
    Case('missing, to continue from',
         'train.py detector.py --resume gone.pth',
         "train: resume='gone.pth': no such checkpoint (…)"),
]
COMMANDS = [
    Case('no argument',
         'train.py',
         'train.py: error: the following arguments are required: config',
         status=2),
    Case('an unknown option',
         'train.py detector.py --epochs 3',
         'train.py: error: unrecognized arguments: --epochs 3',
         status=2),
    Case('a setting without a value',
         'train.py detector.py --cfg-options lr',
         "train.py: error: argument --cfg-options: give KEY=VALUE, each; got 'lr' (…)",
         status=2),
    Case('a setting that goes nowhere',
         _train('model.backbone.arch.embed_dim.x.y=1'),
         "train: detector.py: --cfg-options: embed_dim={'x': {'y': 1}} in child config cannot "
         'inherit from base because embed_dim is a dict in the child config but is of type '
         "<class 'int'> in base config. …"),
    Case('an unknown launcher',
         'train.py detector.py --launcher ssh',
         "train.py: error: argument --launcher: invalid choice: 'ssh' (choose from …)",
         status=2),
    Case('an unknown type for mixed precision',
         'train.py detector.py --amp fp8',
         "train: amp='fp8': give one of bf16, fp16"),
    Case("a detector's predictions to a text",
         'test.py detector.py detector.pth --out a.txt',
         "test: out='a.txt': a detector's predictions go to one file; give a name that ends in "
         '.pkl'),
    Case('a batch of none',
         SEGMENT.format('photo.jpg --batch-size 0'),
         'infer: batch_size=0: give at least 1'),
    Case('a batch in words',
         SEGMENT.format('photo.jpg --batch-size two'),
         "infer.py: error: argument --batch-size: invalid int value: 'two'",
         status=2),
    Case('a score above 1',
         SEGMENT.format('photo.jpg --score-thr 30'),
         'infer: score_thr=30.0: give a score from 0 to 1'),
    Case('a device that is not here',
         'infer.py segmentor.py segmentor.pth photo.jpg --out out --device cuda:77',
         "infer: device='cuda:77': not available (…); give cpu or, with a GPU that torch sees, "
         'cuda:0'),
    Case('a device that does not exist',
         'infer.py segmentor.py segmentor.pth photo.jpg --out out --device toaster',
         "infer: device='toaster': not available (…); give cpu or, with a GPU that torch sees, "
         'cuda:0'),
    Case('a folder for results that cannot be written to',
         'infer.py segmentor.py segmentor.pth photo.jpg --out /proc/nothing',
         "infer: out='/proc/nothing': cannot be written to (No such file or directory: "
         '/proc/nothing). Give another --out'),
    Case('a file that would be overwritten',
         'convert_weights.py detector.pth photo.jpg',
         "convert_weights: OUT='photo.jpg': exists already; give a new name or remove it"),
    Case('an unknown kind of export',
         'export.py segmentor.py segmentor.pth model.xyz',
         "export: path='model.xyz': give a name that ends in .onnx or .pt2"),
    Case('a head that cannot be exported',
         'export.py detector.py detector.pth model.onnx --part whole --cfg-options '
         'model.roi_head.mask_head.type=HTCMaskHead model.roi_head.mask_head.with_conv_res=False',
         'export: HTCMaskHead cannot be exported; served are StandardRoIHead, … Export --part '
         'features, and run the heads after them'),
    Case('a folder in place of an exported file',
         'infer.py data.onnx photo.jpg --out out',
         'infer: data.onnx: a folder; give a file that tools/export.py wrote',
         make=lambda folder: (folder / 'data.onnx').mkdir()),
    Case('an exported file that is gone',
         'infer.py gone.onnx photo.jpg --out out',
         'infer: gone.onnx: no such file; give a file that tools/export.py wrote'),
    Case('an exported file that is text',
         'infer.py text.onnx photo.jpg --out out',
         'infer: text.onnx: onnxruntime … cannot read it (…)',
         make=w.breaks('text.onnx')),
    Case('another program\'s ONNX file',
         'infer.py other.onnx photo.jpg --out out',
         'infer: other.onnx: not a whole network of tools/export.py; export one with --part whole',
         make=w.finder('other.onnx', task=None)),
    Case('an image too small for an exported file',
         'infer.py finder.onnx photo.jpg --out out',
         'infer: photo.jpg gave no prediction: 96 x 96 pixels, 200 x 300 for the network, which '
         'takes at least 256 a side',
         make=w.finder('finder.onnx', smallest=256, resize=dict(scale=[200, 300]))),
    Case('an image that an exported file cannot be run on',
         'infer.py finder.onnx bad.jpg --out out',
         "infer: bad.jpg gave no prediction: cannot identify image file 'bad.jpg'",
         make=lambda folder: (w.finder('finder.onnx')(folder), w.breaks('bad.jpg')(folder))),
    Case('images that would be overwritten',
         'infer.py finder.onnx out/vis --out out',
         'infer: out: the input out/vis/mine.jpg would be replaced by a result; give another '
         'folder',
         make=lambda folder: (w.finder('finder.onnx')(folder),
                              (folder / 'out/vis').mkdir(parents=True),
                              w.draws('out/vis/mine.jpg')(folder))),
    Case('tiles that are too small',
         'infer.py detector.py detector.pth photo.jpg --out out --tile 8',
         'infer: tile=8: give at least 32 pixels'),
    Case('tiles for a segmentor',
         'infer.py segmentor.py segmentor.pth photo.jpg --out out --tile 64',
         'infer: tile=64: only for detectors of objects; leave it out'),
    Case('an unknown variant',
         'complexity.py 9',
         "complexity: config='9': no such file (…), and no config of fastervit_mm has this name; "
         'give one of …'),
    Case('a point outside of the image',
         'visualize.py segmentor.py segmentor.pth photo.jpg --point 500 5 --out out',
         'visualize: point=(500.0, 5.0): the image is 96 wide and 96 high; give x from 0 to 95 '
         'and y from 0 to 95'),
    Case('annotations without their images',
         'prepare_data.py check --ann a.json',
         'prepare_data.py check: error: the following arguments are required: --images',
         status=2),
    Case('missing data',
         'new_config.py det mine.py --data gone',
         "new_config: data='…gone': no such folder (…)"),
    Case('data without annotations',
         'new_config.py det mine.py --data data/train',
         "new_config: data='…data/train': 4 images, but no boxes. Looked for: COCO (…), Pascal "
         'VOC (…), YOLO (…)'),
]
IMAGES = [
    Case('a JPEG cut short',
         SEGMENT.format('cut.jpg'),
         'infer: cut.jpg gave no prediction: OSError: image file is truncated (… bytes not '
         'processed)',
         make=w.cuts('cut.jpg', 'photo.jpg')),
    Case('16 bits',
         SEGMENT.format('deep.png'),
         '288 x 288',
         status=0, make=w.draws('deep.png', 'I;16')),
    Case('grey',
         SEGMENT.format('grey.png'),
         '288 x 288',
         status=0, make=w.draws('grey.png', 'L')),
    Case('with transparency',
         SEGMENT.format('clear.png'),
         '288 x 288',
         status=0, make=w.draws('clear.png', 'RGBA')),
    Case('CMYK',
         SEGMENT.format('print.jpg'),
         '288 x 288',
         status=0, make=w.draws('print.jpg', 'CMYK')),
    Case('turned by its EXIF tag',
         SEGMENT.format('turned.jpg'),
         '144 x 288',
         status=0, make=w.draws('turned.jpg', size=(96, 48), exif=w.turned(6))),
    Case('1 x 1',
         SEGMENT.format('dot.png'),
         'infer: dot.png gave no prediction: input of shape (1, 3, 1, 1): expected (B, 3, H, W), H '
         'and W at least 32: the network divides the image by 32',
         make=w.draws('dot.png', size=(1, 1))),
    Case('1 x 1, for a detector',
         DETECT.format('dot.png'),
         '3 x 3',
         status=0, make=w.draws('dot.png', size=(1, 1))),
    Case('20000 x 20',
         SEGMENT.format('strip.png'),
         'infer: strip.png gave no prediction: input of shape (1, 3, 20, 20000): expected …',
         make=w.draws('strip.png', size=(20000, 20))),
    Case('20000 x 20, for a detector',
         DETECT.format('strip.png'),
         'infer: strip.png gave no prediction: the pipeline cannot take an image of this size (…)',
         make=w.draws('strip.png', size=(20000, 20))),
    Case('an SVG named .png',
         SEGMENT.format('logo.png'),
         'infer: logo.png gave no prediction: UnidentifiedImageError: cannot identify image file '
         "'logo.png'",
         make=w.writes(
        'logo.png', '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')),
    Case('an animated GIF',
         SEGMENT.format('cat.gif'),
         '288 x 288',
         status=0, make=w.draws('cat.gif', frames=3)),
    Case('empty',
         SEGMENT.format('empty.png'),
         'infer: empty.png gave no prediction: UnidentifiedImageError: cannot identify image '
         "file 'empty.png'",
         make=w.writes('empty.png', '')),
    Case('that says it is 60000 x 60000',
         SEGMENT.format('bomb.png'),
         'infer: bomb.png gave no prediction: ValueError: 60000 x 60000 pixels; OpenCV reads at '
         'most 2^30',
         make=w.bomb),
    Case('a text',
         SEGMENT.format('notes.txt'),
         'infer: notes.txt gave no prediction: UnidentifiedImageError: cannot identify image '
         "file 'notes.txt'",
         make=w.writes('notes.txt', 'a text')),
    Case('a missing file',
         SEGMENT.format('gone.jpg'),
         'infer: gone.jpg gave no prediction: no such file or folder (…)'),
    Case('a folder without images',
         SEGMENT.format('data/annotations'),
         'infer: data/annotations gave no prediction: a folder without images or videos'),
    Case('a pattern that nothing matches',
         SEGMENT.format('"*.webp"'),
         'infer: *.webp gave no prediction: no image or video matches this pattern'),
    Case('a link to itself',
         SEGMENT.format('loop.pth'),
         'infer: loop.pth gave no prediction: no such file or folder (…)',
         make=_loop),
]
TRAINING = [
    Case('a training image of text',
         'train.py detector.py',
         'train: data/train/1.png: not an image that OpenCV can read. "python '
         '…tools/prepare_data.py check" finds every such file',
         make=w.breaks('data/train/1.png'), begins=True),
    Case('a missing training image',
         'train.py detector.py',
         "train: [Errno 2] No such file or directory: 'data/train/1.png'",
         make=w.removes('data/train/1.png'), begins=True),
    Case('the same, read by another process',
         _train('train_dataloader.num_workers=1', 'train_dataloader.persistent_workers=True'),
         "train: FileNotFoundError: [Errno 2] No such file or directory: 'data/train/1.png'",
         make=w.removes('data/train/1.png'), begins=True),
]
ANNOTATIONS = [
    Case('a box with NaN',
         CHECK,
         'bad.json: annotation 1: bbox=[1, 2, nan, 4]',
         make=_box(1, 2, float('nan'), 4)),
    Case('a box of infinite width',
         CHECK,
         'bad.json: annotation 1: bbox=[1, 2, inf, 4]',
         make=_box(1, 2, float('inf'), 4)),
    Case('a box of negative size',
         CHECK,
         'problem: box of negative size: 1',
         make=_box(30, 30, -5, 4)),
    Case('a box outside of its image',
         CHECK,
         'bad.json: annotation 1: [60, 60, 20, 20] in 64 x 64 (0.png)',
         make=_box(60, 60, 20, 20)),
    Case('a box of three numbers',
         CHECK,
         'bad.json: annotation 1: bbox=[1, 2, 3]',
         make=_box(1, 2, 3)),
    Case('a polygon of two points',
         CHECK,
         'problem: polygon with fewer than 6 numbers: 1',
         make=_mask([[1, 2, 3, 4]])),
    Case('a polygon with NaN',
         CHECK,
         'bad.json: annotation 1: a list of polygons of finite numbers is expected, [[x1, y1, '
         'x2, y2, ...], ...] (0.png)',
         make=_mask([[1, 2, 3, 4, 5, float('nan')]])),
    Case('run lengths of another size',
         CHECK,
         'bad.json: annotation 1: [9, 9] (height, width), the image [64, 64] (0.png)',
         make=_mask(dict(size=[9, 9], counts=[81]))),
    Case('run lengths that do not add up',
         CHECK,
         'problem: run lengths that cannot be decoded: 1',
         make=_mask(dict(size=[64, 64], counts=[1, 2]))),
    Case('an id given twice',
         CHECK,
         'problem: annotation id given twice: 1',
         make=w.annotates(
        lambda c: c['annotations'][1].update(id=c['annotations'][0]['id']))),
    Case("an image's id given twice",
         CHECK,
         'problem: image id given twice: 1',
         make=w.annotates(lambda c: c['images'][1].update(id=c['images'][0]['id']))),
    Case('a category that does not exist',
         CHECK,
         'bad.json: annotation 1: category 99',
         make=w.annotates(lambda c: c['annotations'][0].update(category_id=99))),
    Case('categories that are words',
         CHECK,
         "bad.json: category number 0: 'cup'",
         make=w.annotates(lambda c: c.update(categories=['cup', 'book']))),
    Case('categories that are one dict',
         CHECK,
         'bad.json: no list categories; a COCO file has the lists images, categories, annotations',
         make=w.annotates(lambda c: c.update(categories=dict(id=1, name='cup')))),
    Case('a missing image',
         CHECK,
         'problem: annotated image that is missing: 1',
         make=w.annotates(lambda c: c['images'][0].update(file_name='gone.png'))),
    Case('invalid JSON',
         CHECK,
         'bad.json: Expecting value: line 1 column 13 (char 12)',
         make=w.writes('bad.json', '{"images": [')),
    Case('an empty file',
         CHECK,
         'bad.json: Expecting value: line 1 column 1 (char 0)',
         make=w.writes('bad.json', '')),
    Case('no text at all',
         CHECK,
         "bad.json: 'utf-16-le' codec can't decode byte 0xfa in position 2: truncated data",
         make=w.writes('bad.json', b'\xff\xfe\xfa')),
    Case('invalid JSON, in training',
         _train('train_dataloader.dataset.ann_file=../bad.json'),
         'train: detector.py: this config cannot run as it is: '
         "train_dataloader.dataset.ann_file='data/../bad.json': not an annotation file as COCO "
         'has them (Expecting value: line 1 column 13 (char 12)). …',
         make=w.writes('bad.json', '{"images": [')),
    Case('an empty file, in training',
         _train('train_dataloader.dataset.ann_file=../bad.json'),
         'train: detector.py: this config cannot run as it is: '
         "train_dataloader.dataset.ann_file='data/../bad.json': not an annotation file as COCO "
         'has them (it is empty). …',
         make=w.writes('bad.json', '')),
    Case('categories that are words, in training',
         _train('train_dataloader.dataset.ann_file=../bad.json'),
         'train: detector.py: this config cannot run as it is: '
         "train_dataloader.dataset.ann_file='data/../bad.json': not an annotation file as COCO "
         'has them (no list of categories, each a dict with a name). …',
         make=w.annotates(lambda c: c.update(categories=['cup', 'book']))),
    Case('a list, in training',
         _train('train_dataloader.dataset.ann_file=../bad.json'),
         'train: detector.py: this config cannot run as it is: '
         "train_dataloader.dataset.ann_file='data/../bad.json': not an annotation file as COCO "
         'has them (no list of categories, each a dict with a name). …',
         make=w.writes('bad.json', '[]')),
    Case('entries without a key, for a new config',
         'new_config.py det mine.py --data own',
         'new_config: …own/train.json: keys missing: annotation 1: no image_id. "python '
         '…tools/prepare_data.py check --ann …own/train.json --images …own/images/train" lists '
         'all that is wrong',
         make=w.own(lambda c: c['annotations'][0].pop('image_id'))),
    Case('a box with NaN, for a new config',
         'new_config.py det mine.py --data own',
         'new_config: …own/train.json: malformed entry: annotation 1: bbox=[1, 2, nan, 4]. "python '
         '…tools/prepare_data.py check --ann …own/train.json --images …own/images/train" lists '
         'all that is wrong',
         make=w.own(lambda c: c['annotations'][0].update(bbox=[1, 2, float('nan'), 4]))),
    Case('a box of words, for a new config',
         'new_config.py det mine.py --data own',
         "new_config: …own/train.json: malformed entry: annotation 1: bbox='1 2 3 4'. \"python "
         '…tools/prepare_data.py check --ann …own/train.json --images …own/images/train" lists '
         'all that is wrong',
         make=w.own(lambda c: c['annotations'][0].update(bbox='1 2 3 4'))),
    Case('label maps in colour',
         'prepare_data.py check --images data/train --label-maps colour',
         'problem: label map that is a colour image: 4',
         make=w.copies('data/train', 'colour')),
    Case('YOLO labels that are not text',
         'new_config.py det mine.py --data own',
         "new_config: …own/0.txt: not UTF-8 text ('utf-8' codec can't decode byte …)",
         make=w.labels(b'0 0.5 0.5 0.2 0.2\xff')),
    Case('one image with YOLO labels',
         'new_config.py det mine.py --data own',
         'new_config: …own: one training image, 0.png; training needs another for validation',
         make=w.labels(b'\n')),
    Case('YOLO labels of the ten billionth class',
         'new_config.py det mine.py --data own',
         "new_config: …own/0.txt: line 1: '9999999999 0.5 0.5 0.2 0.2'; expected a class from 0 to "
         '9999, then x, y, width and height, or a polygon, all relative to the image',
         make=w.labels(b'9999999999 0.5 0.5 0.2 0.2')),
    Case('a YOLO box with NaN',
         'new_config.py det mine.py --data own',
         "new_config: …own/0.txt: line 1: '0 nan 0.5 0.2 0.2'; expected a class from 0 to 9999, "
         'then x, y, width and height, or a polygon, all relative to the image',
         make=w.labels(b'0 nan 0.5 0.2 0.2')),
    Case('run lengths of a million bits',
         CHECK,
         'problem: run lengths that cannot be decoded: 1',
         make=_mask(dict(size=[64, 64], counts='o' * 200_000))),
    Case('lists in lists, a hundred thousand deep',
         CHECK,
         'problem: unreadable annotation file: 1',
         make=w.writes('bad.json', '[' * 100_000)),
]
VIDEOS = [
    Case('cut to a half: the index is gone',
         SEGMENT.format('cut.mp4'),
         'infer: cut.mp4 gave no prediction: not a video that OpenCV can read',
         make=w.films('cut.mp4', 'mp4v', 0.5)),
    Case('cut to a half: the frames before it count',
         SEGMENT.format('half.avi'),
         'infer: half.avi gave no prediction: … of 12 frames could be read',
         make=w.films('half.avi', 'MJPG', 0.5)),
    Case('a text',
         SEGMENT.format('notes.mp4'),
         'infer: notes.mp4 gave no prediction: not a video that OpenCV can read',
         make=w.writes('notes.mp4', 'a text')),
]
PARTS: Dict[str, List[Case]] = {
    'Arguments': ARGUMENTS, 'Configs': CONFIGS, 'Checkpoint files': CHECKPOINTS,
    'Command lines': COMMANDS, 'Images': IMAGES, 'Videos': VIDEOS, 'Images in training': TRAINING,
    'Annotations': ANNOTATIONS}
TOGETHER = ('Images', 'Videos')  # a run of many inputs, as people have them
