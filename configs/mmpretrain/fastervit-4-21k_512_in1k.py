# FasterViT-4, pretrained on ImageNet-21K, on ImageNet-1K, for the authors' file
# fastervit://4-21k-512: 512 x 512, crop fraction 1.0, the aspect not kept ("squash"). The figures
# are the authors' (docs/imagenet.md).
_base_ = '../_base_/imagenet.py'

model = dict(backbone=dict(arch='4-21k-512'), head=dict(in_channels=1568))

test_pipeline = [
    {{_base_.load_image}},
    dict(
        type='Resize',
        scale=(512, 512),
        keep_ratio=False,
        backend='pillow',
        interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=512),
    dict(type='PackInputs'),
]
val_dataloader = dict(batch_size=16, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PublishedFiguresHook',
        figures=dict(test={'accuracy/top1': 87.8, 'accuracy/top5': 98.4})),
]
