"""Detectors of the official DINO code: every tensor placed, its outputs, and bad files.

Outputs are compared with what that code computed, ``dino_official_tiny`` among the samples
(``tests/samples.py``). It cannot be drawn anew: without it, those tests are skipped.
"""
import argparse
import json
import os
import re
from importlib import metadata

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader

from fastervit_mm import FasterViT
from fastervit_mm.weights import (
    DETECTORS,
    CheckpointError,
    convert_dino,
    load_backbone,
    read_checkpoint,
    resolve,
    tensors_of,
)
from fastervit_mm.weights.reading import strict_loaders
from tests import samples
from tests.conftest import REPO
from tests.running import run_tool
from tests.weights import official_dino
from tests.weights.official_dino import FULL, SMALL, fill, names_and_shapes, small_tensors

pytestmark = pytest.mark.skipif(
    'onedl-mmdetection' in metadata.packages_distributions().get('mmdet', ()),
    reason='its decoder has other shapes than mmdet, the official code and their files')
CONFIG = REPO / 'configs/mmdet/dino_fvit_4_21k_224.py'
NAME = 'fastervit://dino-4scale-4-21k-224-coco'
CASES = ['aligned', 'single', 'wide', 'batch']  # dino_official_tiny's README


@pytest.fixture(scope='module')
def official():
    folder = samples.find('dino_official_tiny')
    if folder is None:
        pytest.skip('dino_official_tiny is not among the samples')
    return folder


@pytest.fixture(scope='module')
def official_tensors(official):
    path = str(official / 'checkpoint0011.pth')
    return tensors_of(read_checkpoint(path), path)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    config = tmp_path_factory.mktemp('dino') / 'small.py'
    config.write_text(official_dino.config_text(CONFIG))
    return config


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """A training checkpoint of the official layout."""
    torch.manual_seed(0)
    return official_dino.save(tmp_path_factory.mktemp('dino') / 'checkpoint0011.pth')


def build(config, num_classes=80, **backbone):
    cfg = Config.fromfile(str(config))
    init_default_scope('mmdet')
    cfg.model.bbox_head.num_classes = num_classes
    cfg.model.backbone.update(init_cfg=None, **backbone)
    return MODELS.build(cfg.model).eval()


def load(model, converted):
    """Every tensor of the model from the file, and every one of the file in the model."""
    assert shapes_of(converted) == shapes_of(model.state_dict())
    model.load_state_dict(converted)
    return model


def shapes_of(tensors):
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def off(got, expected):
    """Largest difference over largest value."""
    assert got.shape == expected.shape
    return float((got - torch.from_numpy(expected)).abs().max() / np.abs(expected).max())


def test_the_small_layout_is_the_official_code_s(official_tensors):
    """So the tests below, also of the full size, hold for real files."""
    assert names_and_shapes(**SMALL) == shapes_of(official_tensors)


@pytest.mark.parametrize('num_classes', [91, 80])
@pytest.mark.parametrize('case', CASES)
@torch.no_grad()
def test_outputs_are_the_official_code_s(case, num_classes, official, small, official_tensors):
    """Alone and in a padded batch; features, logits, boxes and detections."""
    model = load(build(small, num_classes), convert_dino(official_tensors, 'official', num_classes))
    inputs, outputs = (np.load(official / f'{name}.npz') for name in ('inputs', 'outputs'))
    images = torch.from_numpy(inputs[f'{case}_image'])
    sizes = [tuple(size) for size in inputs[f'{case}_sizes'].tolist()]
    data = [DetDataSample(metainfo=dict(
        img_shape=size, ori_shape=size, scale_factor=(1., 1.),
        batch_input_shape=tuple(images.shape[2:]))) for size in sizes]
    for i, feature in enumerate(model.backbone(images), 1):
        assert off(feature, outputs[f'{case}_feature_{i}']) < 1e-5
    found = model.forward_transformer(model.extract_feat(images), data)
    for got, expected in zip(found['references'], outputs[f'{case}_references']):
        assert off(got, expected) < 1e-4
    logits, boxes = model.bbox_head(**found)
    ids = [i for i in range(91) if num_classes == 91 or i and i not in samples.COCO_GAPS]
    for layer, name in ((0, 'layer_0'), (-1, 'pred')):
        assert off(logits[layer], outputs[f'{case}_{name}_logits'][..., ids]) < 1e-4
        assert off(boxes[layer], outputs[f'{case}_{name}_boxes']) < 1e-4
    for i, result in enumerate(model.predict(images, data, rescale=False)):
        result = result.pred_instances
        scores, labels, expected = (torch.from_numpy(outputs[f'{case}_top_{name}'][i])
                                    for name in ('scores', 'labels', 'boxes'))
        height, width = sizes[i]
        expected = expected.clamp(min=0).minimum(torch.tensor([width, height] * 2))
        assert (result.scores - scores).abs().max() < 1e-4 * scores.max()
        # Scores come as near as 9e-7, so neighbours may change places: each has its own partner.
        kinds = torch.tensor(ids)[result.labels]
        alike = ((labels[:, None] == kinds) & ((scores[:, None] - result.scores).abs() < 1e-4)
                 & ((expected[:, None] - result.bboxes).abs().amax(2) < 1e-4 * max(sizes[i])))
        assert alike.any(0).all() and alike.any(1).all()


@torch.no_grad()
def test_each_setting_is_needed(official, small, official_tensors):
    """Without any one of them the test above would fail."""
    images = torch.from_numpy(np.load(official / 'inputs.npz')['single_image'])
    converted = convert_dino(official_tensors, 'official', 91)
    outputs = np.load(official / 'outputs.npz')
    unpadded = load(build(small, 91, pad_conv_stages=1), converted)
    assert off(unpadded.backbone(images)[0], outputs['single_feature_1']) > 1e-2
    unfolded = dict(converted)
    for stage in (2, 3):
        for name, ours in (('weight', 'weight1'), ('bias', 'bias1')):
            place = f'backbone.0.levels.{stage}.blocks.0.pos_embed.cpb_mlp.0.{name}'
            found = unfolded[f'backbone.stages.{stage}.positions.{ours}'].clone()
            found[0] = official_tensors[place]
            unfolded[f'backbone.stages.{stage}.positions.{ours}'] = found
    model = load(build(small, 91), unfolded)
    assert off(model.backbone(images)[2], outputs['single_feature_3']) > 1e-2
    cfg = Config.fromfile(str(small))
    assert cfg.model.neck.bias and cfg.model.bbox_head.type == 'OfficialDINOHead'


def test_unused_rows_are_left_out_in_the_order_of_coco_s_names(tiny_coco):
    tensors = small_tensors()
    rows = torch.arange(91.)
    tensors['transformer.enc_out_class_embed.bias'] = rows
    tensors['label_enc.weight'] = torch.arange(92.)[:, None].repeat(1, 256)
    converted = convert_dino(tensors, 'x')
    categories = json.loads((tiny_coco / 'annotations/instances_val2017.json').read_text())[
        'categories']
    names = {category['id']: category['name'] for category in categories}
    for numbers in (converted['bbox_head.cls_branches.2.bias'],
                    converted['dn_query_generator.label_embedding.weight'][:, 0]):
        assert tuple(names[int(i)] for i in numbers) == CocoDataset.METAINFO['classes']


def test_other_numbers_of_classes_stay_as_they_are():
    tensors = small_tensors()
    for name in tensors:
        if 'class_embed' in name:
            tensors[name] = tensors[name][:5]
    tensors['label_enc.weight'] = tensors['label_enc.weight'][:6]
    converted = convert_dino(tensors, 'x')
    assert converted['bbox_head.cls_branches.0.weight'].shape == (5, 256)
    assert converted['dn_query_generator.label_embedding.weight'].shape == (5, 256)


def test_a_file_with_the_classifier_s_positions_is_not_folded():
    """The file's cached values show it."""
    tensors = small_tensors()
    root = 'backbone.0.levels.3.blocks.0.pos_embed.'
    first, bias, last = (tensors[f'{root}cpb_mlp.{part}'] for part in (
        '0.weight', '0.bias', '2.weight'))
    axis = (torch.arange(7) - 3) / 3
    cells = torch.cartesian_prod(axis, axis)
    tensors[f'{root}relative_bias'] = ((cells @ first.T + bias).relu() @ last.T)[None]
    converted = convert_dino(tensors, 'x')
    ours = 'backbone.stages.{}.positions.weight1'
    assert torch.equal(converted[ours.format(3)][0], first)
    of_detector = tensors['backbone.0.levels.2.blocks.0.pos_embed.cpb_mlp.0.weight']
    torch.testing.assert_close(converted[ours.format(2)][0], of_detector / 14)


def test_full_size_names_and_shapes():
    """889 tensors, with the decoder's heads twice, fill mmdet's 683."""
    layout = names_and_shapes(**FULL)
    assert len(layout) == 889
    converted = convert_dino(fill(layout, lambda shape: torch.zeros(()).expand(shape)), 'full')
    with torch.device('meta'):
        own = build(CONFIG).state_dict()
    assert len(own) == 683 and shapes_of(converted) == shapes_of(own)


@pytest.mark.parametrize('config, sizes', [
    ('dino_fvit_4_21k_384', dict(windows=(24, 12))),
    ('dino_fvit_4_21k_512', dict(windows=(32, 16))),
    ('dino_fvit_4_21k_224_5scale', dict(stages=(0, 1, 2, 3)))])
def test_files_of_other_configs(config, sizes, tmp_path):
    """Other windows, and five scales, at the small size."""
    stages = sizes.get('stages', (1, 2, 3))
    path = tmp_path / 'small.py'
    path.write_text(official_dino.config_text(
        CONFIG.with_stem(config), f'model["neck"]["in_channels"] = {[8 * 2**i for i in stages]}\n'))
    converted = convert_dino(small_tensors(**sizes), 'x')
    windows = sizes.get('windows', (14, 7))
    load(build(path, arch=dict(official_dino.ARCH, window_size=windows)), converted)


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """Put a file where the published one would be after a download."""
    def put(path):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        folder = tmp_path / 'hub/checkpoints'
        folder.mkdir(parents=True)
        (folder / resolve(NAME).rpartition('/')[2]).symlink_to(path)
    return put


def test_mmengine_and_the_backbone_read_the_published_name(file, downloaded):
    downloaded(file)
    expected = convert_dino(read_checkpoint(str(file))['model'], 'x')
    for source in (str(file), NAME):
        with strict_loaders():  # as in this package's tools
            read = CheckpointLoader.load_checkpoint(source, map_location='cpu')['state_dict']
        assert set(read) == set(expected)
        assert all(torch.equal(read[k], v) for k, v in expected.items())
    backbone = FasterViT(official_dino.ARCH, out_indices=(1, 2, 3), pad_conv_stages=7)
    assert load_backbone(backbone, NAME).fresh == []
    assert torch.equal(backbone.out_norms['3'].running_var,
                       expected['backbone.out_norms.3.running_var'])


def test_another_file_in_its_place_is_refused(downloaded, tmp_path):
    torch.save(FasterViT(official_dino.ARCH).state_dict(), tmp_path / 'other.pth')
    downloaded(tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='not a whole DINO detector with FasterViT'):
        CheckpointLoader.load_checkpoint(NAME)


def test_the_tool_writes_the_whole_detector(small, file, tmp_path):
    done = run_tool('convert_weights.py', file, 'out.pth', cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert 'out.pth: 247 tensors of DINO with a custom FasterViT' in done.stdout
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    load(build(small), written)
    # The decoder's heads are one module in the file and L copies in mmdet's.
    assert written['bbox_head.cls_branches.0.weight'].data_ptr() != (
        written['bbox_head.cls_branches.1.weight'].data_ptr())


POSITION = 'backbone.0.levels.2.blocks.0.pos_embed.relative_bias'


def _without(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def _with(**tensors):
    return lambda own: own.update({k.replace('__', '.'): v for k, v in tensors.items()})


BROKEN = {
    'a layer of the decoder without a norm': (
        _without('transformer.decoder.layers.1.norm3.weight'),
        r'tensors missing: 1 \(transformer.decoder.layers.1.norm3.weight\)'),
    'no proposals': (
        _without('transformer.enc_output.weight', 'transformer.enc_output.bias'),
        r'tensors missing: 2 \(transformer.enc_output.weight'),
    'a hole in the backbone': (
        _without('backbone.0.levels.1.blocks.0.conv1.weight'),
        r'tensors missing: 1 \(backbone.stages.1.blocks.0.conv1.weight\)'),
    'an output norm less': (
        lambda t: [t.pop(k) for k in list(t) if k.startswith('backbone.0.norm1.')],
        r'of another shape: .*neck.convs.0.conv.weight \(256, 16, 1, 1\)'),
    'another transformer': (
        _with(transformer__decoder__query_scale__layers__0__weight=torch.ones(2, 2)),
        r'without a place: 1 \(transformer.decoder.query_scale.layers.0.weight\)'),
    'another backbone': (
        _with(backbone__0__levels__2__blocks__0__mamba=torch.ones(2)),
        r'without a place: 1 \(backbone.stages.2.blocks.0.mamba\)'),
    'a classifier': (
        _with(backbone__0__head__weight=torch.ones(2, 2)),
        r'without a place: 1 \(backbone.0.head.weight\)'),
    'another width': (
        _with(backbone__0__levels__2__blocks__0__attn__qkv__weight=torch.ones(48, 16)),
        r'of another shape: 1 \(backbone.stages.2.blocks.0.attn.qkv.weight \(48, 16\)'),
    'heads of two numbers of classes': (
        _with(class_embed__1__bias=torch.ones(80)), r'cls_branches.1.bias \(80,\)'),
    'too few labels': (_with(label_enc__weight=torch.ones(20, 256)),
                       r'\(20, 256\) lacks rows for 91 classes'),
    'carrier tokens': (
        _with(backbone__0__levels__2__blocks__0__hat_norm1__weight=torch.ones(32)),
        'has carrier tokens'),
    'NaN': (
        _with(backbone__0__norm2__running_var=torch.full((32,), float('nan'))),
        r'NaN or infinity in 1 of .*backbone.0.norm2.running_var'),
    'positions of neither kind': (
        _with(**{POSITION.replace('.', '__'): torch.ones(1, 196, 32)}),
        r'levels.2.*fits neither of the authors\' formulas'),
    'positions of no window': (
        _with(**{POSITION.replace('.', '__'): torch.ones(1, 195, 32)}),
        r'relative_bias of shape \(1, 195, 32\) fits no window'),
    'no kept positions': (_without(POSITION), r'levels.2.*relative_bias is missing'),
}


@pytest.mark.parametrize('what', BROKEN)
def test_incomplete_files_are_refused(what):
    change, message = BROKEN[what]
    tensors = small_tensors()
    change(tensors)
    with pytest.raises(CheckpointError, match=message) as error:
        convert_dino(tensors, 'mine.pth')
    assert str(error.value).startswith("checkpoint='mine.pth': ")


class _Runs:
    """Creates a folder when a reader runs code."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize('what, message', [
    ('cut', 'truncated or not a PyTorch checkpoint'),
    ('code', 'refused, and no code in it was run'),
    ('holes', 'tensors missing: 1 '),
    ('nan', 'NaN or infinity in 1 of')])
def test_bad_files_run_no_code_and_write_nothing(what, message, file, tmp_path):
    """A bad file is one line of the tool."""
    bad, ran = tmp_path / 'bad.pth', tmp_path / 'ran'
    if what == 'cut':
        bad.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    elif what == 'code':
        official_dino.save(bad, epochs=argparse.Namespace(hook=_Runs(ran)))
    else:
        tensors = small_tensors()
        if what == 'holes':
            del tensors['transformer.level_embed']
        else:
            tensors['class_embed.0.bias'][3] = float('nan')
        official_dino.save(bad, tensors)
    done = run_tool('convert_weights.py', bad, 'out.pth', cwd=tmp_path)
    assert done.returncode == 1 and 'Traceback' not in done.output
    line, = done.stderr.strip().splitlines()
    assert line.startswith("convert_weights: checkpoint='") and re.search(message, line)
    assert not ran.exists()
    assert {path.name for path in tmp_path.iterdir()} == {'bad.pth'}


def test_the_published_address():
    assert [f'fastervit://{name}' for name in DETECTORS] == [NAME]
    assert resolve(NAME) == ('https://huggingface.co/ahatamiz/FasterViT/resolve/main/'
                             'DINO_4scale_faster_vit_4_21k_224_ms_coco.pth')
