# DINO with FasterViT on COCO, as the authors of FasterViT train and evaluate it; inheriting configs
# name the network. Results equal those of the official DINO code (docs/dino.md). From the authors'
# config: AdamW, lr 1e-4, backbone 1e-5, weight decay 1e-4 on everything, lr x 0.1 for the 12th
# epoch, clip 0.1, drop path 0.1, BatchNorm trained, box noise 0.4, images of 480 to 800 with crops.
# 16 images a step are 8 GPUs with 2 each; they do not state their number of GPUs. Not theirs:
# BatchNorm is synchronised between GPUs.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', './fastervit.py']
custom_imports = dict(
    imports=['fastervit_mm', 'fastervit_mm.engine', 'fastervit_mm.dino'],
    allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        pad_conv_stages=7,  # the authors' detectors do so, their classifiers do not
        init_cfg=dict(type='Pretrained')),
    neck=dict(bias=True),  # mmdet's convolutions before a GN have none
    bbox_head=dict(type='OfficialDINOHead'),
    dn_cfg=dict(box_noise_scale=0.4))

# Exactly the official images: resized by Pillow, shorter side 800, no padding in a batch of one.
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='OfficialDINOResize', short=800, longest=1333),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(constructor='MergedOptimWrapperConstructor')

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
