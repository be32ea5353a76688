# fcn_fvit_long_range.py without carriers: windows alone.
_base_ = './fcn_fvit_long_range.py'
model = dict(backbone=dict(arch=dict(hierarchical=False)))
