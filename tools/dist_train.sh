#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -eu
tools="$(cd "$(dirname "$0")" && pwd)"
config=${1:?usage: dist_train.sh CONFIG GPUS [arguments of tools/train.py]}
gpus=${2:?usage: dist_train.sh CONFIG GPUS [arguments of tools/train.py]}
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$tools/train.py" "$config" --launcher pytorch "${@:3}"
