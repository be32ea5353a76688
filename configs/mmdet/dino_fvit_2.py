_base_ = '../_base_/dino_coco.py'

checkpoint_file = 'fastervit://2-224-1k'
model = dict(
    backbone=dict(arch='2', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[192, 384, 768]))
