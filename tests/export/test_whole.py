"""Whole detectors and classifiers in a file, beside mmdet and mmpretrain.

One ONNX file is written, of a Cascade Mask R-CNN with boxes of each class; other networks are
compared as the module that would be captured, or in a ``.pt2`` file.
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
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from onnx import TensorProto
from pycocotools.mask import encode

from fastervit_mm import export
from fastervit_mm.engine import launch
from fastervit_mm.export.check import Check
from fastervit_mm.export.heads import boxes as ops
from fastervit_mm.export.matching import differences
from fastervit_mm.export.metadata import metadata
from fastervit_mm.export.onnx_graph import data_dependent_shapes, forbidden_ops, operators
from fastervit_mm.export.parts import choose_part
from fastervit_mm.export.pictures import Pictures, preprocessing
from fastervit_mm.export.predicting import predict
from fastervit_mm.export.swaps import prepared
from fastervit_mm.models import build_model
from fastervit_mm.pipelines import image_batch
from tests.conftest import CLASSIFIER, needs_torch
from tests.export.networks import (
    DETECTOR,
    SEGMENTOR,
    config,
    detector,
    network,
    options,
    saved,
)
from tests.running import run_tool
from tests.samples import draw_shapes

writes = needs_torch(2, 8, 'export for all sizes')
# One image and several; square and not; multiples of 32 and not; the smallest, whose levels have
# fewer anchors than nms_pre.
SIZES = [(1, 160, 160), (3, 97, 150), (1, 32, 32), (2, 64, 448)]
# With few candidates, of a small backbone: what is captured takes time.
LIMITS = {'model.backbone.arch.depths': (1, 1, 1, 1), 'model.test_cfg.rpn.nms_pre': 40,
          'model.test_cfg.rpn.max_per_img': 30, 'model.test_cfg.rcnn.max_per_img': 6}
FLAT = np.full((3, 64, 96), 90, np.uint8)
SEED = 2  # of weights that find little in it


class Eager(export.ExportedFile):
    """What a file holds, before it is captured."""

    def __init__(self, model, part='whole', **settings):
        self._session, self.path = None, 'eager'
        self._module = prepared(model, part, **settings)
        self._module.name_outputs(0)
        self.facts = metadata(model, self._module, part, True)


def exact(model, file, sizes=SIZES):
    """Every detection has its partner, boxes within 1e-3 pixels; how many there are."""
    checks = export.check(model, file, sizes)
    for check in checks:
        kind = check.output.split()[0]
        allowed = dict(boxes=1e-3 / max(check.size), scores=1e-4, masks=1e-3, unmatched=0.)[kind]
        assert check.holds and check.error <= allowed, check
    return [c.shape[0] for c in checks if c.output.startswith('boxes')]


def batch(*images):
    shape = images[0].shape[1:]
    return dict(inputs=[torch.as_tensor(image) for image in images], data_samples=[
        DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1., 1.)))
        for _ in images])


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def best_scores(model, image):
    """All of mmdet's scores for an image, whatever the threshold."""
    model = copy.deepcopy(model)
    model.roi_head.test_cfg.score_thr = 0.
    return model.test_step(batch(image))[0].pred_instances.scores


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    draw_shapes(folder / 'shapes', train=4, val=4)
    return folder


@pytest.fixture(scope='module')
def settings(folder):
    """Of a detector that finds nothing in a flat image, and more than it keeps in noise."""
    data = {'test_dataloader.dataset.data_root': f'{folder}/shapes/',
            'test_dataloader.dataset.indices': 4,
            'test_dataloader.dataset.ann_file': 'annotations/instances_val.json',
            'test_evaluator.ann_file': f'{folder}/shapes/annotations/instances_val.json'}
    model = detector(config(DETECTOR, folder, **LIMITS, **data), SEED)
    threshold = best_scores(model, FLAT).max().item() * 1.001
    return options(DETECTOR, **LIMITS, **data, **{
        'model.test_cfg.rcnn.score_thr': threshold, 'work_dir': str(folder / 'run')})


@pytest.fixture(scope='module')
def cascade(settings):
    return detector(launch.load_config(DETECTOR['config'], cfg_options=settings), SEED)


@pytest.fixture(scope='module')
def tool(folder, settings, cascade):
    """What the tool says of the Cascade Mask R-CNN's file."""
    checkpoint = saved(cascade, folder / 'det.pth')
    done = run_tool(
        'export.py', DETECTOR['config'], checkpoint, folder / 'det.onnx', '--check-sizes',
        '2x97x150', '1x32x32', '--cfg-options',
        *(f'{key}={value}'.replace(' ', '') for key, value in settings.items()),
        cwd=folder, environment={'COLUMNS': '120'})
    assert done.returncode == 0, done.output[-4000:]
    return done.stdout


@pytest.fixture(scope='module')
def file(tool, folder):
    return export.ExportedFile(str(folder / 'det.onnx'))


@writes
def test_a_file_gives_mmdets_detections_at_every_size_and_batch(file, cascade):
    assert min(exact(cascade, file)) > 0


@writes
def test_the_best_of_more_candidates_than_are_kept_are_in_the_file(file, cascade):
    image, every = noise(160, 160), copy.deepcopy(cascade)
    every.roi_head.test_cfg.max_per_img = 100
    scores = every.test_step(batch(image))[0].pred_instances.scores
    found = file(torch.as_tensor(image[::-1].copy())[None])[1][0]
    assert len(scores) > 6 and torch.allclose(found, scores[:6], atol=1e-5)


@writes
def test_an_image_without_detections_gives_zeros(file, cascade):
    images = torch.as_tensor(np.stack([FLAT, noise(64, 96)]))
    boxes, scores, labels, count, masks = file(images)
    expected = cascade.test_step(batch(FLAT, noise(64, 96)[::-1].copy()))  # read as BGR
    assert [len(s.pred_instances) for s in expected] == count.tolist()
    assert count[0] == 0 < count[1]
    assert len(labels[0]) == 6 and not labels[0].any()
    for output in (boxes, scores, masks):
        assert len(output[0]) == 6 and not output[0].any() and output[1].any()


@writes
def test_outputs_are_what_the_metadata_promise(file):
    boxes, scores, labels, count, masks = file(torch.as_tensor(noise(50, 70))[None])
    assert file.outputs == ['boxes', 'scores', 'labels', 'count', 'masks']
    assert boxes.shape == (1, 6, 4) and masks.shape == (1, 6, 28, 28)
    assert labels.dtype == count.dtype == torch.int64 and boxes.dtype == torch.float32
    assert (scores.diff() <= 0).all() and masks.amin() >= 0 and masks.amax() <= 1
    assert boxes.amin() >= 0 and (boxes[..., 0::2] <= 70).all() and (boxes[..., 1::2] <= 50).all()
    facts = file.facts
    assert (facts['task'], facts['input'], facts['smallest']) == ('detection', 'uint8', '32')
    assert json.loads(facts['resize']) == {'scale': [160, 160], 'keep_ratio': True}
    assert json.loads(facts['max_detections']) == 6
    assert json.loads(facts['mask_threshold']) == 0.5
    assert scores[scores > 0].amin() > json.loads(facts['score_threshold']) > 0.1


@writes
def test_the_graph_of_a_detector_keeps_to_what_tensorrt_takes(file):
    assert {'NonMaxSuppression', 'RoiAlign'} <= set(operators(file.path))
    assert forbidden_ops(file.path, detects=True) == [] == data_dependent_shapes(file.path)
    model = onnx.load(file.path)
    ratios = [a.i for n in model.graph.node if n.op_type == 'RoiAlign' for a in n.attribute
              if a.name == 'sampling_ratio']  # one that is missing is read as 0 or as 1
    assert ratios == [1] * 4 * (3 + 1)  # levels, stages; the mask heads share theirs
    constants = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    assert all(constants[n.input[1]].max() < 3840 for n in model.graph.node if n.op_type == 'TopK')


def detections(outputs, shape):
    """A whole file's outputs as mmdet's samples."""
    boxes, scores, labels, count, masks = map(torch.as_tensor, outputs)
    return [DetDataSample(metainfo=dict(ori_shape=shape), pred_instances=InstanceData(
        bboxes=boxes[i, :n], scores=scores[i, :n], labels=labels[i, :n], masks=masks[i, :n] > 0.5))
        for i, n in enumerate(count.tolist())]


@writes
def test_openvino_finds_other_objects_in_the_same_file(file):
    import openvino
    model = openvino.Core().compile_model(file.path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    for number, *shape in ((1, 160, 160), (3, 97, 150)):
        images = np.stack([noise(*shape, seed) for seed in range(number)])
        expected = detections(file(torch.as_tensor(images)), shape)
        apart = differences(expected, detections(model(images).values(), shape))
        assert all(len(sample.pred_instances) for sample in expected)
        assert apart['boxes'] < 1e-5 and apart['scores'] < 1e-4
        assert apart['masks'] < 1e-3 and apart['unmatched'] == 0


@writes
@torch.no_grad()
def test_a_test_with_the_file_gives_mmdets_predictions_at_the_original_size(file, cascade, folder):
    """Also where another network is around it."""
    cfg = config(DETECTOR, folder)
    step = next(s for s in cfg.test_dataloader.dataset.pipeline if s['type'] == 'Resize')
    step.update(scale=(150, 97))
    data = [image_batch(cfg, noise(120, 130, seed).transpose(1, 2, 0)) for seed in (0, 1)]
    expected = [cascade.test_step(copy.deepcopy(one))[0] for one in data]
    other = copy.deepcopy(cascade)
    with torch.no_grad():
        other.roi_head.bbox_head[2].fc_cls.weight.neg_()
        other.roi_head.mask_head[2].conv_logits.weight.neg_()
    export.ExportedHook(file.path).before_test(SimpleNamespace(model=other))
    found = [other.test_step(one)[0] for one in data]
    assert found[0].pred_instances.masks.shape[1:] == (120, 130) and found[0].scale_factor[0] < 0.9
    apart = differences(expected, found)
    assert len(found[0].pred_instances) and apart['unmatched'] == 0
    assert apart['boxes'] < 1e-5 and apart['masks'] < 1e-3


@writes
def test_an_evaluation_with_the_file_gives_mmdets_map(file, cascade, settings, folder):
    """On annotations that every second of mmdet's detections is, since the weights are random."""
    settings = {**settings, 'test_evaluator.ann_file': str(folder / 'found.json'),
                'test_dataloader.dataset.ann_file': str(folder / 'found.json')}
    cfg = launch.load_config(DETECTOR['config'], cfg_options=settings)
    content = json.loads((folder / 'shapes/annotations/instances_val.json').read_text())
    content['annotations'] = []
    for image in content['images']:
        path = folder / 'shapes/val' / image['file_name']
        found = cascade.test_step(image_batch(cfg, path))[0].pred_instances[::2]
        for box, label, mask in zip(found.bboxes.tolist(), found.labels.tolist(), found.masks):
            area = encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=image['id'], iscrowd=0,
                category_id=content['categories'][label]['id'], area=int(mask.sum()),
                bbox=[*box[:2], box[2] - box[0], box[3] - box[1]],
                segmentation=dict(size=area['size'], counts=area['counts'].decode())))
    (folder / 'found.json').write_text(json.dumps(content))
    metrics = export.evaluate(cfg, str(folder / 'det.pth'), dict(onnx=file.path))
    for name in ('coco/bbox_mAP', 'coco/segm_mAP'):
        assert metrics['onnx'][name] == pytest.approx(metrics['PyTorch'][name], abs=1e-3)
        assert 0.2 < metrics['onnx'][name] < 0.99


@writes
def test_the_tool_says_what_it_compared(tool):
    assert re.search(r'2 x 97 x 150 │ boxes of \d+ … unmatched of \d+ +│ +\S+ │ +\S+ │ holds', tool)


@writes
def test_an_image_that_is_too_small_is_refused(file):
    with pytest.raises(export.ExportError, match=r'\(1, 3, 31, 64\): a side has at least 32'):
        file(torch.zeros(1, 3, 31, 64, dtype=torch.uint8))


@writes
def test_other_weights_of_a_head_do_not_pass(file, cascade):
    for find, says in ((lambda m: m.roi_head.bbox_head[0].fc_reg.bias, 'boxes'),
                       (lambda m: m.roi_head.bbox_head[2].fc_cls.bias, 'scores'),
                       (lambda m: m.roi_head.mask_head[1].conv_logits.bias, 'masks')):
        other = copy.deepcopy(cascade)
        with torch.no_grad():
            find(other).add_(torch.linspace(-0.3, 0.3, len(find(other))))
        assert [c for c in export.check(other, file, SIZES[:1])
                if not c.holds and c.output.startswith((says, 'unmatched'))]


# Copies

@writes
def test_a_float16_copy_places_and_chooses_boxes_in_float32(file, cascade, tmp_path):
    path = str(tmp_path / 'half.onnx')
    export.halve(file.path, path)
    onnx.checker.check_model(path)
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    kinds = {**{w.name: w.data_type for w in graph.initializer},
             **{v.name: v.type.tensor_type.elem_type
                for v in (*graph.input, *graph.output, *graph.value_info)}}
    read = {kind: [kinds[n.input[0]] for n in graph.node if n.op_type == kind]
            for kind in ('Conv', 'Gemm', 'NonMaxSuppression', 'RoiAlign', 'TopK')}
    assert set(read['Conv']) == {TensorProto.FLOAT16}
    assert read['Gemm'].count(TensorProto.FLOAT16) >= 9  # three of each stage
    for kind in ('NonMaxSuppression', 'RoiAlign', 'TopK'):
        assert set(read[kind]) == {TensorProto.FLOAT}
    assert os.path.getsize(path) < 0.65 * os.path.getsize(file.path)
    boxes, expected = (export.ExportedFile(p)(torch.as_tensor(noise(97, 150))[None])[0]
                       for p in (path, file.path))
    assert boxes.dtype == torch.float32 and (boxes != boxes.half()).float().mean() > 0.5
    assert 0 < (boxes[0, 0] - expected[0, 0]).abs().max() < 0.5


@writes
def test_int8_of_a_detector_keeps_boxes_in_float32(file, tmp_path):
    path = str(tmp_path / 'int8.onnx')
    export.quantize(file.path, path, [torch.as_tensor(noise(97, 150))[None]])
    nodes = onnx.load(path).graph.node
    by = {name: n.op_type for n in nodes for name in n.output}
    read = {kind: [by.get(n.input[0]) for n in nodes if n.op_type == kind]
            for kind in ('Conv', 'Gemm')}
    assert set(read['Conv']) == {'DequantizeLinear'}
    assert read['Gemm'].count('DequantizeLinear') >= 9  # three of each stage
    places = [name for n in nodes if n.op_type in ('NonMaxSuppression', 'RoiAlign', 'TopK')
              for name in (n.input[1:2] if n.op_type == 'RoiAlign' else n.input[:2])]
    assert 'DequantizeLinear' not in {by.get(name) for name in places}
    boxes, _, _, count, _ = export.ExportedFile(path)(torch.as_tensor(noise(97, 150))[None])
    assert count > 0 and (boxes[0, 0, 2:] > boxes[0, 0, :2]).all()


# Other detectors

BOX_HEAD = dict(
    type='Shared2FCBBoxHead', in_channels=48, fc_out_channels=32, roi_feat_size=7, num_classes=4,
    bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.] * 4,
                    target_stds=[0.1, 0.1, 0.2, 0.2]),
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.),
    loss_bbox=dict(type='L1Loss', loss_weight=1.))
RESNET = dict(_delete_=True, type='ResNet', depth=18, base_channels=16, num_stages=4,
              out_indices=(0, 1, 2, 3), norm_cfg=dict(type='BN'), style='pytorch')


def standard(agnostic, masks, backbone=None):
    """A Faster or Mask R-CNN by mmdet's names, of the same neck and RPN."""
    cfg = config(DETECTOR, 'unused', **LIMITS)
    model, roi = cfg.model, cfg.model.roi_head
    model.type = 'MaskRCNN' if masks else 'FasterRCNN'
    roi.type = 'StandardRoIHead'
    for name in ('num_stages', 'stage_loss_weights'):
        roi.pop(name)
    roi.bbox_head = dict(BOX_HEAD, reg_class_agnostic=agnostic)
    roi.bbox_roi_extractor.roi_layer.sampling_ratio = 0
    if masks:
        roi.mask_head.class_agnostic = agnostic
    else:
        roi.pop('mask_head')
        roi.pop('mask_roi_extractor')
    model.train_cfg.rcnn = model.train_cfg.rcnn[0]
    if backbone:
        model.backbone = Config(dict(backbone=backbone)).backbone
        model.backbone.pop('_delete_', None)
    return cfg


@pytest.mark.parametrize('agnostic, masks', [(True, True), (False, False), (False, True)])
def test_plain_two_stage_detectors_give_mmdets_detections(agnostic, masks):
    model = detector(standard(agnostic, masks))
    number = exact(model, Eager(model))
    assert min(number) > 0 and ('masks' in Eager(model).outputs) == masks


def test_a_cascade_of_class_agnostic_boxes_gives_mmdets_detections():
    """As mmdet's own Cascade R-CNN has them."""
    cfg = config(DETECTOR, 'unused', **LIMITS)
    for head in cfg.model.roi_head.bbox_head:
        head.reg_class_agnostic = True
    model = detector(cfg)
    assert min(exact(model, Eager(model))) > 0


@pytest.mark.parametrize('input', ['float32', 'normalized'])
def test_images_may_be_normalised_inside_or_outside(input, cascade):
    file = Eager(cascade, input=input)
    assert min(exact(cascade, file)) > 0
    assert ('pad_divisor' in file.facts) == (input == 'normalized')


@writes
@pytest.mark.long
def test_a_resnet_is_exported_with_its_heads(tmp_path):
    model = detector(standard(True, False, RESNET))
    path = str(tmp_path / 'resnet.pt2')
    export.export(model, path)
    assert min(exact(model, export.ExportedFile(path))) > 0
    with pytest.raises(export.ExportError, match='a folder'):
        export.ExportedFile(str(tmp_path))


@writes
@pytest.mark.long
def test_swin_hat_is_exported_with_its_heads(tmp_path):
    model = detector(standard(True, False, dict(
        type='SwinHAT', arch=dict(embed_dims=16, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 4)),
        ct_size=2)))
    path = str(tmp_path / 'swin_hat.onnx')
    export.export(model, path)
    assert min(exact(model, export.ExportedFile(path))) > 0


# What is not served

@pytest.mark.parametrize('change, says', [
    (dict(roi_head=dict(type='DoubleHeadRoIHead', reg_roi_scale_factor=1.3)), 'DoubleHeadRoIHead'),
    (dict(test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms', iou_threshold=0.5)))), 'soft_nms'),
    (dict(test_cfg=dict(rpn=dict(nms_pre=-1))), 'nms_pre=-1'),
    (dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
        _delete_=True, type='SeesawLoss', num_classes=4)))), 'softmax')])
def test_a_head_that_cannot_be_exported_is_named_in_a_line(change, says):
    cfg = standard(True, False)
    cfg.merge_from_dict(dict(model=change))
    model = build_model(cfg).eval()
    with pytest.raises(export.ExportError) as error:
        choose_part(model, 'whole')
    assert re.search(says, str(error.value)) and '\n' not in str(error.value)
    assert choose_part(model) == 'features'


def test_an_old_onnxscript_is_named_before_anything_is_captured(cascade, tmp_path, monkeypatch):
    info = tmp_path / 'onnxscript-0.6.2.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: onnxscript\nVersion: 0.6.2\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(export.ExportError, match='onnxscript 0.6.2: export needs 0.7'):
        export.export(cascade, str(tmp_path / 'det.onnx'))


def test_a_torchvision_without_operators_is_named(cascade, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision.extension', None)
    with pytest.raises(export.ExportError, match="needs torchvision's operators"):
        choose_part(cascade, 'whole')


def test_a_folder_in_place_of_a_file_is_refused(cascade, tmp_path):
    (tmp_path / 'det.onnx').mkdir()
    with pytest.raises(export.ExportError, match='is a folder'):
        export.export(cascade, str(tmp_path / 'det.onnx'))


# Parts

def test_pictures_are_prepared_as_openmmlab_does(cascade):
    """RGB and BGR networks, with and without padding."""
    for settings in (dict(bgr_to_rgb=True, pad_size_divisor=32), dict(pad_size_divisor=7,
                                                                     pad_value=1.5), dict()):
        model = SimpleNamespace(data_preprocessor=type(cascade.data_preprocessor)(
            mean=[10., 20., 30.], std=[2., 3., 4.], **settings))
        image = torch.as_tensor(noise(33, 50))
        expected = model.data_preprocessor(batch(image))['inputs']
        got = Pictures(preprocessing(model))(image.flip(0)[None])
        assert got.shape == expected.shape and torch.allclose(got, expected)


def test_suppression_keeps_what_torchvision_does():
    """Of several images and classes; with fewer boxes than asked for, and none."""
    from torchvision.ops import batched_nms
    low = 50 * torch.rand(2, 60, 2)
    boxes, scores = torch.cat([low, low + 20], -1), torch.rand(2, 60) - 0.2
    labels = torch.randint(3, (2, 60))
    kept = ops.suppress_labelled(boxes, scores, labels, 3, 0.5, 100)
    for i in range(2):
        there = scores[i] > 0
        index = batched_nms(boxes[i, there], scores[i, there], labels[i, there], 0.5)
        assert torch.equal(kept[i].sort(descending=True).values[:len(index)],
                           scores[i, there][index])
        assert (kept[i] > 0).sum() == len(index)
    found, values, named, count = ops.detections(boxes[:, :3], kept[:, :3] * 0, labels[:, :3], 5)
    assert found.shape == (2, 5, 4) and not found.any() and not values.any() and not count.any()


# Segmentors and classifiers

def test_a_segmentor_takes_pictures_as_they_are_read(tmp_path):
    segmentor = network(config(SEGMENTOR, tmp_path))
    for settings in (dict(), dict(labels=True), dict(input='normalized')):
        checks = export.check(segmentor, Eager(segmentor, **settings), SIZES)
        assert all(check.holds for check in checks)
    file = Eager(segmentor)
    data = dict(inputs=[torch.as_tensor(noise(64, 90))],
                data_samples=[SegDataSample(metainfo=dict(ori_shape=(64, 90), img_shape=(64, 90)))])
    expected = segmentor.test_step(copy.deepcopy(data))[0].seg_logits.data
    hook, other = export.ExportedHook.__new__(export.ExportedHook), copy.deepcopy(segmentor)
    hook.file = file
    with torch.no_grad():
        other.decode_head.conv_seg.weight.neg_()
    hook.before_test(SimpleNamespace(model=other))
    assert torch.allclose(other.test_step(data)[0].seg_logits.data, expected, atol=1e-4)


@writes
def test_a_classifier_gives_its_softmax(tmp_path):
    (tmp_path / 'classifier.py').write_text(CLASSIFIER)
    cfg = launch.load_config(str(tmp_path / 'classifier.py'))
    model = network(cfg)
    assert choose_part(model) == 'whole'
    path = str(tmp_path / 'classifier.pt2')
    export.export(model, path, cfg=cfg)
    file = export.ExportedFile(path)
    checks = export.check(model, file, SIZES)
    assert {c.output for c in checks} == {'scores'} and all(c.error < 1e-5 for c in checks)
    scores, = file(torch.as_tensor(noise(50, 60))[None])
    assert scores.shape == (1, 7) and scores.sum().item() == pytest.approx(1)
    assert file.facts['task'] == 'classification'
    assert json.loads(file.facts['resize']) == {
        'scale': 256, 'edge': 'short', 'backend': 'pillow', 'interpolation': 'bicubic',
        'crop_size': 224}
    image = dict(inputs=torch.as_tensor(noise(64, 64))[None], data_samples=[DataSample()])
    expected = model.test_step(copy.deepcopy(image))[0].pred_score
    assert torch.allclose(predict(file, model, image)[0].pred_score, expected, atol=1e-6)
    assert len(expected.unique()) == 7


@pytest.mark.parametrize('number, says', [(0, 'nothing found'), (3, 'holds')])
def test_a_comparison_of_no_detections_does_not_hold(number, says, capsys):
    export.print_checks([Check((1, 64, 64), f'{name} of {number}', (number, ), 0., 1e-3)
                         for name in ('boxes', 'unmatched')], 'Beside PyTorch')
    printed = capsys.readouterr().out
    assert says in printed and ('--evaluate' in printed) == ('holds' not in printed) == (not number)
