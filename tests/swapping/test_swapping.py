"""FasterViT in mmdet's and mmseg's own configs, by tools/swap_backbone.py's function.

The backbone is small, and heads are narrowed where a config is slow; everything else is the
config's.
"""
from typing import NamedTuple, Tuple

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from fastervit_mm.models import build_model
from fastervit_mm.swapping import swap_backbone
from tests.conftest import REPO, TINY
from tests.running import run_tool

SIZES = (97, 131), (64, 90)  # height, width


class Case(NamedTuple):
    config: str
    stages: Tuple[int, ...]
    cuts: dict = {}  # settings that make it fast, or that its pipeline would have given
    sizes: Tuple[Tuple[int, int], ...] = SIZES
    predicts: bool = True


def fcs(count):
    return {f'model.roi_head.bbox_head.{i}.fc_out_channels': 32 for i in range(count)}


RPN = {'model.train_cfg.rpn_proposal.max_per_img': 50, 'model.test_cfg.rpn.max_per_img': 20}
ONE = {**RPN, 'model.roi_head.bbox_head.fc_out_channels': 32}
PROPOSALS = {'model.rpn_head.num_proposals': 20, 'model.test_cfg.rcnn.max_per_img': 20,
             **{f'model.roi_head.bbox_head.{i}.{key}': value for i in range(6) for key, value in (
                 ('feedforward_channels', 64), ('dynamic_conv_cfg.feat_channels', 8))}}
NARROW = {'model.decode_head.channels': 32, 'model.auxiliary_head.channels': 16}
ALL, UPPER = (0, 1, 2, 3), (1, 2, 3)
CASES = [
    Case('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', ALL, ONE),
    Case('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py', (2,), ONE),
    Case('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', ALL, {**RPN, **fcs(3)}),
    Case('mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', ALL, PROPOSALS),
    Case('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', UPPER),
    Case('mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py', UPPER),
    Case('mmdet::libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py', UPPER),
    Case('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', UPPER),
    Case('mmdet::tood/tood_r50_fpn_1x_coco.py', UPPER),
    Case('mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', (3,)),
    Case('mmdet::ssd/ssd300_coco.py', (1, 2), {}, ((301, 313), (300, 330)),
         predicts=False),  # SSDHead of mmdet 3.3 cannot, whatever the backbone: it has no loss_cls
    Case('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py', UPPER),
    Case('mmdet::yolox/yolox_s_8xb8-300e_coco.py', UPPER,),
    Case('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', UPPER,
         {'model.data_preprocessor.pad_size_divisor': 32}),
    Case('mmdet::detr/detr_r50_8xb2-150e_coco.py', (3,)),
    Case('mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py', UPPER,
         {'model.num_queries': 20}),
    Case('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', UPPER,
         {'model.num_queries': 20, 'model.dn_cfg.group_cfg.num_dn_queries': 10,
          'model.test_cfg.max_per_img': 20}),
    Case('mmdet::solov2/solov2_r50_fpn_1x_coco.py', ALL,
         {'model.mask_head.num_grids': [6, 5, 4, 3, 2]}),
    Case('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', ALL, ONE),
    Case('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', ALL,
         {'model.panoptic_head.num_queries': 10, 'model.train_cfg.num_points': 200,
          'model.data_preprocessor.batch_augments': None}),  # they pad to 1024 x 1024
    Case('mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', (2, 3)),
    Case('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py', (0, 2, 3)),
    Case('mmseg::encnet/encnet_r50-d8_4xb4-80k_ade20k-512x512.py', (2, 3)),
    Case('mmseg::ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py', (3,)),
    Case('mmseg::point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py', ALL),
    Case('mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', ALL, NARROW),
    Case('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', ALL),
    Case('mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py', ALL,
         {'model.decode_head.num_queries': 10, 'model.decode_head.train_cfg.num_points': 200}),
]


@pytest.fixture(autouse=True)
def _in_training():
    """Runner state that some heads query; initialisation is not logged."""
    hub, logger = MessageHub.get_current_instance(), MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    hub.update_info('epoch', 0)
    hub.update_info('iter', 0)
    yield
    logger.setLevel(level)
    hub.pop_info('epoch')
    hub.pop_info('iter')


def written(config, tmp_path, arch=TINY):
    out = tmp_path / 'swapped.py'
    swapped = swap_backbone(config, arch, out)
    out.write_text(swapped.text)
    return Config.fromfile(str(out)), swapped


def sample(scope, size, masked):
    """A sample with a large and a small object, or with two classes and void pixels."""
    height, width = size
    meta = dict(img_id=0, img_path='', img_shape=size, ori_shape=size, pad_shape=size,
                batch_input_shape=size, scale_factor=(1., 1.), flip=False, border=[0, height, 0,
                                                                                  width])
    labels = torch.zeros(1, *size, dtype=torch.long)
    labels[:, height // 2:] = 1
    if scope == 'mmseg':
        labels[:, :5] = 255
        return SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=labels))
    boxes = torch.tensor([[3., 5., width - 20., height - 9.], [30., 20., 49., 41.]])
    truth = InstanceData(bboxes=boxes, labels=torch.tensor([1, 0]))
    if masked:
        masks = np.zeros((2, *size), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        truth.masks = BitmapMasks(masks, *size)
    return DetDataSample(metainfo=meta, gt_instances=truth, ignored_instances=InstanceData(
        bboxes=torch.zeros(0, 4)), gt_sem_seg=PixelData(sem_seg=labels))


def batch(model, cfg, sizes, training=True):
    masked = any(word in repr(cfg.get('train_pipeline'))
                 for word in ("'with_mask': True", 'LoadPanopticAnnotations'))
    data = dict(inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes],
                data_samples=[sample(cfg.default_scope, size, masked) for size in sizes])
    return model.data_preprocessor(data, training)


@pytest.mark.parametrize('case', CASES, ids=lambda c: c.config.split('/')[-1][:-3])
def test_it_learns_and_predicts(case, tmp_path):
    """Loss, gradients of the whole backbone and neck, and a prediction, at odd sizes."""
    cfg, swapped = written(case.config, tmp_path)
    assert tuple(cfg.model.backbone.get('out_indices', ALL)) == case.stages
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.update(size=(128, 160))
    cfg.merge_from_dict(case.cuts)
    model = build_model(cfg)
    model.init_weights()
    model.train()
    losses = model(**batch(model, cfg, case.sizes), mode='loss')
    total, _ = model.parse_losses(losses)
    assert total.isfinite() and total > 0
    total.backward()
    for part in filter(None, (model.backbone, getattr(model, 'neck', None))):
        without = [n for n, p in part.named_parameters() if p.requires_grad and p.grad is None]
        assert not without
        assert all(p.grad.isfinite().all() for p in part.parameters() if p.grad is not None)
    if not case.predicts:
        return
    model.eval()
    size = case.sizes[0]
    with torch.no_grad():
        result, = model(**batch(model, cfg, [size], False), mode='predict')
    if cfg.default_scope == 'mmseg':
        assert result.pred_sem_seg.data.shape == (1, *size)
    elif 'pred_panoptic_seg' in result:
        assert result.pred_panoptic_seg.sem_seg.shape[-2:] == size
    else:
        found = result.pred_instances
        assert all(value.isfinite().all() for value in (found.scores, found.bboxes))
        assert 'masks' not in found or found.masks.shape[1:] == size


def test_a_convolutional_network_gets_our_optimizer(tmp_path):
    """mmseg's `pretrained`, and a schedule that would end above the new learning rate."""
    cfg, swapped = written('mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', tmp_path, '2')
    ours = Config.fromfile(REPO / 'configs/mmseg/upernet_fvit.py')
    assert cfg.model.pretrained is None
    assert cfg.model.backbone == dict(
        type='FasterViT', arch='2', out_indices=(2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='fastervit://2-224-1k'))
    assert cfg.optim_wrapper.optimizer == ours.optim_wrapper.optimizer
    assert cfg.optim_wrapper.paramwise_cfg == ours.optim_wrapper.paramwise_cfg
    assert cfg.optim_wrapper.constructor == ours.optim_wrapper.constructor
    scheduler, = cfg.param_scheduler
    assert (scheduler.type, scheduler.end) == ('PolyLR', 80000)
    assert scheduler.eta_min < 0.1 * cfg.optim_wrapper.optimizer.lr  # it was 1e-4
    assert cfg.train_cfg.max_iters == 80000 and cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.custom_imports.imports == ['fastervit_mm', 'fastervit_mm.engine']
    assert any('its map had stride 8 and has 32' in said for said in swapped.changes)
    assert max(map(len, swapped.text.splitlines())) <= 100


def test_a_transformers_optimizer_is_kept(tmp_path):
    """DETR trains its backbone at a tenth of the rate; norms there have no decay, as elsewhere."""
    cfg, _ = written('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', tmp_path)
    wrapper = cfg.optim_wrapper
    assert (wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == (2e-4, 1e-4)
    assert wrapper.clip_grad.max_norm == 0.1
    optimizer = build_optim_wrapper(build_model(cfg), wrapper).optimizer
    rates = {name: (group['lr'], group['weight_decay']) for group in optimizer.param_groups
             for name in group['param_names']}
    assert rates['backbone.stages.2.blocks.0.attn.qkv.weight'] == pytest.approx((2e-5, 1e-4))
    assert rates['backbone.out_norms.1.weight'] == pytest.approx((2e-5, 0))
    assert rates['neck.convs.0.conv.weight'] == (2e-4, 1e-4)
    assert rates['encoder.layers.0.self_attn.sampling_offsets.weight'] == pytest.approx(
        (2e-5, 1e-4))


@pytest.mark.parametrize('config, place, expected', [
    ('mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py', 'model.data_preprocessor',
     dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'model.neck',
     dict(in_channels=[192, 384, 768], start_level=0)),
    ('mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py', 'model.neck',
     dict(type='ChannelMapper', in_channels=[384], out_channels=1024)),
    ('mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py', '', dict(load_from=None)),
    ('mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'optim_wrapper.paramwise_cfg',
     dict(bypass_duplicate=True)),
    ('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py', 'model.neck',
     dict(in_channels=[768, 384, 192])),
    ('mmdet::carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py', 'model.neck',
     dict(in_channels=[96, 192, 384, 768])),
    ('mmseg::deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py', 'model.decode_head',
     dict(in_channels=768, in_index=1, dilations=(1, 3, 6, 9))),
    ('mmseg::vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py', 'model', dict(neck=None)),
    ('mmdet::hrnet/mask-rcnn_hrnetv2p-w18-1x_coco.py', 'model.neck',
     dict(in_channels=[96, 192, 384, 768])),
    ('mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py', 'optim_wrapper',
     dict(type='AmpOptimWrapper', constructor='MergedOptimWrapperConstructor')),
    ('mmseg::fastfcn/fastfcn_r50-d32_jpu_aspp_4xb2-80k_cityscapes-512x1024.py',
     'model.auxiliary_head', dict(in_channels=384, in_index=1)),
    ('mmdet/cascade_fvit_3', 'model.neck', dict(in_channels=[96, 192, 384, 768])),
])
def test_dependent_settings_are_changed(config, place, expected, tmp_path):
    cfg, _ = written(config, tmp_path, '2')
    for part in filter(None, place.split('.')):
        cfg = cfg[part]
    assert {key: cfg[key] for key in expected} == expected


def test_a_file_of_ones_own_is_named_from_where_the_new_one_lies(tmp_path):
    own = tmp_path / 'configs/mine.py'
    own.parent.mkdir()
    own.write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n"
                   "model = dict(bbox_head=dict(num_classes=3))\n")
    swapped = swap_backbone(own, '6', tmp_path / 'swapped.py')
    assert "_base_ = 'configs/mine.py'" in swapped.text
    (tmp_path / 'swapped.py').write_text(swapped.text)
    cfg = Config.fromfile(tmp_path / 'swapped.py')
    assert cfg.model.bbox_head.num_classes == 3
    assert cfg.model.backbone.init_cfg.checkpoint == 'fastervit://6-224-1k'


def test_large_variants_train_in_bfloat16(tmp_path):
    config = 'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
    for arch, expected in (('4-21k-384', 'bfloat16'), ('3', None)):
        cfg, _ = written(config, tmp_path, arch)
        assert cfg.optim_wrapper.get('dtype') == expected
        assert cfg.model.backbone.init_cfg.checkpoint == (
            f'fastervit://{arch}' + ('' if '21k' in arch else '-224-1k'))


@pytest.mark.parametrize('config, message', [
    ('mmdet::nothing/here.py', 'no such config of an installed package'),
    ('nowhere.py', 'no such file'),
    ('mmdet::cornernet/cornernet_hourglass104_10xb5-crop511-210e-mstest_coco.py',
     'HourglassNet is not a network of stages'),
    ('mmdet::rtmdet/rtmdet_x_p6_4xb8-300e_coco.py',
     'map 0 is 320 wide and of stride 4, not 320 and 8'),
    ('mmseg::vit/vit_deit-s16_upernet_8xb2-80k_ade20k-512x512.py', '4 maps all have stride 16'),
    ('mmseg::san/san-vit-b16_coco-stuff164k-640x640.py', 'no model.backbone to replace')])
def test_unsuitable_configs_are_an_error_of_one_line(config, message):
    with pytest.raises((OSError, ValueError), match=message) as raised:
        swap_backbone(config)
    assert '\n' not in str(raised.value) and type(raised.value).__module__ != 'mmengine'


def test_from_a_terminal(tmp_path):
    command = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'my_retinanet.py', '--arch', '2'
    done = run_tool('swap_backbone.py', *command, cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert '- model.neck.in_channels: [256, 512, 1024, 2048] -> [192, 384, 768]' in done.stdout
    assert Config.fromfile(tmp_path / 'my_retinanet.py').model.backbone.type == 'FasterViT'
    again = run_tool('swap_backbone.py', *command, cwd=tmp_path)
    assert (again.returncode, again.stderr.count('\n')) == (1, 1)
    assert again.stderr.startswith("swap_backbone: out='my_retinanet.py': exists already")
