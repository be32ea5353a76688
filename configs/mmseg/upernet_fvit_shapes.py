# A smaller upernet_fvit_small.py for the generated shapes: trains from scratch in minutes on two
# CPU cores. `make demo-seg`, or `python -m benchmarks.shapes`, generates data/shapes/.
_base_ = './upernet_fvit_small.py'

classes = ('ground', 'circle', 'square', 'triangle', 'star')
num_classes = len(classes)
crop_size = (160, 160)
# Six of seven pixels are ground. With equal weights the network long predicts only ground; with this
# weight it predicts ground slightly too rarely, which costs less.
loss = dict(class_weight=[0.3, 1., 1., 1., 1.])
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch=dict(stem_channels=16, depths=(1, 2, 2, 1)),
        window_size=5),  # feature maps of 10 and 5 cells need no padding
    decode_head=dict(channels=48, num_classes=num_classes, loss_decode=loss),
    auxiliary_head=dict(channels=32, num_classes=num_classes, loss_decode=loss),
    test_cfg=dict(crop_size=(96, 96), stride=(64, 64)))

data_root = 'data/shapes/'
metainfo = dict(
    classes=classes,
    palette=[(40, 40, 40), (220, 20, 60), (30, 144, 255), (60, 179, 113), (255, 165, 0)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # loading an image takes less than a millisecond
    persistent_workers=False,
    dataset=dict(
        data_root=data_root, img_suffix='.png', metainfo=metainfo,
        data_prefix=dict(img_path='train', seg_map_path='labels/train'), pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root, img_suffix='.png', metainfo=metainfo,
        data_prefix=dict(img_path='val', seg_map_path='labels/val'), pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 1800
train_cfg = dict(max_iters=max_iters, val_interval=600)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=600, max_keep_ckpts=-1, save_best=None))
