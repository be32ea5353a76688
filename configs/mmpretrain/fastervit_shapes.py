# fastervit_imagenette.py without photographs: which of four shapes is it? Shapes are cut out of the
# scenes of mmdet/cascade_fvit_shapes.py, which are generated in data/shapes/ when first used.
_base_ = './fastervit_imagenette.py'
custom_imports = dict(imports=[
    'fastervit_mm', 'fastervit_mm.engine', 'fastervit_mm.datasets.cls_shapes'])

classes = ('circle', 'square', 'triangle', 'star')
num_classes = len(classes)
model = dict(head=dict(num_classes=num_classes, loss=dict(num_classes=num_classes), topk=(1,)))
data_preprocessor = dict(num_classes=num_classes)

dataset_type = 'ShapesClsDataset'
data_root = 'data/shapes'
size = (64, 64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CropBox'),
    dict(type='Resize', scale=size),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CropBox'),
    dict(type='Resize', scale=size),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(
    _delete_=True, type=dataset_type, data_root=data_root, data_prefix='train',
    ann_file='annotations/instances_train.json', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(
    _delete_=True, type=dataset_type, data_root=data_root, data_prefix='val',
    ann_file='annotations/instances_val.json', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

auto_scale_lr = dict(base_batch_size=32)
