_base_ = './cascade_fvit.py'

checkpoint_file = 'fastervit://6-224-1k'
model = dict(
    backbone=dict(arch='6', init_cfg=dict(checkpoint=checkpoint_file)),
    neck=dict(in_channels=[320, 640, 1280, 2560]))
optim_wrapper = dict(dtype='bfloat16')  # float16 may overflow in a network of this size
