# As fastervit-4-21k_224_in1k_train.py, at 512 x 512; evaluated on images resized to 512 x 512.
_base_ = './fastervit-4-21k_224_in1k_train.py'

size = 512
# The weights to start from were trained at 224, with other windows.
model = dict(backbone=dict(arch='4-21k-512', other_windows=True))
crop = dict(_base_.crop, scale=size)
train_pipeline = [
    _base_.train_pipeline[0],
    dict(type='RandomChoice', transforms=[
        [dict(crop, interpolation='bilinear')], [dict(crop, interpolation='bicubic')]]),
    *_base_.train_pipeline[2:],
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=(512, 512), keep_ratio=False, backend='pillow',
         interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=size),
    dict(type='PackInputs'),
]
val_dataloader = dict(batch_size=16, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
