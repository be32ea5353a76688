# FasterViT-2 on ImageNet-1K, for the authors' file fastervit://2-224-1k: 224 x 224, crop fraction
# 1.0. The figures are the authors' (docs/imagenet.md).
_base_ = '../_base_/imagenet_robustness.py'

model = dict(backbone=dict(arch='2'), head=dict(in_channels=768))

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='PublishedFiguresHook',
        figures=dict(
            test={'accuracy/top1': 84.2, 'accuracy/top5': 96.8},
            imagenet_a={'accuracy/top1': 38.2},
            imagenet_r={'accuracy/top1': 49.6},
            imagenet_v2={'accuracy/top1': 73.7})),
]
