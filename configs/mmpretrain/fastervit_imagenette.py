# A small FasterViT, 2.6 million parameters, from scratch on photographs of 10 classes (Imagenette),
# within 5 minutes on two CPU cores. mmseg/upernet_fvit_shapes.py has the same backbone, and can
# start from its checkpoint (docs/imagenet.md).
#
# data/imagenette is Imagenette as published, in any size: https://github.com/fastai/imagenette,
# with a folder for each class in train/ and in val/. Images of 128 or 160 pixels load fastest.
_base_ = '../_base_/imagenet.py'

classes = ('tench', 'English springer', 'cassette player', 'chain saw', 'church', 'French horn',
           'garbage truck', 'gas pump', 'golf ball', 'parachute')
num_classes = len(classes)
size = 64
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dim=32, stem_channels=16, depths=(1, 2, 2, 1),
            num_heads=(1, 2, 4, 8), drop_path_rate=0.),
        window_size=(4, 2)),  # feature maps of 4 and 2 cells need no padding
    head=dict(
        num_classes=num_classes, in_channels=256,
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1,
                  num_classes=num_classes, mode='original'),
        topk=(1, 5)))
data_preprocessor = dict(num_classes=num_classes)

data_root = 'data/imagenette'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.35, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=72, edge='short'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        type='CustomDataset', data_root=data_root, data_prefix='train',
        metainfo=dict(classes=classes), pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root=data_root, data_prefix='val',
        metainfo=dict(classes=classes), pipeline=test_pipeline))
test_dataloader = val_dataloader

lr = 2e-3
optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.05, fused=True),
    paramwise_cfg={{_base_.fastervit_paramwise_cfg}},
    clip_grad=dict(max_norm=5.))
max_epochs = 5
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64)
randomness = dict(seed=0)
custom_hooks = [dict(type='CurvesHook'), dict(type='EstimateHook')]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=-1))
