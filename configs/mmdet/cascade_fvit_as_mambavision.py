# Not the paper's recipe: FasterViT-2 trained as MambaVision-B, of the same first author and of
# FasterViT-2's accuracy on ImageNet. From its published log (52.8 box AP): lr 2e-4, drop path 0.5,
# and windows that cover most of a map. Not trained here.
# Its windows, 112 and 56 cells, hold whole maps. FasterViT learns a bias for each pair of cells, in
# windows of 112 one of 40 GB, so these are 28. Weights are those trained with windows of 7.
_base_ = './cascade_fvit.py'

model = dict(backbone=dict(drop_path_rate=0.5, window_size=(28, 28), other_windows=True))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
