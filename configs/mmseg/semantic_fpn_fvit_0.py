# Semantic FPN with FasterViT-0 on ADE20K at crop 512. Optimizer and schedule are PVT's (arXiv
# 2102.12122): AdamW, lr 1e-4, weight decay 1e-4, 80k iterations, batch 16.
_base_ = [
    'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
    '../_base_/fastervit.py',
]
custom_imports = dict(imports=['fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

checkpoint_file = 'fastervit://0-224-1k'
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        arch='0',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    neck=dict(in_channels=[64, 128, 256, 512]))

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    paramwise_cfg={{_base_.fastervit_paramwise_cfg}})
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=80000)]
train_cfg = dict(max_iters=80000)
train_dataloader = dict(batch_size=2)  # on 8 GPUs
auto_scale_lr = dict(enable=False, base_batch_size=16)

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
