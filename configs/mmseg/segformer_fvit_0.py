# SegFormer's head on FasterViT-0, ADE20K at crop 512, 160k iterations: mmseg's config for
# SegFormer, whose head learns ten times as fast as the backbone.
_base_ = [
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    '../_base_/fastervit.py',
]
custom_imports = dict(imports=['fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

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
    paramwise_cfg=dict(
        _base_.fastervit_paramwise_cfg,
        _delete_=True,
        custom_keys=dict(_base_.fastervit_paramwise_cfg.custom_keys, head=dict(lr_mult=10.))))
auto_scale_lr = dict(enable=False, base_batch_size=16)

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
