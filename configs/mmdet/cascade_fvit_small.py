# A small Cascade Mask R-CNN, 8 million parameters, for your own data: trains from scratch within an
# hour on two CPU cores. tools/new_config.py writes a config that inherits this one, with sizes,
# anchors and schedule to suit the data; docs/own_data.md shows how to do it by hand.
_base_ = './cascade_fvit.py'
custom_imports = dict(imports=[
    'fastervit_mm', 'fastervit_mm.engine', 'fastervit_mm.engine.det_visualizer'])

checkpoint_file = None
classes = ('object',)
num_classes = len(classes)
width = 64
# Without pretraining, FPN and mask head need a norm; GN works with small batches. The box heads are
# two fully connected layers, which here learn faster than convolutions and cost less.
norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dim=32, stem_channels=32, depths=(2, 2, 4, 2),
            num_heads=(1, 2, 4, 8), drop_path_rate=0.),
        init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=width, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=width, feat_channels=width, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=1)),
        bbox_head=[
            dict(
                type='ConvFCBBoxHead',
                num_shared_convs=0,
                num_shared_fcs=2,
                in_channels=width,
                fc_out_channels=256,
                roi_feat_size=7,
                num_classes=num_classes,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder', target_means=[0.] * 4, target_stds=target_stds),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.))
            for target_stds in (
                [0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ],
        mask_roi_extractor=dict(out_channels=width, roi_layer=dict(sampling_ratio=1)),
        mask_head=dict(
            num_convs=2, in_channels=width, conv_out_channels=width, num_classes=num_classes,
            norm_cfg=norm_cfg, loss_mask=dict(loss_weight=2.))),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner', pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou,
                    match_low_quality=False, ignore_iof_thr=-1),
                sampler=dict(
                    type='RandomSampler', num=64, pos_fraction=0.4, neg_pos_ub=-1,
                    add_gt_as_proposals=True),
                mask_size=28,
                pos_weight=-1,
                debug=False) for iou in (0.5, 0.6, 0.7)
        ]),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200), rcnn=dict(score_thr=0.02)))

# Files as in docs/own_data.md.
dataset_type = 'CocoDataset'
data_root = 'data/mine/'
scale = (448, 448)  # the longer side becomes 448 pixels
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# In the same time, many small batches give better results than few large ones.
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=dict(classes=classes),
        ann_file='annotations/train.json', data_prefix=dict(img='train/'),
        filter_cfg=dict(min_size=8), pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=dict(classes=classes),
        ann_file='annotations/val.json', data_prefix=dict(img='val/'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

max_epochs = 40
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(lr=1e-3, fused=True), paramwise_cfg=None,
    clip_grad=dict(max_norm=10.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
custom_hooks = [dict(type='CurvesHook'), dict(type='EstimateHook')]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(max_keep_ckpts=2, save_best='auto'))
visualizer = dict(type='EnlargedDetVisualizer', line_width=2)
