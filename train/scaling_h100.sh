#!/usr/bin/env bash
# ZeRO stages on 1, 2 and, where there are, 4 GPUs of one host: losses, speed, memory.
#   train/scaling_h100.sh            writes docs/results/scaling.json: 5 minutes on 2 GPUs, 8 on 4
# LEDGER names another folder. Arguments go to every call of train/benchmark_scaling.py.
set -euo pipefail
GPUS=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
measure() { # number of GPUs, stages
  torchrun --standalone --nproc_per_node "$1" train/benchmark_scaling.py train/configs/scaling.yaml \
    --ledger "${LEDGER:-docs/results}" --stages "${@:2}"
}
measure 1 1 3 "$@"
for num in 2 4; do
  if [ "$num" -le "$GPUS" ]; then measure "$num" 1 2 3 "$@"; fi
done
