_base_ = './upernet_fvit.py'

checkpoint_file = 'fastervit://0-224-1k'
model = dict(
    backbone=dict(arch='0', init_cfg=dict(checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256))
