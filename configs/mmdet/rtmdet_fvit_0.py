# RTMDet with FasterViT-0 on COCO at 640 x 640, for real time: mmdet's recipe for RTMDet with Swin-B
# (100 epochs, batch 128), with neck and head as narrow as RTMDet-m's. Its hooks are its own, so it
# cannot inherit those of ../_base_/fastervit.py; tools/train.py adds them.
_base_ = 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py'
custom_imports = dict(imports=['fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

checkpoint_file = 'fastervit://0-224-1k'
width = 192
model = dict(
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        arch='0',
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    neck=dict(in_channels=[128, 256, 512], out_channels=width, num_csp_blocks=2),
    bbox_head=dict(in_channels=width, feat_channels=width))

optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    paramwise_cfg=dict(  # its heads share layers, which bypass_duplicate allows
        custom_keys=dict(position=dict(decay_mult=0.), carrier_bias=dict(decay_mult=0.),
                         layer_scale=dict(decay_mult=0.))))
train_dataloader = dict(batch_size=16)  # on 8 GPUs, instead of 32 on 4
auto_scale_lr = dict(base_batch_size=128)
sync_bn = 'torch'

log_processor = dict(type='MemoryLogProcessor')
vis_backends = [dict(type='LocalVisBackend'), dict(type='OptionalTensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
