#!/bin/bash
# Train on several machines under Slurm: sbatch --nodes 8 train/slurm.sh train/configs/qwen3_8b.yaml
#SBATCH --ntasks-per-node 8
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 12
#SBATCH --time 24:00:00
#SBATCH --signal SIGTERM@300
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --output runs/slurm_%j.log
set -euo pipefail
# One task a GPU, without another launcher between: five minutes before the end every rank gets
# SIGTERM and has these minutes to save. Submitted again, the job goes on from there.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS=4
srun --kill-on-bad-exit 1 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
  exec python train/pretrain.py "$@"' bash "$@"
