# Mask2Former with FasterViT-0, panoptic segmentation of COCO, 50 epochs: mmdet's config for
# ResNet-50. Its data and its metric need panopticapi, which is in no registry:
# pip install git+https://github.com/cocodataset/panopticapi.git
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    '../_base_/mask2former.py',
]
custom_imports = dict(imports=['fastervit_mm', 'fastervit_mm.engine'], allow_failed_imports=False)

checkpoint_file = 'fastervit://0-224-1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='FasterViT',
        arch='0',
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint_file)),
    panoptic_head=dict(in_channels=[64, 128, 256, 512]))

optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',  # merges groups of equal settings
    paramwise_cfg=dict(_delete_=True, **_base_.mask2former_paramwise_cfg))

log_processor = {{_base_.fastervit_log_processor}}
vis_backends = {{_base_.fastervit_vis_backends}}
visualizer = dict(vis_backends=vis_backends)
