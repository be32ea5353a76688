# A small UperNet, 5 million parameters, for your own data: trains from scratch within an hour on two
# CPU cores. tools/new_config.py writes a config that inherits this one, with sizes, class weights
# and schedule to suit the data; docs/own_data.md shows how to do it by hand.
_base_ = './upernet_fvit.py'
custom_imports = dict(imports=[
    'fastervit_mm', 'fastervit_mm.engine', 'fastervit_mm.engine.seg_visualizer'])

checkpoint_file = None
classes = ('background', 'object')
num_classes = len(classes)
crop_size = (320, 320)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dim=32, stem_channels=32, depths=(2, 2, 4, 2),
            num_heads=(1, 2, 4, 8), drop_path_rate=0.),
        init_cfg=None),
    decode_head=dict(
        in_channels=[32, 64, 128, 256], channels=64, num_classes=num_classes, dropout_ratio=0.),
    auxiliary_head=dict(
        in_channels=128, channels=48, num_classes=num_classes, dropout_ratio=0.),
    test_cfg=dict(crop_size=crop_size, stride=(213, 213)))

# Files as in docs/own_data.md. Label 255 is ignored, in training and in evaluation.
dataset_type = 'BaseSegDataset'
data_root = 'data/mine/'
scale = (640, 480)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations'),  # after Resize: ground truth keeps its own size
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=dict(classes=classes),
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=dict(classes=classes),
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 2400
train_cfg = dict(max_iters=max_iters, val_interval=300)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(lr=1e-3, fused=True), paramwise_cfg=None,
    clip_grad=dict(max_norm=10.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=50, end=max_iters),
]
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
custom_hooks = [dict(type='CurvesHook'), dict(type='EstimateHook')]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=300, max_keep_ckpts=2, save_best='mIoU'))
visualizer = dict(type='EnlargedSegVisualizer', alpha=0.6)
