# UperNet with the ImageNet-21K networks at crop 640. This config has 4-21k-224: feature maps of 40
# and 20 cells need the least padding with its windows of 14 and 7. upernet_fvit_640_*.py have the
# other networks.
_base_ = ['../_base_/upernet_ade20k.py', 'mmseg::_base_/datasets/ade20k_640x640.py']

checkpoint_file = 'fastervit://4-21k-224'
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(arch='4-21k-224', init_cfg=dict(checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[196, 392, 784, 1568]),
    auxiliary_head=dict(in_channels=784),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride=(426, 426)))
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(dtype='bfloat16')  # float16 may overflow in a network of this size
