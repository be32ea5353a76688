"""One-stage detectors and DETRs in a file, beside mmdet.

Each is mmdet's own config, made small, with a ResNet.
"""
import re

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config

from fastervit_mm.models import build_model
from tests.conftest import stir
from tests.export.test_whole import Eager, exact

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
    model = small(*ONE_STAGE[kind])
    print(exact(model, Eager(model)))


@pytest.mark.parametrize('kind', DETR)
def test_a_detr_gives_mmdets_detections(kind):
    model = small(*DETR[kind])
    file = Eager(model)
    assert all(exact(model, file))
    images = torch.randn(2, 3, 100, 140)
    with torch.no_grad():
        states = model.forward_transformer(model.extract_feat(images), samples(images))
        expected = model.bbox_head(**states)
        found = file._module.heads.queries(model.extract_feat(images))
    for one, other in zip(found, expected):
        order, same = (x[-1] if x.ndim == 4 else x for x in (one, other))
        assert (order - same).abs().max() < 1e-4
