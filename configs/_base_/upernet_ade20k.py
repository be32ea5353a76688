# UperNet with FasterViT-2 for ADE20K's 150 classes. configs/mmseg adds crop size and data.
#
# Stated in the paper: AdamW, lr 6e-5, weight decay 0.01, batch 16 (8 x 2), crop 512.
# Not stated there, and chosen by this project:
# - heads, augmentation and the schedule of 160k iterations: those of mmseg's own config for Swin, a
#   peer in the paper's table, so that results can be compared; mixed precision, for memory;
# - drop path: each variant's ImageNet rate (0.2 for FasterViT-2), with which its weights were
#   trained. To try another: --cfg-options model.backbone.drop_path_rate=0.1
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
    './fastervit.py',
]
custom_imports = dict(imports=['fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

checkpoint_file = 'fastervit://2-224-1k'
num_classes = 150
model = dict(
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        arch='2',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    decode_head=dict(num_classes=num_classes),
    auxiliary_head=dict(num_classes=num_classes))

optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg={{_base_.fastervit_paramwise_cfg}})
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160000),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
