# UperNet with FasterViT-2 on ADE20K at crop 512. ../_base_/upernet_ade20k.py has the recipe, and
# says which parts the paper states. Sliding-window inference: --cfg-options model.test_cfg.mode=slide
_base_ = ['../_base_/upernet_ade20k.py', 'mmseg::_base_/datasets/ade20k.py']

model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride=(341, 341)))
train_dataloader = dict(batch_size=2)
