# Cascade Mask R-CNN with SwinHAT-T on COCO: Swin-T with carriers in place of shifted windows, from
# Microsoft's ImageNet weights for all that the two share. Carriers start fresh. Heads and schedule are
# those of ./cascade_fvit.py; the rate of stochastic depth is that of mmdet's configs of Swin.
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
