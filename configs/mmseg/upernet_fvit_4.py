_base_ = './upernet_fvit.py'

checkpoint_file = 'fastervit://4-224-1k'
model = dict(
    backbone=dict(arch='4', init_cfg=dict(checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[196, 392, 784, 1568]),
    auxiliary_head=dict(in_channels=784))
