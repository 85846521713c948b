#!/usr/bin/env bash
# Three ways to draw on one trunk at equal work, on one GPU, in stages of at most nine minutes:
#   train/objectives_h100.sh tokenizers  single-scale, multi-scale and shared, side by side: 6 minutes
#   train/objectives_h100.sh score       their reconstructions, and WorldEval's ceilings: 4 minutes
#   train/objectives_h100.sh encode      shards in every schedule of TOKENIZER: 4 minutes
#   train/objectives_h100.sh trunks      next_token, next_scale and masked, side by side: 9 minutes
#   train/objectives_h100.sh worldeval   sampling chosen, then WorldEval of each: 6 minutes
#   train/objectives_h100.sh speed       pictures a second, and what the training took: 3 minutes
# Everything is written under OUT (runs/objectives); a stage goes on where it was broken off.
set -euo pipefail
OUT=${OUT:-runs/objectives}
SCALES=${SCALES:-1-2-4-8-16}   # the pyramid; give OUT another folder for another one
TOKENIZER=${TOKENIZER:-shared} # single, multi or shared: which one the trunks draw with
MINUTES=${MINUTES:-5}          # of each tokenizer; three at once share the card
FLOPS=${FLOPS:-1.8e16}         # counted operations of each trunk; alone on the card twice as many fit
TRUNK_MINUTES=${TRUNK_MINUTES:-8}
T="$OUT/image_$TOKENIZER/image_tokenizer"
S="$OUT/shards_$TOKENIZER"
OBJECTIVES=${OBJECTIVES:-"next_token next_scale masked"}
mkdir -p "$OUT/ledger"

tokenizer() { # name, schedules
  python tokenizers/train_image_tokenizer.py tokenizers/configs/image_storyworld_scales.yaml \
    --run_dir "$OUT/image_$1" --tokenizer.schedules "${@:2}" --max_minutes "$MINUTES" \
    --is_compiled False --source.num_workers 5 >"$OUT/image_$1.log" 2>&1
}
trunk() { # objective
  local config=storyworld_$1
  local more=()
  case $1 in
  next_token) config=storyworld ;;
  next_scale) more=(--model.objectives.0.scales ${SCALES//-/ }) ;;
  esac
  python train/pretrain.py "train/configs/$config.yaml" --run_dir "$OUT/$1" --image_tokenizer "$T" \
    --text_tokenizer unimm/assets/models/storyworld --data.train "$S/train" \
    --data.validation "$S/validation" --data.heldout "$S/heldout" --data.num_workers 5 \
    --logging.evaluate_every 0 --max_flops "$FLOPS" --max_minutes "$TRUNK_MINUTES" "${more[@]}" \
    >"$OUT/$1.log" 2>&1
}
wait_all() { for job in $(jobs -p); do wait "$job"; done; }

case $1 in
tokenizers)
  tokenizer single single &
  tokenizer multi "$SCALES" &
  tokenizer shared single "$SCALES" &
  wait_all
  ;;
score)
  for name in single multi shared; do
    python tokenizers/score_reconstruction.py --tokenizer "$OUT/image_$name/image_tokenizer" \
      --num_pictures 1024 --device cuda --batch_size 128 --name "tokenizer_$name" \
      --ledger "$OUT/ledger" --grid "$OUT/pairs_$name.png"
  done
  python eval/score_ceiling.py eval/configs/images.yaml --num_prompts 200 --ledger "$OUT/ledger" \
    --tokenizer "$OUT"/image_{single,multi,shared}/image_tokenizer
  ;;
encode)
  for split in validation heldout; do
    python tokenizers/encode_shards.py tokenizers/configs/shards_storyworld.yaml --image_tokenizer "$T" \
      --split $split --num_documents 512 --num_processes 0 --output "$S/$split"
  done
  python tokenizers/encode_shards.py tokenizers/configs/shards_storyworld.yaml --image_tokenizer "$T" \
    --output "$S/train"
  ;;
trunks)
  for objective in $OBJECTIVES; do trunk "$objective" & done
  wait_all
  ;;
worldeval)
  for objective in $OBJECTIVES; do
    python eval/score_images.py eval/configs/images_objectives.yaml --model "$OUT/$objective/model" \
      --output "$OUT/worldeval_$objective" >"$OUT/worldeval_$objective.log" 2>&1 &
  done
  wait_all
  tail -n 25 "$OUT"/worldeval_*.log
  ;;
speed)
  python eval/benchmark_objectives.py --ledger "$OUT/ledger" \
    --runs $(for objective in $OBJECTIVES; do echo "$OUT/$objective"; done)
  ;;
*) echo "unknown stage $1" >&2 && exit 2 ;;
esac
