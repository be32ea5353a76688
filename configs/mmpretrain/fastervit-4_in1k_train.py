# FasterViT-4 on ImageNet-1K, from scratch, by the authors' recipe file.
# TRAINING.md: MESA 5.0.
_base_ = '../_base_/imagenet_train.py'

model = dict(backbone=dict(arch='4'), head=dict(in_channels=1568))
optim_wrapper = dict(optimizer=dict(
    _delete_=True, type='Lamb', lr=_base_.lr, betas=(0.9, 0.999), weight_decay=0.12))
custom_hooks = [*_base_.custom_hooks[:-1], dict(type='MESAHook', weight=4.0)]
