# Cascade Mask R-CNN with FasterViT-2 on COCO.
#
# Stated in the paper: AdamW, lr 1e-4, weight decay 0.05, 3x schedule (36 epochs), batch 16 (8 x 2).
# Not stated there, and chosen by this project:
# - heads (4conv1fc, GIoU on decoded boxes, SyncBN), augmentation (multi-scale with crops), warm-up
#   and mixed precision: those of mmdet's own config for ConvNeXt, a peer in the paper's table, so
#   that results can be compared;
# - drop path: each variant's ImageNet rate (0.2 for FasterViT-2), with which its weights were
#   trained. The authors' detection code (DINO) has 0.1 for every variant; MambaVision's Cascade
#   Mask R-CNN, by the same first author, 0.2, 0.3 and 0.5 (tiny, small, base). To try another:
#   --cfg-options model.backbone.drop_path_rate=0.1
_base_ = [
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py',
    '../_base_/fastervit.py',
]
custom_imports = dict(imports=['fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

checkpoint_file = 'fastervit://2-224-1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        arch='2',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    neck=dict(in_channels=[96, 192, 384, 768]))

optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg={{_base_.fastervit_paramwise_cfg}})

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
