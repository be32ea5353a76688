_base_ = './upernet_fvit.py'

checkpoint_file = 'fastervit://3-224-1k'
model = dict(
    backbone=dict(arch='3', init_cfg=dict(checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
