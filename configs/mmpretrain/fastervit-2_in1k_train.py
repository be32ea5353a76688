# FasterViT-2 on ImageNet-1K, from scratch, by the authors' recipe file.
# TRAINING.md: weight decay 0.005 and MESA 0.5.
_base_ = '../_base_/imagenet_train.py'
