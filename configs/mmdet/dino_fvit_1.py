_base_ = '../_base_/dino_coco.py'

checkpoint_file = 'fastervit://1-224-1k'
model = dict(
    backbone=dict(arch='1', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[160, 320, 640]))
