# FasterViT-3 on ImageNet-1K, for the authors' file fastervit://3-224-1k: 224 x 224, crop fraction
# 1.0. The figures are the authors' (docs/imagenet.md).
_base_ = '../_base_/imagenet_robustness.py'

model = dict(backbone=dict(arch='3'), head=dict(in_channels=1024))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PublishedFiguresHook',
        figures=dict(
            test={'accuracy/top1': 84.9, 'accuracy/top5': 97.2},
            imagenet_a={'accuracy/top1': 44.2},
            imagenet_r={'accuracy/top1': 51.9},
            imagenet_v2={'accuracy/top1': 75.0})),
]
