_base_ = '../_base_/dino_coco.py'

checkpoint_file = 'fastervit://5-224-1k'
model = dict(
    backbone=dict(arch='5', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[640, 1280, 2560]))
