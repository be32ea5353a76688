# FasterViT-6 on ImageNet-1K, from scratch, by the authors' recipe file.
# TRAINING.md: weight decay 0.12.
_base_ = '../_base_/imagenet_train.py'

model = dict(backbone=dict(arch='6'), head=dict(in_channels=2560))
optim_wrapper = dict(
    dtype='bfloat16',  # float16 may overflow in a network of this size
    optimizer=dict(
        _delete_=True, type='Lamb', lr=_base_.lr, betas=(0.9, 0.999), weight_decay=0.15))
custom_hooks = [*_base_.custom_hooks[:-1], dict(type='MESAHook', weight=5.0)]
