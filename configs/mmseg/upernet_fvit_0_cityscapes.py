# UperNet with FasterViT-0 on Cityscapes at crop 512 x 1024, 80k iterations. The rest is the recipe
# of ../_base_/upernet_ade20k.py, the paper's for ADE20K.
_base_ = ['../_base_/upernet_ade20k.py', 'mmseg::_base_/datasets/cityscapes.py']

checkpoint_file = 'fastervit://0-224-1k'
num_classes = 19
max_iters = 80000
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(arch='0', init_cfg=dict(checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[64, 128, 256, 512], num_classes=num_classes),
    auxiliary_head=dict(in_channels=256, num_classes=num_classes))
train_cfg = dict(max_iters=max_iters, val_interval=8000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=8000))
