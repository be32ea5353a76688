"""tools/export.py: one file for every size, checked where it runs.

The ONNX file of a whole segmentor is written once, by the tool itself; most tests look at it.
"""
import copy
import json
import os
import re
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from fastervit_mm import FasterViT, SwinHAT, export
from fastervit_mm.engine import launch
from fastervit_mm.export.check import reference
from fastervit_mm.export.onnx_graph import (
    data_dependent_shapes,
    forbidden_ops,
    operators,
)
from fastervit_mm.export.quantize import calibration_images
from fastervit_mm.export.swaps import AxisPooling, prepared
from fastervit_mm.models import load_model
from tests.conftest import CLASSIFIER, REPO, TINY, load_program, needs_torch, stir
from tests.export.networks import ARCH, DETECTOR, SEGMENTOR, config, network, options, saved
from tests.running import run_tool
from tests.samples import draw_shapes

# One image and two; square and not; multiples of 32 and not; one window, and several.
SIZES = [(1, 160, 160), (2, 224, 320), (1, 97, 150), (2, 131, 333), (1, 32, 32), (2, 64, 448)]
# What writes a file: on older torch the tool says what it needs.
writes = needs_torch(2, 8, 'export for all sizes')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('export')
    draw_shapes(folder / 'shapes', train=4, val=4)
    return folder


@pytest.fixture(scope='module')
def cfg(folder):
    return config(SEGMENTOR, folder / 'run', **data(folder))


def data(folder):
    return {'test_dataloader.dataset.data_root': str(folder / 'shapes') + '/',
            'test_dataloader.dataset.indices': 4}


@pytest.fixture(scope='module')
def segmentor(cfg):
    return network(cfg)


@pytest.fixture(scope='module')
def tool(folder, cfg, segmentor):
    """Output of the tool for a whole segmentor: export, check, int8, metrics."""
    checkpoint = saved(segmentor, folder / 'seg.pth')
    pictures = folder / 'calibration'
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(rng.integers(0, 255, (96, 128 + 32 * n, 3), dtype=np.uint8)).resize(
            (200, 160)).save(pictures / f'{n}.png')
    settings = options(SEGMENTOR, **data(folder), work_dir=str(folder / 'run'))
    done = run_tool(
        'export.py', SEGMENTOR['config'], checkpoint, folder / 'seg.onnx', '--int8', pictures,
        '--evaluate', '--check-sizes', '1x97x150', '2x64x128', '--cfg-options',
        *(f'{key}={_written(value)}' for key, value in settings.items()),
        cwd=folder, environment={'COLUMNS': '120'})
    assert done.returncode == 0, done.output[-4000:]
    return done.stdout


def _written(value):
    return str(value).replace(' ', '')


@pytest.fixture(scope='module')
def onnx_file(tool, folder):
    return str(folder / 'seg.onnx')


@pytest.fixture(scope='module')
def int8_file(tool, folder):
    return str(folder / 'seg.int8.onnx')


@writes
def test_one_file_takes_images_of_every_number_and_size(onnx_file, segmentor):
    checks = export.check(segmentor, onnx_file, SIZES)
    assert [c.size for c in checks] == SIZES
    assert all(c.shape == (c.size[0], 5, *c.size[1:]) for c in checks)
    # A hundredth of what is allowed: more would be a mistake, not rounding.
    assert max(c.error for c in checks) < 1e-5 and all(c.holds for c in checks)


@writes
def test_the_file_declares_free_sizes(onnx_file):
    image, = onnx.load(onnx_file).graph.input
    batch, channels, height, width = image.type.tensor_type.shape.dim
    assert image.name == 'images' and channels.dim_value == 3
    assert all(d.dim_param and not d.dim_value for d in (batch, height, width))


@writes
def test_the_file_has_the_normalisation_of_images(onnx_file, cfg):
    facts = export.ExportedFile(onnx_file).facts
    assert json.loads(facts['mean']) == pytest.approx(cfg.model.data_preprocessor.mean)
    assert json.loads(facts['std']) == pytest.approx(cfg.model.data_preprocessor.std)
    assert (facts['channel_order'], facts['part']) == ('RGB', 'whole')
    assert (facts['task'], facts['input']) == ('segmentation', 'uint8')


@writes
def test_other_weights_fail_the_check(onnx_file, segmentor):
    """In the last block of the last stage and in the head."""
    for find in (lambda m: m.backbone.stages[3].blocks[-1].mlp.fc2.weight,
                 lambda m: m.decode_head.psp_modules[1][1].conv.weight):
        other = copy.deepcopy(segmentor)
        with torch.no_grad():
            find(other).mul_(1.5)
        checks = export.check(other, onnx_file, SIZES[:2])
        assert not any(c.holds for c in checks)


@writes
def test_nan_fails_the_check(onnx_file, segmentor):
    other = copy.deepcopy(segmentor)
    with torch.no_grad():
        other.decode_head.conv_seg.bias[0] = float('nan')
    assert not any(c.holds for c in export.check(other, onnx_file, SIZES[:1]))


@writes
def test_the_graph_has_only_operators_of_tensorrt(onnx_file):
    kinds = operators(onnx_file)
    assert 'Conv' in kinds and 'MatMul' in kinds
    assert not {'NonZero', 'Unique', 'If', 'Loop', 'Scan', 'Mod', 'OneHot'}.intersection(kinds)
    assert forbidden_ops(onnx_file) == []
    model = onnx.load(onnx_file)
    assert [(o.domain, o.version) for o in model.opset_import] == [('', 18)]
    onnx.checker.check_model(model)
    # It clips floats only.
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    kind = {v.name: v.type.tensor_type.elem_type for v in values}
    assert all(kind[n.output[0]] == TensorProto.FLOAT for n in model.graph.node
               if n.op_type == 'Clip')


@writes
def test_shapes_depend_only_on_the_size(onnx_file):
    kinds = [n.op_type for n in onnx.load(onnx_file).graph.node]
    assert kinds.count('Shape') > 3 and kinds.count('Reshape') > 10  # sizes are computed with
    assert data_dependent_shapes(onnx_file) == []


def test_a_shape_that_depends_on_pixels_is_found(tmp_path):
    """Reshape and Range by pixel values, after a cast, and by the size."""
    path = str(tmp_path / 'planted.onnx')
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, ['n'])
    y, z = (helper.make_tensor_value_info(name, kind, None)
            for name, kind in (('y', TensorProto.FLOAT), ('z', TensorProto.INT64)))
    scalars = [onnx.numpy_helper.from_array(np.array(n), name)
               for n, name in ((0, 'zero'), (1, 'one'))]
    for source, expected in (('Cast', ['Reshape (cut)', 'Range (count)']), ('Shape', [])):
        onnx.save(helper.make_model(helper.make_graph([
            helper.make_node(source, ['x'], ['size'], **({'to': 7} if source == 'Cast' else {})),
            helper.make_node('Add', ['size', 'zero'], ['more']),
            helper.make_node('Reshape', ['x', 'more'], ['y'], name='cut'),
            helper.make_node('Squeeze', ['more'], ['end']),
            helper.make_node('Range', ['zero', 'end', 'one'], ['z'], name='count')],
            'g', [x], [y, z], scalars)), path)
        assert data_dependent_shapes(path) == expected


class _AddsMeanPlace(nn.Module):
    """Positions of positive pixels, whose number depends on the image."""

    def forward(self, x):
        return x + (x > 0).nonzero().float().mean()


class _CutsByContent(nn.Module):

    def forward(self, x):
        return x[:, :, :1 + int((x[0, 0, 0] > 0).sum())]


@writes
@pytest.mark.parametrize('planted, says', [
    (_AddsMeanPlace, 'NonZero'), (_CutsByContent, 'cannot capture this network.*data-dependent')])
def test_a_network_whose_shapes_depend_on_pixels_is_refused(planted, says, tmp_path):
    backbone = FasterViT(TINY, out_indices=(0, )).eval()
    backbone.out_norms['0'] = planted()
    with pytest.raises(export.ExportError, match=says):
        export.export(backbone, str(tmp_path / 'planted.onnx'))
    assert not os.listdir(tmp_path)


def test_an_operator_that_tensorrt_lacks_is_found_in_a_branch_too(tmp_path):
    def graph(nodes, inputs, outputs):
        return helper.make_graph(nodes, 'g', inputs, outputs)

    def value(name, kind, shape):
        return helper.make_tensor_value_info(name, kind, shape)

    branches = [graph([helper.make_node(kind, ['x'], ['y'])], [],
                      [value('y', TensorProto.FLOAT, None)]) for kind in ('Relu', 'NonZero')]
    node = helper.make_node('If', ['c'], ['z'], then_branch=branches[0], else_branch=branches[1])
    model = helper.make_model(graph(
        [node], [value('c', TensorProto.BOOL, []), value('x', TensorProto.FLOAT, [3])],
        [value('z', TensorProto.FLOAT, None)]))
    onnx.save(model, tmp_path / 'branches.onnx')
    assert forbidden_ops(str(tmp_path / 'branches.onnx')) == ['If', 'NonZero']


@pytest.mark.parametrize('scale', [1, 2, 3, 6])
def test_pooling_by_matrices_equals_pytorchs(scale):
    for height, width in ((1, 1), (5, 7), (6, 6), (13, 4), (2, 19), (32, 31)):
        x = torch.randn(2, 3, height, width)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            given = x.contiguous(memory_format=memory_format)
            assert torch.allclose(AxisPooling(scale)(given), nn.AdaptiveAvgPool2d(scale)(x),
                                  atol=1e-6)


def test_the_network_itself_is_unchanged(segmentor):
    before = copy.deepcopy(segmentor.state_dict())
    prepared(segmentor, 'whole')
    assert not segmentor.backbone.deployed and segmentor.backbone.stages[0].blocks[0].norm1.affine
    assert not any(m._forward_pre_hooks for m in segmentor.modules())
    assert any(isinstance(m, nn.AdaptiveAvgPool2d) for m in segmentor.modules())
    after = segmentor.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


# int8

@writes
def test_int8_quantizes_convolutions_and_linear_layers(onnx_file, int8_file, segmentor):
    nodes = onnx.load(int8_file).graph.node
    weights = {w.name: onnx.numpy_helper.to_array(w)
               for w in onnx.load(int8_file).graph.initializer}
    dequantized = {n.output[0]: n for n in nodes if n.op_type == 'DequantizeLinear'}
    layers = [n for n in nodes if n.op_type in ('Conv', 'MatMul', 'Gemm')
              and n.input[1] in dequantized and dequantized[n.input[1]].input[0] in weights]
    deployed = prepared(segmentor, 'whole')
    expected = [m for m in deployed.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    # Everything with a weight that an image passes through. Carriers' positions come from sizes
    # alone.
    assert len(layers) == len(expected)
    for layer in layers:
        weight, scale, zero = (weights[name] for name in dequantized[layer.input[1]].input)
        axis = next(a.i for a in dequantized[layer.input[1]].attribute if a.name == 'axis')
        assert weight.dtype == np.int8 and not zero.any()
        assert scale.shape == (weight.shape[axis], )  # one for each output channel
        assert axis == (0 if layer.op_type == 'Conv' else 1)
    # Attention's two products stay in float.
    assert sum(n.op_type == 'MatMul' and n.input[1] not in dequantized for n in nodes) >= 6
    assert os.path.getsize(int8_file) < 0.7 * os.path.getsize(onnx_file)


@writes
def test_int8_is_near_but_not_equal(int8_file, folder, cfg, segmentor):
    file = export.ExportedFile(int8_file)
    assert 'minmax' in file.facts['int8'] and file.facts['part'] == 'whole'
    for image in calibration_images(cfg, segmentor, str(folder / 'calibration'), input='uint8'):
        for size in (image.shape[2:], (97, 150)):
            cut = image[:, :, :size[0], :size[1]].expand(2, -1, -1, -1)
            expected, = reference(segmentor, file.facts, cut.flip(1))  # read as BGR
            got, = file(cut)
            error = (got - expected).norm() / (expected - expected.mean()).norm()
            assert 1e-4 < error < 0.3  # 0.21 with the random weights of torch 2.15


def test_calibration_uses_preprocessed_images(cfg, segmentor, tmp_path):
    Image.fromarray(np.full((48, 64, 3), (10, 100, 200), np.uint8)).save(tmp_path / 'flat.png')
    image, = calibration_images(cfg, segmentor, str(tmp_path), input='uint8')
    assert (image[0, :, 0, 0] == torch.tensor([10, 100, 200])).all()
    image, = calibration_images(cfg, segmentor, str(tmp_path))
    assert image.shape == (1, 3, 48, 64)
    for channel, (value, mean, std) in enumerate(zip(
            (10, 100, 200), cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.std)):
        assert image[0, channel].mean().item() == pytest.approx((value - mean) / std, abs=1e-4)
    (tmp_path / 'torn.png').write_bytes(b'no picture')
    with pytest.raises(export.ExportError, match='torn.png'):
        list(calibration_images(cfg, segmentor, str(tmp_path)))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(export.ExportError, match='holds no image'):
        calibration_images(cfg, segmentor, str(tmp_path / 'empty'))


@writes
@pytest.mark.long
def test_a_classifier_carries_the_normalisation_beside_its_model(tmp_path, monkeypatch, capsys):
    """mmpretrain's configs have ``data_preprocessor`` at the top."""
    config, path = tmp_path / 'classifier.py', str(tmp_path / 'classifier.pt2')
    config.write_text(CLASSIFIER)
    cfg = launch.load_config(str(config), cfg_options={'model.backbone.out_indices': [0]})  # fast
    checkpoint = saved(network(cfg), tmp_path / 'classifier.pth')
    assert main(monkeypatch, config, checkpoint, path, '--part', 'backbone', '--check-sizes',
                '1x64x64', '--cfg-options', 'model.backbone.out_indices=[0]') == 0
    assert re.search(r'preprocessing +│ +\S+ │ +1e-03 │ holds', capsys.readouterr().out)
    file, settings = export.ExportedFile(path), cfg.data_preprocessor
    assert json.loads(file.facts['mean']) == pytest.approx(settings.mean)
    assert json.loads(file.facts['std']) == pytest.approx(settings.std)
    assert settings.to_rgb and file.facts['channel_order'] == 'RGB'

    Image.fromarray(np.full((300, 300, 3), (10, 100, 200), np.uint8)).save(tmp_path / 'flat.png')
    model = load_model(cfg, str(checkpoint))
    image, = calibration_images(cfg, model, str(tmp_path))
    assert image.mean((0, 2, 3)).tolist() == pytest.approx(
        [(n - m) / s for n, m, s in zip((10, 100, 200), settings.mean, settings.std)], abs=1e-4)

    for name, value in (('to_rgb', False), ('mean', model.data_preprocessor.mean + 5)):
        other = copy.deepcopy(model)
        setattr(other.data_preprocessor, name, value)
        found, = export.check_preprocessing(other, file)
        assert not found.holds


# What the tool says

def metrics(output):
    found = re.findall(r'│ (\w+) +│ +([\d.]+) │ +([\d.]+) │ +([\d.]+) │', output)
    return {name: tuple(map(float, values)) for name, *values in found}


@writes
def test_the_tool_prints_errors_and_the_cost_of_int8(tool):
    for size in ('1 x 97 x 150', '2 x 64 x 128'):
        assert re.search(rf'{size} │ logits +│ +\S+e-0[67] │ +1e-03 │ holds', tool), tool
    said = metrics(tool)
    assert said.keys() == {'aAcc', 'mIoU', 'mAcc'}
    for pytorch, exported, int8 in said.values():
        assert exported == pytest.approx(pytorch, abs=0.02) and abs(int8 - pytorch) < 20


@writes
def test_metrics_are_computed_with_the_file(tool, onnx_file, folder, cfg):
    """Another network is tested with the file in its place: the file's metrics come out."""
    other = saved(network(cfg, seed=1), folder / 'other.pth')
    found = export.evaluate(cfg, str(other), dict(onnx=onnx_file))
    assert found['onnx']['aAcc'] == pytest.approx(metrics(tool)['aAcc'][0], abs=0.02)
    assert abs(found['onnx']['aAcc'] - found['PyTorch']['aAcc']) > 0.1


@writes
def test_a_file_that_is_not_right_is_not_kept(tmp_path, monkeypatch, capsys):
    """The tool's exit status is 1 where it does not hold, here 1e-12 in float32."""
    config, path = tmp_path / 'classifier.py', tmp_path / 'classifier.pt2'
    config.write_text(CLASSIFIER)
    fast = {'model.backbone.out_indices': [0]}
    checkpoint = saved(network(launch.load_config(str(config), cfg_options=fast)),
                       tmp_path / 'classifier.pth')
    assert main(monkeypatch, config, checkpoint, path, '--part', 'backbone', '--tolerance', '1e-12',
                '--check-sizes', '1x64x64', '--cfg-options', 'model.backbone.out_indices=[0]') == 1
    said = capsys.readouterr().out
    assert 'DOES NOT HOLD' in said and 'classifier.pt2: not kept' in said
    assert said.count('│ holds') == 1  # of preprocessing
    assert not path.exists()


def main(monkeypatch, *arguments):
    """The exit status and message of the tool, in this process."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    tool = load_program('tools/export.py')
    monkeypatch.setattr(sys, 'argv', ['export.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        tool.main()
    return ended.value.code


@pytest.mark.parametrize('out, extra, says', [
    ('seg.engine', [], r"ends in \.onnx or \.pt2"),
    ('absent/seg.onnx', [], 'there is no folder'),
    ('seg.onnx', ['--part', 'features'], 'has no neck'),
    ('seg.onnx', ['--part', 'backbone', '--input', 'uint8'], "takes one of ..normalized"),
    ('seg.onnx', ['--part', 'backbone', '--labels'], 'only a whole segmentor gives labels'),
    ('seg.pt2', ['--int8', '.'], 'is made from .onnx'),
    ('seg.onnx', ['--int8', 'absent'], 'no such folder'),
    ('seg.onnx', ['--labels', '--evaluate'], 'leave --labels out'),
])
def test_bad_input_is_reported_at_once(out, extra, says, folder, segmentor, tmp_path, monkeypatch):
    checkpoint = saved(segmentor, tmp_path / 'seg.pth')
    message = main(monkeypatch, SEGMENTOR['config'], checkpoint, tmp_path / out, *extra,
                   '--cfg-options',
                   *(f'{k}={_written(v)}' for k, v in options(SEGMENTOR).items()))
    assert message.startswith('export: ') and re.search(says, message)
    assert not list(tmp_path.rglob('seg.onnx'))


def test_a_checkpoint_that_does_not_fill_the_network_is_refused(folder, segmentor, tmp_path,
                                                                monkeypatch):
    partly = tmp_path / 'partly.pth'
    torch.save(dict(state_dict=segmentor.backbone.state_dict(prefix='backbone.')), partly)
    message = main(monkeypatch, SEGMENTOR['config'], partly, tmp_path / 'seg.onnx',
                   '--cfg-options', *(f'{k}={_written(v)}' for k, v in options(SEGMENTOR).items()))
    assert 'does not fit the model' in message


# torch.export

@writes
@pytest.mark.long
def test_torch_export_of_labels(cfg, tmp_path):
    """Of another head of mmseg's, on two of the maps."""
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.out_indices = (1, 2)
    cfg.model.decode_head = dict(
        type='FCNHead', in_channels=64, in_index=1, channels=16, num_convs=1, num_classes=5,
        dropout_ratio=0., align_corners=False)
    cfg.model.auxiliary_head = None
    segmentor = network(cfg)
    image = torch.randn(1, 3, 97, 150)
    with torch.no_grad():  # else one class is largest everywhere
        logits = segmentor.encode_decode(image, [dict(img_shape=(97, 150))])
        segmentor.decode_head.conv_seg.bias -= logits.mean(dim=(0, 2, 3))
    path = str(tmp_path / 'labels.pt2')
    export.export(segmentor, path, labels=True, input='normalized')
    file = export.ExportedFile(path)
    checks = export.check(segmentor, file, SIZES)
    assert {c.output for c in checks} == {'labels'} and all(c.holds for c in checks)
    labels, = file(image)
    assert labels.shape == (1, 97, 150) and len(labels.unique()) == 5


@writes
def test_torch_export_of_a_detector_up_to_its_neck(tmp_path, monkeypatch, capsys):
    detector = network(config(DETECTOR, tmp_path))
    checkpoint, path = saved(detector, tmp_path / 'det.pth'), str(tmp_path / 'det.pt2')
    code = main(monkeypatch, DETECTOR['config'], checkpoint, path, '--no-deploy', '--part',
                'features', '--check-sizes', '2x97x150', '--cfg-options',
                *(f'{k}={_written(v)}' for k, v in options(DETECTOR).items()))
    assert code == 0
    said = capsys.readouterr().out
    assert 'features' in said and 'feature0 … feature4' in said
    assert re.search(r'│ preprocessing +│ +\S+ │ +1e-03 │ holds', said)

    image = torch.randn(2, 3, 131, 333)
    with torch.no_grad():
        expected = detector.extract_feat(image)
    hook = export.ExportedHook(path)
    file = hook.file
    assert (file.facts['part'], file.facts['deployed']) == ('features', 'False')
    # In an evaluation the file's features reach the heads, whatever network is around it.
    other = network(config(DETECTOR, tmp_path), seed=1)
    assert (other.extract_feat(image)[0] - expected[0]).abs().max() > 0.01
    hook.before_test(SimpleNamespace(model=other))
    got = other.extract_feat(image)
    assert len(got) == len(expected) == 5
    assert all(g.shape == e.shape and (g - e).abs().max() < 1e-4 * e.abs().max()
               for g, e in zip(got, expected))
    assert all(c.holds for c in export.check(detector, file, SIZES))
    with pytest.raises(export.ExportError, match=r'does not take images of \(1, 3, 31, 64\)'):
        file(torch.zeros(1, 3, 31, 64))


@writes
@pytest.mark.long
@pytest.mark.parametrize('settings', [
    dict(ct_size=1, out_indices=(2,)),
    dict(window_size=(8, 4), out_norm='LN', out_indices=(1, 3)),
    dict(arch=dict(hierarchical=False), out_indices=(2,))],
    ids=['one carrier', 'other windows', 'no carriers'])
def test_backbones_of_other_shapes(settings, tmp_path):
    settings = dict(settings)
    arch = {**ARCH, **settings.pop('arch', {})}
    backbone = FasterViT(arch, **settings)
    stir(backbone)
    path = str(tmp_path / 'backbone.pt2')
    export.export(backbone.eval(), path)
    checks = export.check(backbone, path, SIZES)
    assert len(checks) == len(SIZES) * len(backbone.out_indices)
    assert all(c.holds and c.error < 1e-5 for c in checks)


@writes
@pytest.mark.long
def test_swin_hat(tmp_path):
    """A stage without carriers and one with several a window, and the merging between them."""
    backbone = SwinHAT(dict(embed_dims=16, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 4)),
                       ct_size=2, out_indices=(0, 1)).eval()
    stir(backbone)
    path = str(tmp_path / 'backbone.onnx')
    export.export(backbone, path)
    checks = export.check(backbone, path, SIZES)
    assert len(checks) == 2 * len(SIZES) and all(c.holds and c.error < 1e-5 for c in checks)
