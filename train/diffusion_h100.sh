#!/usr/bin/env bash
# Models that draw by diffusion alone, on one GPU, in stages of at most nine minutes, in this order:
#   train/diffusion_h100.sh encode      shards with latents of the shipped tokenizer: 2 minutes
#   train/diffusion_h100.sh full        the trunk of storyworld.yaml with a denoiser head: 9 minutes
#   train/diffusion_h100.sh heads       sizes and kinds of conditioning on its frozen trunk: 5 minutes
#   train/diffusion_h100.sh score       WorldEval at 10 and 50 steps, cost, colour swaps: 4 minutes
#   train/diffusion_h100.sh small       a small model, storyworld-diffusion in docs/probes.md: 9 minutes
#   train/diffusion_h100.sh export      its int8 folder and its WorldEval: 3 minutes
#   train/diffusion_h100.sh transfusion denoising inside the trunk, and its WorldEval: 12 minutes
# The shipped model is that of train/flagship_h100.sh. Every stage goes on where it was broken off. A
# second argument names another folder than runs/.
set -euo pipefail
R=${2:-runs}
S="$R/shards_latents"
MINUTES=${MINUTES:-8}
DATA="--data.train $S/train --data.validation $S/validation --data.heldout $S/heldout"

pretrain() { python train/pretrain.py "train/configs/$1.yaml" --run_dir "$R/$1" $DATA --max_minutes "$MINUTES"; }
score() { # model, name of the ledger
  python eval/score_denoiser.py eval/configs/denoiser.yaml --name "$2" --pictures.model "$1" \
    --pictures.output "$R/worldeval_$2" --pictures.ledger docs/results
}

case $1 in
encode)
  for split in validation heldout; do
    python tokenizers/encode_shards.py tokenizers/configs/shards_latents.yaml \
      --split $split --num_documents 512 --num_processes 0 --output "$S/$split"
  done
  python tokenizers/encode_shards.py tokenizers/configs/shards_latents.yaml --output "$S/train"
  ;;
full) pretrain storyworld_diffusion ;;
heads)
  python train/compare_heads.py train/configs/heads.yaml --ledger docs/results --output "$R/heads" \
    --model "$R/storyworld_diffusion/model" --train "$S/train" --validation "$S/validation"
  ;;
score) score "$R/storyworld_diffusion/model" denoiser_alone ;;
small) pretrain storyworld_diffusion_small ;;
export)
  python train/export_model.py "$R/storyworld_diffusion_small/model" "$R/export/storyworld-diffusion"
  score "$R/export/storyworld-diffusion" denoiser_small
  ;;
transfusion)
  pretrain storyworld_transfusion
  score "$R/storyworld_transfusion/model" transfusion
  ;;
*) echo "unknown stage $1" >&2 && exit 2 ;;
esac
