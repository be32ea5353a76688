_base_ = '../_base_/dino_coco.py'

checkpoint_file = 'fastervit://4-21k-512'
model = dict(
    backbone=dict(arch='4-21k-512', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[392, 784, 1568]))
