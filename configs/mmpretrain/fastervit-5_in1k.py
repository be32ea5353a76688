# FasterViT-5 on ImageNet-1K, for the authors' file fastervit://5-224-1k: 224 x 224, crop fraction
# 1.0. The figures are the authors' (docs/imagenet.md).
_base_ = '../_base_/imagenet_robustness.py'

model = dict(backbone=dict(arch='5'), head=dict(in_channels=2560))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PublishedFiguresHook',
        figures=dict(
            test={'accuracy/top1': 85.6, 'accuracy/top5': 97.4},
            imagenet_a={'accuracy/top1': 52.7},
            imagenet_r={'accuracy/top1': 56.9},
            imagenet_v2={'accuracy/top1': 76.0})),
]
