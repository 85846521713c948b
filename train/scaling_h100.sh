#!/usr/bin/env bash
# ZeRO stages on 1, 2 and, where there are, 4 GPUs of one host: losses, speed, memory.
#   train/scaling_h100.sh            writes docs/results/scaling.json: 6 minutes on 2 GPUs, 10 on 4
# LEDGER names another folder. Arguments go to every call of train/benchmark_scaling.py.
set -euo pipefail
GPUS=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
measure() { # number of GPUs, and what; speed and memory of each stage in processes of its own
  torchrun --standalone --nproc_per_node "$1" train/benchmark_scaling.py train/configs/scaling.yaml \
    --ledger "${LEDGER:-docs/results}" "${@:2}"
}
measure 1 --weak_stage 1 --curve_stages 1 3 "$@"
measure 1 --weak_stage 3 "$@"
for num in 2 4; do
  if [ "$num" -gt "$GPUS" ]; then break; fi
  measure "$num" --weak_stage 3 --curve_stages 1 2 3 "$@"
  measure "$num" --weak_stage 2 "$@"
  measure "$num" --weak_stage 1 "$@"
done
