#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]
# One process for each GPU or, where there is none, any number on the CPU.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -eu
tools="$(cd "$(dirname "$0")" && pwd)"
config=${1:?usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]}
checkpoint=${2:?usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]}
processes=${3:?usage: dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]}
# Each process its share of the processors; torchrun's own choice is one thread.
share=$(($(nproc) / processes))
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((share > 0 ? share : 1))}"
export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
