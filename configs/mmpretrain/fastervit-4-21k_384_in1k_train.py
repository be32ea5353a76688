# As fastervit-4-21k_224_in1k_train.py, at 384 x 384; evaluated on images resized to 384 x 384.
_base_ = './fastervit-4-21k_224_in1k_train.py'

size = 384
# The weights to start from were trained at 224, with other windows.
model = dict(backbone=dict(arch='4-21k-384', other_windows=True))
crop = dict(_base_.crop, scale=size)
train_pipeline = [
    _base_.train_pipeline[0],
    dict(type='RandomChoice', transforms=[
        [dict(crop, interpolation='bilinear')], [dict(crop, interpolation='bicubic')]]),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=(384, 384), keep_ratio=False, backend='pillow',
         interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
