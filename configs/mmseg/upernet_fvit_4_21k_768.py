_base_ = './upernet_fvit_4.py'

checkpoint_file = 'fastervit://4-21k-768'
model = dict(backbone=dict(arch='4-21k-768', init_cfg=dict(checkpoint=checkpoint_file)))
optim_wrapper = dict(dtype='bfloat16')  # float16 may overflow in a network of this size
