# FasterViT-0 on ImageNet-1K, for the authors' file fastervit://0-224-1k: 224 x 224, crop fraction
# 0.875. The figures are the authors' (docs/imagenet.md).
_base_ = '../_base_/imagenet_robustness.py'

model = dict(backbone=dict(arch='0'), head=dict(in_channels=512))

test_pipeline = {{_base_.robustness_pipeline}}
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PublishedFiguresHook',
        figures=dict(
            test={'accuracy/top1': 82.1, 'accuracy/top5': 95.9},
            imagenet_a={'accuracy/top1': 23.9},
            imagenet_r={'accuracy/top1': 45.9},
            imagenet_v2={'accuracy/top1': 70.9})),
]
