# UperNet with SwinHAT-T on ADE20K at crop 512: Swin-T with carriers in place of shifted windows.
# Microsoft's ImageNet weights, as mmseg distributes them, initialise all parts that Swin-T has;
# carriers start at random. Heads and schedule are those of ./upernet_fvit.py; stochastic depth is as
# in mmseg's Swin configs.
_base_ = './upernet_fvit.py'

checkpoint_file = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth'  # noqa: E501
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinHAT',
        arch='tiny',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
