# What every FasterViT config shares, whatever the task.

# Decay pulls weights towards zero; in these it would pull a norm, a position or a scale there.
fastervit_paramwise_cfg = dict(
    norm_decay_mult=0.,
    bias_decay_mult=0.,
    custom_keys=dict(position=dict(decay_mult=0.), layer_scale=dict(decay_mult=0.)))

# SyncBN when distributed, plain BN on one process.
sync_bn = 'torch'

custom_hooks = [dict(type='CurvesHook')]

# Scalars as JSON, and as TensorBoard's event files where TensorBoard is installed; memory in the
# log on a CPU too. mmdet's and mmseg's bases have these names, so the configs above put them in.
fastervit_vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='OptionalTensorboardVisBackend'),
]
fastervit_log_processor = dict(type='MemoryLogProcessor')
