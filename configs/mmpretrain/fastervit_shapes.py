# fastervit_imagenette.py for four classes of generated shapes, cut out of the scenes of
# mmdet/cascade_fvit_shapes.py. `make demo-cls`, or `python -m benchmarks.shapes`, generates
# data/shapes/.
_base_ = './fastervit_imagenette.py'

classes = ('circle', 'square', 'star', 'triangle')  # folders by name
num_classes = len(classes)
model = dict(head=dict(num_classes=num_classes, loss=dict(num_classes=num_classes), topk=(1,)))
data_preprocessor = dict(num_classes=num_classes)

data_root = 'data/shapes/crops'
size = (64, 64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(
    data_root=data_root, metainfo=dict(classes=classes), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(
    data_root=data_root, metainfo=dict(classes=classes), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

auto_scale_lr = dict(base_batch_size=32)
