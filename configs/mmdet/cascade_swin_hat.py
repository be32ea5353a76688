# Cascade Mask R-CNN with SwinHAT-T on COCO: Swin-T with carriers in place of shifted windows.
# Microsoft's ImageNet weights initialise all parts that Swin-T has; carriers start at random. Heads
# and schedule are those of ./cascade_fvit.py; stochastic depth is as in mmdet's Swin configs.
_base_ = './cascade_fvit.py'

checkpoint_file = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth'  # noqa: E501
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinHAT',
        arch='tiny',
        drop_path_rate=0.2,
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    neck=dict(in_channels=[96, 192, 384, 768]))
