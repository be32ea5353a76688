# Settings that all FasterViT configs share.

# No weight decay on norms, biases, position terms and layer scales: it would pull them towards zero.
fastervit_paramwise_cfg = dict(
    norm_decay_mult=0.,
    bias_decay_mult=0.,
    custom_keys=dict(position=dict(decay_mult=0.), carrier_bias=dict(decay_mult=0.),
                     layer_scale=dict(decay_mult=0.)))

# BatchNorm becomes SyncBN in distributed training and stays BatchNorm in a single process.
sync_bn = 'torch'

# tools/train.py and tools/test.py add the last two to any config; other programs need them here.
custom_hooks = [dict(type='CurvesHook'), dict(type='BoxesHook')]

# Scalars are written as JSON and, where TensorBoard is installed, as its event files; the log shows
# memory on CPUs too. mmdet's and mmseg's bases set vis_backends and log_processor, and two bases may
# not set the same name, so each config assigns these.
fastervit_vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='OptionalTensorboardVisBackend'),
]
fastervit_log_processor = dict(type='MemoryLogProcessor')
