"""Shared parts of the bad-input cases: small data, two small networks, bad files."""
import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, Callable, Tuple, Union

import cv2
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save

from benchmarks.shapes.files import coco_annotation, label_map
from benchmarks.shapes.scenes import CLASSES, draw_scene
from fastervit_mm.models import build_model
from tests.conftest import TINY, stir
from tests.export.files import write

RAN = 'code_ran'  # the folder that code in a file would make
SIDE = 64

Make = Callable[[Path], None]

DETECTOR = f"""\
_base_ = 'fastervit_mm::mmdet/cascade_fvit_shapes.py'
metainfo = dict(classes={CLASSES!r})
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=({SIDE}, {SIDE}), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                          'scale_factor'))]
train_dataloader = dict(batch_size=2, dataset=dict(
    type='CocoDataset', data_root='data/', metainfo=metainfo,
    ann_file='annotations/instances_train.json'))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    type='CocoDataset', data_root='data/', metainfo=metainfo, pipeline=test_pipeline,
    ann_file='annotations/instances_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/annotations/instances_val.json')
test_evaluator = val_evaluator
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{TINY!r})), neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=[dict(head, fc_out_channels=32)
                             for head in _base_.model.roi_head.bbox_head]),
    test_cfg=dict(rpn=dict(nms_pre=20, max_per_img=5)))
train_cfg = dict(max_epochs=1)
auto_scale_lr = dict(base_batch_size=2)
"""
SEGMENTOR = f"""\
_base_ = 'fastervit_mm::mmseg/upernet_fvit_shapes.py'
metainfo = dict(classes={('ground', *CLASSES)!r})
train_dataloader = dict(batch_size=2, dataset=dict(
    type='BaseSegDataset', data_root='data', img_suffix='.png', metainfo=metainfo))
val_dataloader = dict(dataset=dict(
    type='BaseSegDataset', data_root='data', img_suffix='.png', metainfo=metainfo))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{TINY!r})),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=16), test_cfg=dict(_delete_=True, mode='whole'),
    data_preprocessor=dict(size=({SIDE}, {SIDE})))
train_cfg = dict(max_iters=2)
auto_scale_lr = dict(base_batch_size=2)
"""


def furnish(folder: Path) -> None:
    """Write the data, ``detector`` and ``segmentor`` with their checkpoints, and one photo.

    Args:
        folder: An empty folder. Its configs are to be used from within.
    """
    for split, first, count in (('train', 10, 4), ('val', 20, 2)):
        images, annotations = [], []
        for number in range(count):
            scene, name = draw_scene(first + number, SIDE), f'{number}.png'
            for place, pixels in ((f'data/{split}', scene.image),
                                  (f'data/labels/{split}', label_map(scene))):
                (folder / place).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / place / name), pixels)
            images.append(dict(id=number, file_name=name, width=SIDE, height=SIDE))
            annotations += [dict(coco_annotation(i), image_id=number) for i in scene.instances]
        (folder / 'data/annotations').mkdir(exist_ok=True)
        (folder / f'data/annotations/instances_{split}.json').write_text(json.dumps(dict(
            images=images, annotations=[dict(a, id=i) for i, a in enumerate(annotations, 1)],
            categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)])))
    cv2.imwrite(str(folder / 'photo.jpg'), draw_scene(30, 96).image)
    for name, text in (('detector', DETECTOR), ('segmentor', SEGMENTOR)):
        (folder / f'{name}.py').write_text(text)
        torch.manual_seed(0)
        model = build_model(Config.fromfile(folder / f'{name}.py'))
        stir(model)
        torch.save(dict(state_dict=model.state_dict()), folder / f'{name}.pth')


def writes(name: str, content: Union[str, bytes, Callable[[], bytes]]) -> Make:
    """A maker of a file."""
    def make(folder: Path) -> None:
        data = content() if callable(content) else content
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return make


def cuts(name: str, source: str, share: float = 0.5, old: bool = False) -> Make:
    """A maker of a truncated file, optionally in torch's old format."""
    def make(folder: Path) -> None:
        if old:
            saves(name, lambda content: content, old=True)(folder)
        data = (folder / (name if old else source)).read_bytes()
        (folder / name).write_bytes(data[:int(len(data) * share)])
    return make


def saves(name: str, change: Callable[[dict], Any], old: bool = False,
          source: str = 'detector.pth') -> Make:
    """A maker of a checkpoint: another's content, changed by ``change``."""
    def make(folder: Path) -> None:
        content = change(torch.load(folder / source, weights_only=True))
        torch.save(content, folder / name, _use_new_zipfile_serialization=not old)
    return make


def safe(name: str, change: Callable[[dict], dict] = dict,
         damage: Callable[[bytes], bytes] = bytes) -> Make:
    """Saves the detector's tensors, changed, as a safetensors file, and damages its bytes."""
    def make(folder: Path) -> None:
        content = torch.load(folder / 'detector.pth', weights_only=True)['state_dict']
        tensors = {k: v.contiguous() for k, v in content.items()}
        (folder / name).write_bytes(damage(save(change(tensors))))
    return make


def rezips(name: str, change: Callable[[bytes], bytes] = bytes, packed: bool = False) -> Make:
    """A maker of a checkpoint whose pickled part is changed, or that is compressed."""
    def make(folder: Path) -> None:
        kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        with zipfile.ZipFile(folder / 'detector.pth') as source, zipfile.ZipFile(
                folder / name, 'w', kind) as target:
            for entry in source.infolist():
                data = source.read(entry)
                target.writestr(entry.filename, change(data) if entry.filename.endswith(
                    'data.pkl') else data)
    return make


def enlarges(data: bytes) -> bytes:
    """A pickle that declares 2^28 numbers, a gibibyte, for its first tensor of 8 x 3 x 3 x 3."""
    for said, instead in ((216, 2**28), (8, 2**28 // 27)):
        found = b'K' + bytes([said])
        assert found in data
        data = data.replace(found, b'J' + instead.to_bytes(4, 'little'), 1)
    return data


def annotates(change: Callable[[dict], Any], name: str = 'bad.json') -> Make:
    """A maker of an annotation file: the training split's, changed in place."""
    def make(folder: Path) -> None:
        content = json.loads((folder / 'data/annotations/instances_train.json').read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return make


def draws(name: str, mode: str = 'RGB', size: Tuple[int, int] = (96, 96), frames: int = 1,
          **settings) -> Make:
    """A maker of an image as Pillow writes it."""
    def make(folder: Path) -> None:
        random = np.random.RandomState(0)
        if mode == 'I;16':
            image = Image.fromarray(random.randint(0, 65536, size[::-1], np.uint16))
        else:
            image = Image.fromarray(random.randint(0, 256, (*size[::-1], 3), np.uint8)).convert(
                mode)
        more = dict(save_all=True, append_images=[image.rotate(90)] * (frames - 1))
        more = more if frames > 1 else {}
        image.save(folder / name, **more, **settings)
    return make


def films(name: str, code: str, share: float) -> Make:
    """A maker of the first part of a video of twelve frames."""
    def make(folder: Path) -> None:
        whole = folder / f'whole_{name}'
        writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*code), 4., (96, 96))
        for number in range(12):
            writer.write(draw_scene(40 + number, 96).image)
        writer.release()
        data = whole.read_bytes()
        whole.unlink()
        (folder / name).write_bytes(data[:int(len(data) * share)])
    return make


def finder(name: str, **facts) -> Make:
    """A maker of a whole detector in a file; of one without a task, another program's."""
    def make(folder: Path) -> None:
        write(folder / name, 'detection', **facts)
    return make


class Attack:
    """Creates a folder when a reader that runs code unpickles it."""

    def __reduce__(self):
        return os.mkdir, (RAN, )


def zips(target: Path, *names: str) -> None:
    """Write files of the target's folder into a zip archive."""
    with zipfile.ZipFile(target, 'w') as archive:
        for name in names:
            archive.write(target.parent / name, name)


def turned(orientation: int) -> Image.Exif:
    """EXIF data with an image's rotation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def bomb(folder: Path) -> None:
    """Write ``bomb.png``, a few bytes that declare 60000 x 60000 pixels."""
    draws('bomb.png', size=(4, 4))(folder)
    data = bytearray((folder / 'bomb.png').read_bytes())
    data[16:24] = (60000).to_bytes(4, 'big') * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, 'big')
    (folder / 'bomb.png').write_bytes(data)


def breaks(name: str) -> Make:
    """A maker that replaces a file by text."""
    def make(folder: Path) -> None:
        (folder / name).write_text('no image')
    return make


def removes(name: str) -> Make:
    """A maker that removes a file."""
    def make(folder: Path) -> None:
        (folder / name).unlink()
    return make


def own(change: Callable[[dict], Any]) -> Make:
    """A maker of ``own/``, a user's dataset, with changed annotations."""
    def make(folder: Path) -> None:
        shutil.copytree(folder / 'data/train', folder / 'own/images/train')
        annotates(change, 'own/train.json')(folder)
    return make


def labels(content: bytes) -> Make:
    """A maker of ``own/``, an image and its YOLO labels."""
    def make(folder: Path) -> None:
        (folder / 'own').mkdir()
        shutil.copy(folder / 'data/train/0.png', folder / 'own/0.png')
        (folder / 'own/0.txt').write_bytes(content)
    return make


def copies(name: str, target: str) -> Make:
    """A maker of a copy of a folder."""
    def make(folder: Path) -> None:
        shutil.copytree(folder / name, folder / target)
    return make


def size(image: Path) -> str:
    """Width and height of an image, as text."""
    with Image.open(image) as opened:
        return f'{opened.width} x {opened.height}'
