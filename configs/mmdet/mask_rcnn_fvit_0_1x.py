# Mask R-CNN with FasterViT-0 on COCO, 12 epochs: mmdet's config for Swin-T.
_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '../_base_/fastervit.py']
custom_imports = dict(imports=['fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

checkpoint_file = 'fastervit://0-224-1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        arch='0',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    neck=dict(in_channels=[64, 128, 256, 512]))

optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    paramwise_cfg=dict(_delete_=True, **_base_.fastervit_paramwise_cfg))

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
