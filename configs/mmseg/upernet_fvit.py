# UperNet with FasterViT-2 on ADE20K: AdamW, lr 6e-5, 160k iterations, batch 16 as 8 x 2, crop 512.
# Sliding-window inference: --cfg-options model.test_cfg.mode=slide
_base_ = ['../_base_/upernet_ade20k.py', 'mmseg::_base_/datasets/ade20k.py']

model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    test_cfg=dict(crop_size={{_base_.crop_size}}, stride=(341, 341)))
train_dataloader = dict(batch_size=2)
