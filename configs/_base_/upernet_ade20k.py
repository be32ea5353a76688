# UperNet with FasterViT-2 on ADE20K's 150 classes, but for crop size and data, which the configs in
# configs/mmseg add: AdamW, lr 6e-5, 160k iterations, batch 16 as 8 x 2. Heads are mmseg's for Swin.
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
