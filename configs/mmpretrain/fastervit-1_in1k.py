# FasterViT-1 on ImageNet-1K, for the authors' file fastervit://1-224-1k: 224 x 224, crop fraction
# 1.0. The figures are the authors' (docs/imagenet.md).
_base_ = '../_base_/imagenet_robustness.py'

model = dict(backbone=dict(arch='1'), head=dict(in_channels=640))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PublishedFiguresHook',
        figures=dict(
            test={'accuracy/top1': 83.2, 'accuracy/top5': 96.5},
            imagenet_a={'accuracy/top1': 31.2},
            imagenet_r={'accuracy/top1': 47.5},
            imagenet_v2={'accuracy/top1': 72.6})),
]
