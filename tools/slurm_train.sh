#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment.
# Slurm gives notice NOTICE (120) seconds before the time is over. Training then saves and ends with
# status 75, and this script starts it again, with --resume; in a batch job, which needs
# #SBATCH --signal=USR1@120 and --requeue, by requeueing the job.
set -eu
tools="$(cd "$(dirname "$0")" && pwd)"
usage='usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]'
partition=${1:?$usage} job=${2:?$usage} config=${3:?$usage} work_dir=${4:?$usage}
shift 4
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then set -- "$@" --resume; fi
while :; do
    status=0
    # shellcheck disable=SC2086  # SRUN_ARGS is several arguments
    srun -p "$partition" --job-name="$job" --gres="gpu:${GPUS_PER_NODE:-8}" \
        --ntasks="${GPUS:-8}" --ntasks-per-node="${GPUS_PER_NODE:-8}" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
        --signal="USR1@${NOTICE:-120}" ${SRUN_ARGS:-} \
        python -u "$tools/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@" ||
        status=$?
    [ "$status" -eq 75 ] || exit "$status"
    if [ -n "${SLURM_JOB_ID:-}" ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi
    case " $* " in *" --resume "*) ;; *) set -- "$@" --resume ;; esac
done
