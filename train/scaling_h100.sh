#!/usr/bin/env bash
# ZeRO stages on 1, 2 and, where there are, 4 GPUs of one host: losses, speed, memory.
#   train/scaling_h100.sh            writes docs/results/scaling.json: 5 minutes on 2 GPUs, 8 on 4
# LEDGER names another folder. Arguments go to every call of train/benchmark_scaling.py.
set -euo pipefail
GPUS=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
measure() { # number of GPUs, stage: each in processes of its own, so that peaks of memory are exact
  torchrun --standalone --nproc_per_node "$1" train/benchmark_scaling.py train/configs/scaling.yaml \
    --ledger "${LEDGER:-docs/results}" --stage "${@:2}"
}
for stage in 1 3; do measure 1 "$stage" "$@"; done
for num in 2 4; do
  for stage in 3 2 1; do
    if [ "$num" -le "$GPUS" ]; then measure "$num" "$stage" "$@"; fi
  done
done
