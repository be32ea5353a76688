_base_ = '../_base_/dino_coco.py'

checkpoint_file = 'fastervit://3-224-1k'
model = dict(
    backbone=dict(arch='3', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[256, 512, 1024]))
