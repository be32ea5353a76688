# ImageNet-A, -R and -V2 for classifiers at 224 x 224: tools/test.py --split imagenet_a, imagenet_r or
# imagenet_v2. Crop fraction 0.875, as published, for every variant.
_base_ = './imagenet.py'
custom_imports = dict(
    imports=['fastervit_mm', 'fastervit_mm.engine', 'fastervit_mm.datasets.imagenet'],
    allow_failed_imports=False)

robustness_pipeline = [
    {{_base_.load_image}},
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
imagenet_a_dataloader = dict(
    _base_.val_dataloader,
    dataset=dict(
        type='ImageNetFolders', data_root='data/imagenet-a', pipeline=robustness_pipeline))
imagenet_a_evaluator = dict(type='SubsetAccuracy', topk=(1, 5))
imagenet_a_cfg = dict()

imagenet_r_dataloader = dict(
    _base_.val_dataloader,
    dataset=dict(
        type='ImageNetFolders', data_root='data/imagenet-r', pipeline=robustness_pipeline))
imagenet_r_evaluator = dict(type='SubsetAccuracy', topk=(1, 5))
imagenet_r_cfg = dict()

imagenet_v2_dataloader = dict(
    _base_.val_dataloader,
    dataset=dict(
        type='ImageNetFolders',
        data_root='data/imagenetv2-matched-frequency-format-val',
        pipeline=robustness_pipeline))
imagenet_v2_evaluator = dict(type='Accuracy', topk=(1, 5))
imagenet_v2_cfg = dict()
