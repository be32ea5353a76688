# FasterViT-0 on ImageNet-1K, from scratch, by the authors' recipe file.
# TRAINING.md: weight decay 0.005 and MESA 0.1.
_base_ = '../_base_/imagenet_train.py'

model = dict(backbone=dict(arch='0'), head=dict(in_channels=512))

# The published network is evaluated on images whose shorter side is 224 / 0.875.
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    *_base_.test_pipeline[2:],
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

custom_hooks = _base_.custom_hooks[:-1]  # without MESA
