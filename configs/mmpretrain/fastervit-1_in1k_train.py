# FasterViT-1 on ImageNet-1K, from scratch, by the authors' recipe file.
# TRAINING.md: weight decay 0.005 and MESA 0.2.
_base_ = '../_base_/imagenet_train.py'

model = dict(backbone=dict(arch='1'), head=dict(in_channels=640))
custom_hooks = [*_base_.custom_hooks[:-1], dict(type='MESAHook', weight=0.5)]
