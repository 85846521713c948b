#!/usr/bin/env bash
# The shipped model, one trunk that draws four ways, in stages. It starts from the trunk of
# train/storyworld_h100.sh, or from INITIAL: the shipped one went through encode and train twice.
#   train/flagship_h100.sh encode     documents of its mix: 2 minutes with 50 processes
#   train/flagship_h100.sh train      four ways to draw at once: 11 minutes on three GPUs
#   train/flagship_h100.sh export     its int8 folder, runs/export/storyworld
#   train/flagship_h100.sh stories    StoryEval, all sets and controls: 5 minutes
#   train/flagship_h100.sh write_on   StoryEval, the model writing on behind the given texts: 4 minutes
#   train/flagship_h100.sh pictures OBJECTIVE   WorldEval by masked, which is the ledger's worldeval,
#       by transfusion or next_token, its worldeval_OBJECTIVE: 2 minutes each
#       (side by side: eval/tabulate_ways.py)
#   train/flagship_h100.sh denoiser   WorldEval by the denoiser at 10 and 50 steps, colour swaps: 3 minutes
#   train/flagship_h100.sh more       captions, edits, whom a name means: 2 minutes
#   train/flagship_h100.sh long       stories three times as long as those of training: 3 minutes
#   train/flagship_h100.sh speed      stories a second: 2 minutes
# Training goes on where it was broken off. RUNS names another folder than runs/, LEDGER another than
# docs/results, GPUS how many train and PROCESSES how many encode; flags after a stage go to its
# script. The probes of it: MODEL=runs/export/storyworld eval/probes_h100.sh.
set -euo pipefail
RUNS=${RUNS:-runs}
LEDGER=${LEDGER:-docs/results}
GPUS=${GPUS:-2}
PROCESSES=${PROCESSES:-15}
S="$RUNS/shards_flagship"
RUN="$RUNS/storyworld_flagship"
INITIAL=${INITIAL:-$RUNS/storyworld/model}
MODEL="$RUNS/export/storyworld"
stage=$1
shift

encode() { python tokenizers/encode_shards.py tokenizers/configs/shards_flagship.yaml "$@"; }

case $stage in
encode)
  for split in validation heldout; do
    encode --split $split --num_documents 512 --num_processes 0 --output "$S/$split"
  done
  encode --output "$S/train" --num_processes "$PROCESSES" "$@"
  ;;
train)
  torchrun --standalone --nproc_per_node "$GPUS" train/pretrain.py \
    train/configs/storyworld_flagship.yaml --run_dir "$RUN" --initial_model "$INITIAL" --data.train "$S/train" \
    --data.validation "$S/validation" --data.heldout "$S/heldout" "$@"
  ;;
export)
  python train/export_model.py "$RUN/model" "$MODEL" "$@"
  rm -r "$MODEL/image_tokenizer" # the shipped one is the same, in int8
  cp -r unimm/assets/models/storyworld/image_tokenizer "$MODEL/"
  ;;
stories)
  python eval/score_stories.py eval/configs/stories_objectives.yaml --model "$MODEL" \
    --sets words picture pair change written --sweep_sets words pair --controls \
    'first pages exchanged' 'names exchanged' 'pictures exchanged' \
    --output "$RUNS/storyeval" --ledger "$LEDGER" "$@"
  ;;
write_on)
  python eval/score_stories.py eval/configs/stories_write_on.yaml --model "$MODEL" \
    --output "$RUNS/storyeval_write_on" --ledger "$LEDGER" "$@"
  ;;
pictures)
  name=worldeval_$1
  [ "$1" = masked ] && name=worldeval # the first objective, by which the model draws unless told
  python eval/score_images.py eval/configs/images_objectives.yaml --model "$MODEL" \
    --objective "$1" --output "$RUNS/worldeval_$1" --ledger "$LEDGER" --name "$name" "${@:2}"
  ;;
denoiser)
  python eval/score_denoiser.py eval/configs/denoiser.yaml --pictures.model "$MODEL" \
    --pictures.objective diffusion --pictures.output "$RUNS/worldeval_diffusion" \
    --pictures.ledger "$LEDGER" "$@"
  ;;
more)
  python eval/score_captions.py eval/configs/captions.yaml --model "$MODEL" --ledger "$LEDGER"
  python eval/score_binding.py --model "$MODEL" --ledger "$LEDGER"
  python eval/score_edits.py --model "$MODEL" --ledger "$LEDGER" "$@"
  ;;
long) python eval/score_long_stories.py --model "$MODEL" --num_stories 64 --ledger "$LEDGER" "$@" ;;
speed) python eval/benchmark_stories.py "$MODEL" --ledger "$LEDGER" "$@" ;;
*) echo "unknown stage $stage" >&2 && exit 2 ;;
esac
