# FSDP: parameters, gradients and optimizer divided among the GPUs (docs/distributed.md#fsdp).
runner_type = 'ShardedRunner'
