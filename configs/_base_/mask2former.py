# Parameters of Mask2Former, for mmdet and mmseg: as in their own configs, the backbone learns at a
# tenth of the rate, and queries and level embeddings have no weight decay.
_base_ = './fastervit.py'

no_decay = dict(decay_mult=0.)
mask2former_paramwise_cfg = dict(
    _base_.fastervit_paramwise_cfg,
    backbone_lr_mult=0.1,
    custom_keys=dict(
        _base_.fastervit_paramwise_cfg.custom_keys,
        query_embed=no_decay, query_feat=no_decay, level_embed=no_decay))
