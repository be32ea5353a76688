_base_ = './upernet_fvit.py'

checkpoint_file = 'fastervit://1-224-1k'
model = dict(
    backbone=dict(arch='1', init_cfg=dict(checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(in_channels=320))
