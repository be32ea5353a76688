"""Counts equal published ones, those by hand, and each other in every mode."""
import json
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from torch import nn

from fastervit_mm import FasterViT, complexity
from fastervit_mm.backbone import attention, positions
from fastervit_mm.engine import onednn
from fastervit_mm.models import build_model
from tests.conftest import REPO, TINY, needs_torch

DET = str(REPO / 'configs/mmdet/cascade_fvit_shapes.py')
SEG = str(REPO / 'configs/mmseg/upernet_fvit_shapes.py')
SIZE = (224, 448)
C, HEADS, HIDDEN = 64, 2, 512  # stage 3 of TINY, and the width of every position MLP


@pytest.mark.parametrize('arch, side, params, macs', [
    ('0', 224, 31.4, 3.49), ('1', 224, 53.4, 5.50), ('2', 224, 75.9, 8.97),
    ('3', 224, 159.5, 18.71), ('4', 224, 365.6, 43.23), ('4-21k-224', 224, 271.9, 41.59),
    ('4-21k-384', 384, 271.9, 126.56)])
def test_variants_count_what_was_measured_of_the_authors(arch, side, params, macs):
    found = complexity.analyse(arch)
    assert found.shape == (side, side)
    assert found.total.parameters / 1e6 == pytest.approx(params, rel=0.01)
    assert found.total.multiply_adds / 1e9 == pytest.approx(macs, rel=0.01)


def test_a_whole_segmentor_counts_what_was_measured():
    """At the papers' size, the default; the auxiliary head is unused in inference."""
    found = complexity.analyse(str(REPO / 'configs/mmseg/upernet_fvit.py'))
    assert found.shape == (512, 2048)
    macs = group(found)
    assert macs['backbone'] / 1e9 == pytest.approx(209, rel=0.01)
    assert macs['decode_head'] / 1e9 == pytest.approx(845, rel=0.01)
    assert set(macs) == {'backbone', 'decode_head', 'auxiliary_head'}
    assert macs['auxiliary_head'] == 0 and part(found, 'auxiliary_head').parameters > 0


@pytest.mark.parametrize('heads, params, macs', [
    ("_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'", 48, 267),
    pytest.param(f"""
_base_ = '{REPO}/configs/mmdet/cascade_fvit.py'
model = dict(
    backbone=dict(
        _delete_=True, type='SwinTransformer', embed_dims=96, depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24], window_size=7, convert_weights=True),
    neck=dict(in_channels=[96, 192, 384, 768]))""", 86, 745, marks=pytest.mark.long),
], ids=['Mask R-CNN', 'Cascade Mask R-CNN'])
def test_a_peer_in_a_whole_detector_counts_what_its_authors_published(heads, params, macs,
                                                                      tmp_path):
    """Swin-T's own table of detectors: 48 M and 267 G, 86 M and 745 G (800 x 1280)."""
    (tmp_path / 'swin.py').write_text(heads)
    found = complexity.analyse(str(tmp_path / 'swin.py'))
    assert (found.proposals, found.detections) == (1000, 100)
    assert found.total.parameters / 1e6 == pytest.approx(params, rel=0.01)
    assert found.total.multiply_adds / 1e9 == pytest.approx(macs, rel=0.01)


def part(found, name):
    match, = (p for p in found.parts if p.name == name)
    return match


def group(found):
    """Multiply-adds of backbone, neck and heads."""
    sums = {}
    for p in found.parts:
        name = p.name.split('/')[0]
        sums[name] = sums.get(name, 0) + p.multiply_adds
    return sums


def counted(size=SIZE, prepare=lambda model: model, **settings):
    return complexity._count(complexity._Backbone(prepare(FasterViT(TINY, **settings))), size,
                             None, None)


@needs_torch(2, 2, 'before, attention on a CPU writes its logits')
def test_stage_3_equals_the_count_by_hand():
    """2 x 4 windows of 7 x 7 cells and 2 x 2 carriers, so 4 x 8 carriers; two blocks."""
    windows, cells, carriers = 8, 14 * 28, 4 * 8
    tokens = 7 * 7 + 4
    window_products = windows * 2 * tokens**2 * C  # queries by keys, weights by values
    carrier_products = 2 * carriers**2 * C
    linears = (windows * tokens + carriers) * (3 + 1 + 4 + 4) * C**2  # qkv, proj, MLP
    places = 7 * 7 + carriers
    offsets = 13 * 13 + 7 * 15
    positions = places * (2 + C) * HIDDEN + offsets * (2 + HEADS) * HIDDEN
    convolution = 9 * C * cells
    macs = 2 * (window_products + carrier_products + linears + positions) + convolution
    written = 2 * ((windows * tokens + carriers) * (3 + 1 + 1 + 4 + 1) * C
                   + places * (HIDDEN + C) + offsets * (HIDDEN + HEADS)
                   ) + C * cells
    stage, = (p for p in counted() if p.name == 'backbone/stage 3')
    assert (stage.multiply_adds, stage.activations) == (macs, written)
    assert stage.parameters == sum(p.numel() for p in FasterViT(TINY).stages[2].parameters())


@pytest.mark.parametrize('how', ['oneDNN', 'bands', 'both'])
def test_counts_do_not_depend_on_how_it_is_computed(how, monkeypatch):
    size = (600, 800)  # 10 x 16 carriers in 5 x 8 windows
    expected = counted(size)
    if how != 'oneDNN':
        monkeypatch.setattr(positions, '_DENSE_TOKENS', 100)
        monkeypatch.setattr(attention, '_BAND', 64)
    calls = []
    monkeypatch.setattr(attention.F, 'scaled_dot_product_attention', watch(
        attention.F.scaled_dot_product_attention, calls))
    monkeypatch.setattr(onednn, '_by_convolution', watch(onednn._by_convolution, calls))
    assert counted(size, *([] if how == 'bands' else [onednn.use_onednn])) == expected
    # It was computed another way indeed: 5 rows of windows in bands of 2.
    assert calls.count('scaled_dot_product_attention') == (5 if how == 'oneDNN' else 9)
    assert ('_by_convolution' in calls) == (how != 'bands')


def watch(function, calls):
    def called(*args, **kwargs):
        calls.append(function.__name__)
        return function(*args, **kwargs)
    return called


def test_counts_on_shapes_equal_counts_on_numbers():
    """Shapes alone, as ``analyse`` counts, or numbers: the same."""
    found = complexity.analyse(SEG, (160, 224))
    cfg = Config.fromfile(SEG)
    assert found.parts == complexity._count(build_model(cfg), (160, 224), None, None)


def test_a_detector_is_counted_to_its_last_head():
    found = complexity.analyse(DET, cfg_options={
        'model.test_cfg.rpn.max_per_img': 60, 'model.test_cfg.rcnn.max_per_img': 10})
    assert found.shape == (800, 1280)  # the default of mmdet
    names = [p.name for p in found.parts]
    assert names == [
        'backbone/stem', *(f'backbone/stage {n}' for n in (1, 2, 3, 4)),
        *(f'backbone/downsample {n}' for n in (1, 2, 3)), 'backbone/output norms', 'neck',
        'rpn_head', *(f'roi_head/{kind}_head {n}' for kind in ('bbox', 'mask') for n in (1, 2, 3))]
    model = build_model(Config.fromfile(DET))
    assert found.total.parameters == sum(p.numel() for p in model.parameters())
    # 48 channels; 7 x 7 cells to 256 to 256, 5 classes and 4 boxes of 4.
    box = 48 * 49 * 256 + 256 * 256 + 256 * (5 + 4 * 4)
    # 14 x 14 cells: two convolutions, one to twice the size, and 4 classes on 28 x 28.
    mask = 14 * 14 * 48 * 48 * (2 * 9 + 4) + 28 * 28 * 48 * 4
    for n in (1, 2, 3):
        assert part(found, f'roi_head/bbox_head {n}').multiply_adds == 60 * box
        assert part(found, f'roi_head/mask_head {n}').multiply_adds == 10 * mask
    alone = complexity.analyse(DET, backbone_only=True)
    assert alone.parts == [p for p in found.parts if p.name.startswith('backbone/')]


def test_boxes_are_by_default_those_of_the_config():
    found = complexity.analyse(DET, (160, 160))
    assert (found.proposals, found.detections) == (50, 100)


def test_a_detector_of_one_stage_is_counted(tmp_path):
    config = tmp_path / 'retinanet.py'
    config.write_text(f"""
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['fastervit_mm'])
model = dict(backbone=dict(_delete_=True, type='FasterViT', arch={TINY!r}),
             neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
             bbox_head=dict(in_channels=32, feat_channels=32))
""")
    found = complexity.analyse(str(config), (128, 256))
    assert found.proposals is None
    # Strides 8 to 128 from 128 x 256; four convolutions to each of two ends.
    cells = sum(128 * 256 // 4**n for n in range(3, 8))
    assert part(found, 'bbox_head').multiply_adds == cells * 9 * 32 * (8 * 32 + 9 * (80 + 4))


def test_a_classifier_is_counted(tmp_path):
    config = tmp_path / 'classifier.py'
    config.write_text("""
default_scope = 'mmpretrain'
custom_imports = dict(imports=['fastervit_mm', 'mmpretrain.models'])
model = dict(
    type='ImageClassifier', backbone=dict(type='FasterViT', arch='0', out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=512))
""")
    found, bare = complexity.analyse(str(config)), complexity.analyse('0')
    assert found.shape == bare.shape == (224, 224)
    assert found.total == bare.total


class Lender(nn.Module):
    """As in DINO: the body uses the head, and also one of its layers directly."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False))
        self.body = nn.Conv2d(3, 8, 1, bias=False)
        self.body.lent = self.head[0]
        self.body.register_forward_hook(lambda body, args, out: body.lent(out))

    def forward(self, image):
        return self.head(self.body(image)) @ self.head[0].weight[:, :, 0, 0]


def test_parts_that_use_each_other_are_counted_once(monkeypatch):
    monkeypatch.setattr(complexity, '_plain', lambda model, image: model(image))
    found = complexity._count(Lender(), (8, 8), None, None)
    assert [(p.name, p.parameters, p.multiply_adds, p.activations) for p in found] == [
        ('head', 64, 2 * 64 * 64, 2 * 64 * 8), ('body', 24, 64 * 24, 64 * 8),
        ('elsewhere', 0, 64 * 64, 64 * 8)]


def count(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['complexity.py', *map(str, arguments)])
    runpy.run_path(str(REPO / 'tools/complexity.py'), run_name='__main__')


def test_the_tool_prints_parts_that_add_up_to_the_total(monkeypatch, tmp_path, capsys):
    target = tmp_path / 'new' / 'figures.json'
    count(monkeypatch, SEG, '--shape', 160, 192, '--json', target, '--cfg-options',
          'model.decode_head.channels=32')
    said = capsys.readouterr().out
    figures = json.loads(Path(target).read_text())
    assert figures['shape'] == [160, 192] and '160 x 192' in said
    for kind in ('parameters', 'multiply_adds', 'activations'):
        assert figures['total'][kind] == sum(p[kind] for p in figures['parts']) > 0
    row = next(line for line in said.splitlines() if ' total ' in line).split('│')[1:-1]
    assert [cell.strip() for cell in row] == [
        'total', f'{figures["total"]["parameters"] / 1e6:.2f}',
        f'{figures["total"]["multiply_adds"] / 1e9:.2f}', '100.0 %',
        f'{figures["total"]["activations"] / 1e6:.2f}']
    wide = complexity.analyse(SEG, (160, 192))
    assert figures['total']['parameters'] < wide.total.parameters


@pytest.mark.parametrize('arguments, message', [
    (('nowhere.py', ), "config='nowhere.py': no such file"),
    (('2', '--shape', 20, 64), 'H and W at least 32'),
    (('2', '--shape', 0, 64), r'shape=\(0, 64\): give height and width'),
    ((DET, '--cfg-options', 'model=None'), 'has no model'),
])
def test_uncountable_networks_are_an_error_of_one_line(monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message) as caught:
        count(monkeypatch, *arguments)
    assert caught.value.code.startswith('complexity: ')
