_base_ = '../_base_/dino_coco.py'

checkpoint_file = 'fastervit://0-224-1k'
model = dict(
    backbone=dict(arch='0', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[128, 256, 512]))
