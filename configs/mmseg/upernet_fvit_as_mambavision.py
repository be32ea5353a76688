# Not the paper's recipe: FasterViT-2 trained as MambaVision-B, of the same first author and of
# FasterViT-2's accuracy on ImageNet. From its published log (49.1 mIoU): lr 5e-5, drop path 0.4,
# and windows that hold a whole crop, here without padding. Not trained here. Weights are those
# trained with windows of 7.
_base_ = './upernet_fvit.py'

model = dict(backbone=dict(drop_path_rate=0.4, window_size=(32, 16), other_windows=True))
optim_wrapper = dict(optimizer=dict(lr=5e-5))
