"""One-stage detectors and DETRs in a file, beside mmdet.

Each is mmdet's own config, made small, with a ResNet.
"""
import re

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config

from fastervit_mm import export
from fastervit_mm.export.parts import choose_part
from fastervit_mm.models import build_model
from tests.conftest import stir
from tests.export.test_whole import SIZES, Eager, batch, exact, noise, writes

RESNET = dict(_delete_=True, type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3))
BACKBONE = {'backbone.depth': 18, 'backbone.base_channels': 8, 'backbone.init_cfg': None}
HEAD = {'bbox_head.num_classes': 4, 'bbox_head.in_channels': 32, 'bbox_head.feat_channels': 64,
        'bbox_head.stacked_convs': 1}
# More than the first level has, and fewer than the last; more detections than are kept.
LIMITS = {'test_cfg.nms_pre': 60, 'test_cfg.max_per_img': 12}
FPN = {**BACKBONE, 'neck.in_channels': [8, 16, 32, 64], 'neck.out_channels': 32, **HEAD, **LIMITS}
ONE_STAGE = {
    'RetinaNet': ('retinanet/retinanet_r50_fpn_1x_coco', FPN),
    'ATSS': ('atss/atss_r50_fpn_1x_coco', FPN),
    'GFL': ('gfl/gfl_r50_fpn_1x_coco', FPN),
    'FCOS': ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', FPN),
    'FCOS of relative distances': (
        'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco', FPN),
    'RTMDet': ('rtmdet/rtmdet_l_8xb32-300e_coco', {
        **HEAD, **LIMITS, 'backbone': RESNET, 'neck.in_channels': [16, 32, 64],
        'neck.out_channels': 32, 'neck.num_csp_blocks': 1,
        'data_preprocessor.pad_size_divisor': 32}),
}

TRANSFORMER = {
    'backbone.depth': 18, 'backbone.base_channels': 8, 'backbone.init_cfg': None,
    'neck.in_channels': [16, 32, 64], 'num_queries': 20, 'bbox_head.num_classes': 4,
    'test_cfg.max_per_img': 12, 'encoder.num_layers': 2, 'decoder.num_layers': 2,
    'encoder.layer_cfg.ffn_cfg.feedforward_channels': 32,
    'decoder.layer_cfg.ffn_cfg.feedforward_channels': 32}
DEFORMABLE = 'deformable_detr/deformable-detr'
DETR = {
    'DINO': ('dino/dino-4scale_r50_8xb2-12e_coco', TRANSFORMER),
    'Deformable DETR': (f'{DEFORMABLE}_r50_16xb2-50e_coco', TRANSFORMER),
    'Deformable DETR that refines': (f'{DEFORMABLE}-refine_r50_16xb2-50e_coco', TRANSFORMER),
    'Deformable DETR of two stages': (
        f'{DEFORMABLE}-refine-twostage_r50_16xb2-50e_coco', TRANSFORMER),
}

# The layers before the scores.
CLASSES = re.compile(r'((retina|atss|gfl|conv|rtm)_cls|cls_branches)\..*weight')


def samples(images):
    shape = tuple(images.shape[2:])
    return [DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape)) for _ in images]


def small(name, options):
    """A detector of mmdet with random weights that tell places apart."""
    cfg = get_config(f'mmdet::{name}.py')
    cfg = Config(dict(default_scope='mmdet', model=cfg.model))
    cfg.merge_from_dict({f'model.{key}': value for key, value in options.items()})
    torch.manual_seed(0)
    model = build_model(cfg)
    stir(model)
    if hasattr(model, 'level_embed'):  # memory as it was found, until init_weights
        torch.nn.init.normal_(model.level_embed)
    model.eval()
    # Scores from 0 to 1 that float32 tells apart.
    with torch.no_grad():
        images = torch.randn(2, 3, 128, 128)
        logits = torch.cat([x.flatten() for x in model(images, samples(images))[0]])
        for key, parameter in model.bbox_head.named_parameters():
            if CLASSES.search(key):
                parameter *= 2 / logits.std()
    return model


@pytest.mark.parametrize('kind', ONE_STAGE)
def test_a_one_stage_detector_gives_mmdets_detections(kind):
    """More candidates than are kept; the last level has fewer than nms_pre."""
    model = small(*ONE_STAGE[kind])
    assert min(exact(model, Eager(model))) > 0


@pytest.mark.parametrize('kind', ['RetinaNet', 'GFL', 'FCOS'])
def test_no_detection_is_a_count_of_zero(kind):
    model = small(*ONE_STAGE[kind])
    model.test_cfg.score_thr = model.bbox_head.test_cfg.score_thr = 1.
    file = Eager(model)
    assert exact(model, file) == [0] * len(SIZES)
    assert not any(output.any() for output in file(torch.zeros(2, 3, 50, 70, dtype=torch.uint8)))


@pytest.mark.parametrize('kind', DETR)
def test_a_detr_gives_mmdets_queries_and_detections(kind):
    model = small(*DETR[kind])
    file = Eager(model)
    assert min(exact(model, file)) > 0
    images = torch.randn(2, 3, 100, 140)
    with torch.no_grad():
        maps = model.extract_feat(images)
        expected = model.bbox_head(**model.forward_transformer(maps, samples(images)))
        found = file._module.heads.queries(maps)
    for got, layers in zip(found, expected):
        assert (got - layers[-1]).abs().max() < 1e-4


@writes
@pytest.mark.long
@pytest.mark.parametrize('kind', [
    'RTMDet', 'RetinaNet', 'ATSS', 'GFL', 'FCOS', 'DINO', 'Deformable DETR'])
def test_a_file_gives_mmdets_detections_at_every_size_and_batch(kind, tmp_path):
    model = small(*{**ONE_STAGE, **DETR}[kind])
    path = str(tmp_path / 'detector.onnx')
    export.export(model, path)
    file = export.ExportedFile(path)
    assert min(exact(model, file)) > 0
    if kind in DETR:
        image = noise(97, 150)
        scores = model.test_step(batch(image))[0].pred_instances.scores
        found = file(torch.as_tensor(image[::-1].copy())[None])[1][0]
        assert (found.logit() - scores.logit()).abs().max() < 1e-4


@pytest.mark.parametrize('kind, change, says', [
    ('RetinaNet', {'test_cfg.nms.type': 'soft_nms'}, 'soft_nms'),
    ('RetinaNet', {'bbox_head.loss_cls': dict(
        _delete_=True, type='CrossEntropyLoss', use_sigmoid=False)}, 'RetinaHead with scores'),
    ('RTMDet', {'test_cfg.nms_pre': -1}, 'nms_pre=-1'),
    ('DINO', {'data_preprocessor.pad_size_divisor': 32}, 'DINO with padded images')])
def test_settings_that_are_not_served_are_named_in_a_line(kind, change, says):
    name, options = ONE_STAGE.get(kind) or DETR[kind]
    model = small(name, {**options, **change})
    with pytest.raises(export.ExportError) as error:
        choose_part(model, 'whole')
    assert re.search(says, str(error.value)) and '\n' not in str(error.value)


def test_a_neck_that_needs_padding_names_the_setting(tmp_path):
    """As RTMDet's, in mmdet's own config, which pads in its pipeline."""
    name, options = ONE_STAGE['RTMDet']
    model = small(name, {**options, 'data_preprocessor.pad_size_divisor': 1})
    with pytest.raises(export.ExportError, match='sides divisible by 32.*pad_size_divisor=32'):
        export.export(model, str(tmp_path / 'detector.pt2'))


def test_a_two_stage_detr_says_the_smallest_image_with_enough_cells():
    name, options = DETR['DINO']
    model = small(name, {**options, 'num_queries': 100})
    smallest = Eager(model)._module.smallest
    cells = [sum(x.shape[2:].numel() for x in model.extract_feat(torch.zeros(1, 3, side, side)))
             for side in (smallest - 8, smallest)]
    assert cells[0] < 100 <= cells[1]
