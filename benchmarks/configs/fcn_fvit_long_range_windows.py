# fcn_fvit_long_range.py without carriers: each window by itself.
_base_ = './fcn_fvit_long_range.py'
model = dict(backbone=dict(arch=dict(hierarchical=False)))
