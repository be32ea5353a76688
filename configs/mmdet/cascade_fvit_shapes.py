# A smaller cascade_fvit_small.py for the generated shapes: trains from scratch in minutes on two
# CPU cores. `make demo`, or `python -m benchmarks.shapes`, generates data/shapes/.
_base_ = './cascade_fvit_small.py'

classes = ('circle', 'square', 'triangle', 'star')
num_classes = len(classes)
width = 48
model = dict(
    backbone=dict(arch=dict(stem_channels=16, depths=(2, 1, 2, 1))),
    neck=dict(out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=[dict(head, in_channels=width, num_classes=num_classes)
                   for head in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, conv_out_channels=width, num_classes=num_classes)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=60),
        rcnn=[dict(stage, sampler=dict(stage.sampler, num=16))
              for stage in _base_.model.train_cfg.rcnn]),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)))

data_root = 'data/shapes/'
metainfo = dict(
    classes=classes,
    palette=[(220, 20, 60), (30, 144, 255), (60, 179, 113), (255, 165, 0)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# In the same time, batches of 5 give one or two points more mask AP than batches of 8.
train_dataloader = dict(
    batch_size=5,
    num_workers=0,  # loading an image takes less than a millisecond
    persistent_workers=False,
    dataset=dict(
        data_root=data_root, metainfo=metainfo,
        ann_file='annotations/instances_train.json', pipeline=train_pipeline,
        indices=1000))  # of 1200: environment and demo together take less than 15 minutes
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root, metainfo=metainfo,
        ann_file='annotations/instances_val.json', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

max_epochs = 6
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=5)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1, save_best=None))
