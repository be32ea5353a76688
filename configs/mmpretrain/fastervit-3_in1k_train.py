# FasterViT-3 on ImageNet-1K, from scratch, by the authors' recipe file.
# TRAINING.md: weight decay 0.005 and MESA 0.5.
_base_ = '../_base_/imagenet_train.py'

model = dict(backbone=dict(arch='3'), head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(weight_decay=0.075))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=35 + 1),
    _base_.param_scheduler[1],
]
