# A FasterViT of 6.6 million parameters on the photographs of Imagenette, first at 64 pixels, then at
# 128 (benchmarks/photographs). Windows of 4 cells at 128 pixels are as many as windows of 7 at 224.
_base_ = 'fastervit_mm::mmpretrain/fastervit_imagenette.py'

model = dict(
    backbone=dict(
        arch=dict(
            embed_dim=32, stem_channels=32, depths=(1, 2, 6, 3), num_heads=(1, 2, 4, 8)),
        window_size=(4, 4),
        drop_path_rate=0.1),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]))

small, size = 64, 128
crop = dict(type='RandomResizedCrop', crop_ratio_range=(0.25, 1.0))
flip, pack = dict(type='RandomFlip', prob=0.5, direction='horizontal'), dict(type='PackInputs')
load = dict(type='LoadImageFromFile')
test_pipeline = [
    load,
    dict(type='ResizeEdge', scale=size, edge='short'),
    dict(type='CenterCrop', crop_size=size),
    pack,
]
train_dataloader = dict(
    batch_size=128, dataset=dict(pipeline=[load, dict(crop, scale=small), flip, pack]))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

lr = 2e-3
small_epochs, warmup, max_epochs = 15, 5, 50
optim_wrapper = dict(optimizer=dict(lr=lr))
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=warmup,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=warmup, end=max_epochs, eta_min=1e-5,
         convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=128)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', momentum=0.002, update_buffers=True),
    dict(type='SwitchRecipeHook', schedule=[dict(
        action_epoch=small_epochs + 1,
        train_pipeline=[load, dict(crop, scale=size), flip, pack])]),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
