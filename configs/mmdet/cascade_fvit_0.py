_base_ = './cascade_fvit.py'

checkpoint_file = 'fastervit://0-224-1k'
model = dict(
    backbone=dict(arch='0', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[64, 128, 256, 512]))
