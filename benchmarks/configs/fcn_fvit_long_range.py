# The long-range task (docs/hierarchical_attention.md): each disc's class is the colour of a distant
# bar. A small FasterViT from scratch; a single 1 x 1 convolution reads the map of stage 3, the one
# with carriers. benchmarks/long_range/ generates the data in data/long_range/.
_base_ = ['mmseg::_base_/default_runtime.py', 'fastervit_mm::_base_/fastervit.py']
custom_imports = dict(imports=[
    'fastervit_mm', 'fastervit_mm.engine', 'fastervit_mm.engine.seg_visualizer',
    'benchmarks.long_range.metric'])

num_classes = 4
size = (128, 128)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', size=size, mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    backbone=dict(
        type='FasterViT',
        arch=dict(
            embed_dim=16, stem_channels=8, depths=(1, 1, 3, 1), num_heads=(1, 1, 4, 8),
            drop_path_rate=0.),
        out_indices=(2, ),
        window_size=2,  # 4 x 4 windows of 32 x 32 pixels
        ct_size=1,
        # At std 0.02, the default for wide networks, 64 channels give too weak a signal at first.
        init_cfg=dict(type='Xavier', layer='Linear')),
    decode_head=dict(
        type='FCNHead', in_channels=64, in_index=0, channels=64, num_convs=0, concat_input=False,
        dropout_ratio=0., norm_cfg=None, num_classes=num_classes, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

dataset_type = 'BaseSegDataset'
data_root = 'data/long_range'
metainfo = dict(
    classes=('red', 'blue', 'green', 'yellow'),
    palette=[(230, 25, 25), (25, 25, 230), (25, 200, 25), (230, 230, 25)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25],
         direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,  # loading an image takes about a millisecond
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=data_root, img_suffix='.png', metainfo=metainfo, pipeline=train_pipeline,
        data_prefix=dict(img_path='train', seg_map_path='labels/train')))
val_dataloader = dict(
    batch_size=24,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, data_root=data_root, img_suffix='.png', metainfo=metainfo, pipeline=test_pipeline,
        data_prefix=dict(img_path='val', seg_map_path='labels/val')))
test_dataloader = val_dataloader
val_evaluator = dict(type='DistanceAccuracy')
test_evaluator = val_evaluator

lr = 1e-3
max_iters = 200
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    optimizer=dict(type='AdamW', lr=lr, weight_decay=0.05, fused=True),
    paramwise_cfg={{_base_.fastervit_paramwise_cfg}},
    clip_grad=dict(max_norm=5.))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.04, by_epoch=False, begin=0, end=25),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=25, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=16)
randomness = dict(seed=0)
custom_hooks = [dict(type='CurvesHook'), dict(type='EstimateHook')]
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'))

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(type='EnlargedSegVisualizer', alpha=0.6, vis_backends=vis_backends)
