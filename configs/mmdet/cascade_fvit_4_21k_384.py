_base_ = './cascade_fvit.py'

checkpoint_file = 'fastervit://4-21k-384'
model = dict(
    backbone=dict(arch='4-21k-384', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[196, 392, 784, 1568]))
optim_wrapper = dict(dtype='bfloat16')  # float16 may overflow in a network of this size
