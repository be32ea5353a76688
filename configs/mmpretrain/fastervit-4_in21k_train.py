# FasterViT-4 on ImageNet-21K, from scratch, to be fine-tuned on ImageNet-1K.
#
# Stated in the paper: 90 epochs, lr 4e-3. Not stated, and chosen by this project: all else as
# FasterViT-4's recipe for ImageNet-1K, without MESA and cool-down, and with 5 epochs of warm-up.
# ImageNet-21K has no validation images; accuracy is measured after fine-tuning.
# data/imagenet21k is as in mmpretrain: train/ has a folder for each of the 21841 classes.
_base_ = './fastervit-4_in1k_train.py'

num_classes = 21841
model = dict(
    backbone=dict(arch='4-21k-224'),
    head=dict(num_classes=num_classes, loss=dict(num_classes=num_classes)))
data_preprocessor = dict(num_classes=num_classes)
train_dataloader = dict(dataset=dict(type='ImageNet21k', data_root='data/imagenet21k'))
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None

lr = 4e-3
optim_wrapper = dict(
    dtype='bfloat16',  # float16 may overflow in a network of this size
    optimizer=dict(lr=lr))
max_epochs = 90
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / lr, by_epoch=True, begin=0, end=5 + 1),
    dict(type='CosineAnnealingLR', eta_min=4e-6, by_epoch=True, begin=0, end=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs)
custom_hooks = _base_.custom_hooks[:-1]  # without MESA
default_hooks = dict(checkpoint=dict(save_best=None))
