# Mask2Former with FasterViT-0, semantic segmentation of ADE20K at crop 512, 160k iterations:
# mmseg's config for ResNet-50.
_base_ = [
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    '../_base_/mask2former.py',
]
custom_imports = dict(
    imports=['mmdet.models', 'fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

checkpoint_file = 'fastervit://0-224-1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        arch='0',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    decode_head=dict(in_channels=[64, 128, 256, 512]))

optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    paramwise_cfg=dict(_delete_=True, **_base_.mask2former_paramwise_cfg))

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
