# How the authors train FasterViT-2 on ImageNet-1K: 32 GPUs, 128 images each, 310 epochs. What
# differs for other variants is in configs/mmpretrain/fastervit-*_in1k_train.py.
#
# The authors' two sources disagree about weight decay and the weight of MESA (docs/imagenet.md has
# both figures). These configs follow the recipe files, which name all settings of each network's
# run; TRAINING.md lists only a few. The paper names LAMB for all variants; the recipe files have
# AdamW for 0 to 3.
# Stated nowhere, and chosen by this project: no weight decay on norms, biases, position MLPs and
# layer scales, as in the other configs; LAMB's settings except rate and decay: timm's defaults,
# which are also mmpretrain's (it also clips the gradient's norm at 1).
_base_ = './imagenet.py'

model = dict(
    # LabelSmoothLoss 'original' is timm's smoothing, of mixed labels too.
    head=dict(loss=dict(
        _delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original',
        num_classes=1000)),
    # One of the two for each batch, equally likely: timm's mixup_prob=1, mixup_switch_prob=0.5.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))

size = 224
bgr_mean, bgr_std = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
crop = dict(
    type='RandomResizedCrop', scale=size, crop_ratio_range=(0.08, 1.0), backend='pillow')
# The recipes' colour jitter 0.4 has no effect: timm skips it with RandAugment.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow',
         color_type='color_ignore_orientation'),
    dict(type='RandomChoice', transforms=[  # timm's interpolation 'random'
        [dict(crop, interpolation='bilinear')], [dict(crop, interpolation='bicubic')]]),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(  # rand-m9-mstd0.5-inc1
        type='RandAugment', policies='timm_increasing', num_policies=2, total_level=10,
        magnitude_level=9, magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    dict(  # per pixel, from a normal distribution, like the data
        type='RandomErasing', erase_prob=0.25, mode='rand', min_area_ratio=0.02,
        max_area_ratio=1 / 3, fill_color=bgr_mean, fill_std=bgr_std),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    dataset=dict(
        type='ImageNet', data_root='data/imagenet', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True))

lr = 5e-3
weight_decay = 0.05
optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay),
    paramwise_cfg={{_base_.fastervit_paramwise_cfg}},
    clip_grad=dict(max_norm=5.0))

# timm's curve, by epochs: linear from 1e-6 over the warm-up; a cosine that counts from epoch 0, and
# so begins a little below lr after the warm-up, down to 5e-6 in epoch 300; then 10 epochs at 5e-6.
# In the warm-up both schedulers act together, up to 1.1 per cent (3.3 for FasterViT-3) below timm's
# values. An `end` is one epoch after the last value.
warmup_epochs = 20
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / lr, by_epoch=True, begin=0, end=warmup_epochs + 1),
    dict(type='CosineAnnealingLR', eta_min=5e-6, by_epoch=True, begin=0, T_max=300, end=301),
]
train_cfg = dict(by_epoch=True, max_epochs=310, val_interval=1)
auto_scale_lr = dict(base_batch_size=4096)
randomness = dict(seed=31)

# Decay 0.9998. As in timm, running statistics are averaged too. The averages are evaluated, and
# checkpoints have them as the network's weights.
ema = dict(type='EMAHook', momentum=0.0002, update_buffers=True)
mesa_weight = 1.0
mesa = dict(type='MESAHook', weight=mesa_weight)
custom_hooks = [*_base_.custom_hooks, ema, mesa]
# Each process trains with its own running statistics of BatchNorm. mmengine's SyncBuffersHook
# averages them over processes after each epoch, as the authors do.
sync_bn = None
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best='auto'))
