# FasterViT-4 on ImageNet-1K, for the authors' file fastervit://4-224-1k: 224 x 224, crop fraction
# 1.0. The figures are the authors' (docs/imagenet.md).
_base_ = '../_base_/imagenet_robustness.py'

model = dict(backbone=dict(arch='4'), head=dict(in_channels=1568))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PublishedFiguresHook',
        figures=dict(
            test={'accuracy/top1': 85.4, 'accuracy/top5': 97.3},
            imagenet_a={'accuracy/top1': 49.0},
            imagenet_r={'accuracy/top1': 56.0},
            imagenet_v2={'accuracy/top1': 75.7})),
]
