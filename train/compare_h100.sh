#!/usr/bin/env bash
# Five ways to draw at equal counted work, and one model that holds them all: one machine, N GPUs.
#   train/compare_h100.sh tokenizers  single, multi and shared on the first three GPUs: 6 minutes
#   train/compare_h100.sh score       their reconstructions, and WorldEval's ceilings: 2 minutes
#   train/compare_h100.sh encode      shards of TOKENIZER: every schedule and latents: 2 minutes
#   train/compare_h100.sh trunks      RUNS, each on its GPU, until FLOPS or CALL_MINUTES: 9 minutes
#   train/compare_h100.sh eval        WorldEval and StoryEval of every finished run: 8 minutes
#   train/compare_h100.sh speed       what drawing costs, one run a GPU at a time: 2 minutes
#   train/compare_h100.sh report      ledger and HTML page of what is there: 1 minute
#   train/compare_h100.sh pack WHAT   what is taken home: "results" or names of runs (int8), as
#                                     pieces of 15 MiB in OUT
# At home, for each pack call: cat NAME.tgz.* | tar xz -C ROOT.
# Stages may be joined with "+": encode+trunks. Everything lies under ROOT, with a log for each
# process in ROOT/logs; a stage goes on where it was broken off. SIZE=nano tries all on a CPU.
# RUNS are GPU:RECIPE of train/configs/storyworld_RECIPE.yaml; RECIPE-s1 is another seed of it, and
# RECIPE@small and RECIPE@large (@large-s1) are other sizes of trunk, of which only WorldEval is
# taken. On each GPU RUNS_PER_GPU are trained at once, the first of the list first. With several
# GPUs (0,1:joint) they are ranks of one run, beside the others.
# The calls that fill half an hour of one machine are in docs/objectives.md, "Half an hour".
set -uo pipefail
SIZE=${SIZE:-full}
ROOT=${ROOT:-runs/compare}
GPUS=${GPUS:-"0 1 2 3"}
RUNS=${RUNS:-"0,1:joint 2:next_token 2:next_scale 2:masked 3:diffusion 3:transfusion"}
TOKENIZER=${TOKENIZER:-shared}  # which one the trunks draw with
SCALES=${SCALES:-1-2-4-8-16}    # the pyramid
MINUTES=${MINUTES:-5}           # of each tokenizer
FLOPS=${FLOPS:-1.2e16}          # counted operations of a run with one objective, of any size
CALL_MINUTES=${CALL_MINUTES:-8} # after which trunks save and stop, to go on in the next call
RUNS_PER_GPU=${RUNS_PER_GPU:-3} # trunks that share a GPU
ENCODE_GPUS=${ENCODE_GPUS:-0}   # of the training documents; several, 0,1,2,3, share the folder
PIECES=${PIECES:-4}             # of 15 MiB that one call may bring home
PER_GPU=${PER_GPU:-4}           # scores that share a GPU; most of their time is the host's
DOCUMENTS=${DOCUMENTS:-160000}
DETECTOR=${DETECTOR:-unimm/assets/models/detector}
OUT=${OUT:-$ROOT/packed}
SHORTEST=60 # seconds; a run is not begun or gone on with for less
CORES=$(env -u OMP_NUM_THREADS nproc) # which nproc would believe
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
T="$ROOT/image_$TOKENIZER/image_tokenizer"
S="$ROOT/shards_$TOKENIZER"

# Other trunks, 64 wide a head as the recipe's: width, depth, heads, inner width, and what the
# learning rate is multiplied with, since it falls with the width (Yang et al. 2022, muP).
SMALL="256 5 4 576 1.75" LARGE="640 12 10 1472 0.7" STANDARD=""
tokenizer_config=image_storyworld_scales
tokenizer_more=(--source.num_workers 14) encode_more=() trunk_more=() score_more=()
# Nearest neighbours are not compared here; looking for more of them takes most of the time.
picture_more=(--num_training_documents 1000) story_more=(--num_training_documents 1000)
speed_more=() ceiling_more=() report_more=() HELD_OUT=512
if [ "$SIZE" = nano ]; then
  GPUS=0 SCALES=1-2-4-8 MINUTES=0.1 DOCUMENTS=48 HELD_OUT=8 FLOPS=3e10 PER_GPU=1
  SMALL="32 1 1 64 2" STANDARD="64 2 2 128 1" LARGE="96 3 3 192 0.7"
  tokenizer_config=image_nano_scales
  tokenizer_more=(--source.pool_size 64)
  encode_more=(--image_size 64 --documents_per_shard 16 --batch_size 32)
  trunk_more=(--data.rows_per_step 2 --engine.compile False --engine.precision float32
    --logging.log_every 1 --logging.save_every 2)
  score_more=(--num_pictures 8 --batch_size 8 --device cpu)
  picture_more=(--num_prompts 2 --sweep_prompts 1 --num_training_documents 20 --tasks single_object
    two_object --batch_size 4)
  story_more=(--num_stories 2 --sweep_stories 1 --num_training_documents 20 --splits validation)
  speed_more=(--batch-sizes 1 2 --repeats 1)
  ceiling_more=(--tasks single_object --num_prompts 2)
  report_more=(--trunk 64x2 --trunks 32x1 64x2 96x3)
fi
# Of a run with five objectives: as much for each of them.
JOINT_FLOPS=${JOINT_FLOPS:-$(awk "BEGIN { print 5 * $FLOPS }")}

# Run jobs ("function arguments"), each with a log: as many at once as there are places, a GPU each.
spread() { # places ("0 0 1 1": two on each of two GPUs; "any": jobs name theirs), jobs ...
  local begun pids=() bad=0 place
  begun=$(mktemp -d)
  for place in $1; do
    (
      [ "$place" = any ] || export CUDA_VISIBLE_DEVICES=$place
      failed=0
      for ((i = 2; i <= $#; i++)); do
        mkdir "$begun/$i" 2>/dev/null || continue # in another place
        logged ${!i} || failed=1
      done
      exit $failed
    ) &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || bad=1; done
  rm -r "$begun"
  return $bad
}
times() { for ((i = 0; i < $1; i++)); do echo "${@:2}"; done; }
logged() { # function, arguments ...
  local log="$ROOT/logs/$(echo "$*" | tr ' /' '__').log" began=$SECONDS code=0
  "$@" >>"$log" 2>&1 || code=$?
  case $code in
  0) echo "done in $((SECONDS - began)) s: $*" ;;
  124) echo "to be continued after $((SECONDS - began)) s: $*" && return 1 ;;
  *) echo "FAILED ($code) after $((SECONDS - began)) s: $* ($log)" && tail -n 8 "$log" && return 1 ;;
  esac
}

tokenizer() { # name, schedules
  [ -f "$ROOT/image_$1/image_tokenizer/config.json" ] ||
    python tokenizers/train_image_tokenizer.py "tokenizers/configs/$tokenizer_config.yaml" \
      --run_dir "$ROOT/image_$1" --tokenizer.schedules "${@:2}" --max_minutes "$MINUTES" \
      "${tokenizer_more[@]}"
}
reconstruction() { # name
  python tokenizers/score_reconstruction.py --tokenizer "$ROOT/image_$1/image_tokenizer" \
    --num_pictures 1024 --device cuda --batch_size 128 --name "tokenizer_$1" \
    --ledger "$ROOT/ledger" --grid "$ROOT/pairs_$1.png" "${score_more[@]}"
}
ceilings() {
  python eval/score_ceiling.py eval/configs/images.yaml --num_prompts 200 --ledger "$ROOT/ledger" \
    --detector "$DETECTOR" --tokenizer "$ROOT"/image_{single,multi,shared}/image_tokenizer \
    "${ceiling_more[@]}"
}
launcher() { # GPUs
  local ranks
  ranks=$(echo "$1" | tr ',' ' ' | wc -w)
  [ "$ranks" = 1 ] && echo python || echo python -m torch.distributed.run --standalone --nproc_per_node "$ranks"
}
encode() { # GPUs, split, documents, processes of each
  CUDA_VISIBLE_DEVICES=$1 $(launcher "$1") tokenizers/encode_shards.py \
    tokenizers/configs/shards_storyworld.yaml --image_tokenizer "$T" --split "$2" \
    --num_documents "$3" --num_processes "$4" --output "$S/$2" --with_latents True \
    "${encode_more[@]}"
}
shape() { # recipe, width, depth, heads, inner width, factor of the learning rate
  echo --model.backbone.dim "$2" --model.backbone.depth "$3" --model.backbone.num_heads "$4" \
    --model.backbone.num_kv_heads "$4" --model.backbone.ffn_dim "$5" --optimizer.learning_rate \
    "$(awk -v factor="$6" '/^ *learning_rate:/ { print $2 * factor }' "$1")"
}
trunk() { # GPUs, recipe, recipe@size, recipe-sSEED or recipe@size-sSEED
  local run="$ROOT/$2" flops=$FLOPS left=$((DEADLINE - SECONDS)) more=() recipe seed config size
  [[ $2 =~ ^([a-z_]+)(@(small|large))?(-s([0-9]+))?$ ]] ||
    { echo "unknown run $2; see the head of this script" >&2 && return 2; }
  recipe=${BASH_REMATCH[1]} size=$STANDARD seed=${BASH_REMATCH[5]:-0}
  [ "${BASH_REMATCH[3]}" = small ] && size=$SMALL
  [ "${BASH_REMATCH[3]}" = large ] && size=$LARGE
  config=train/configs/storyworld_$recipe.yaml
  [ "$recipe" = next_token ] && config=train/configs/storyworld.yaml
  [ "$recipe" = next_scale ] && more=(--model.objectives.0.scales ${SCALES//-/ })
  [ "$recipe" = joint ] && more=(--model.objectives.1.scales ${SCALES//-/ }) flops=$JOINT_FLOPS
  [ -z "$size" ] || more+=($(shape "$config" $size))
  [ -f "$run/model/config.json" ] && return
  [ "$left" -gt "$SHORTEST" ] || return 124 # not worth its start
  CUDA_VISIBLE_DEVICES=$1 timeout -s TERM "$left" $(launcher "$1") train/pretrain.py "$config" \
    --run_dir "$run" --seed "$seed" --image_tokenizer "$T" \
    --text_tokenizer unimm/assets/models/storyworld --data.train "$S/train" \
    --data.validation "$S/validation" --data.heldout "$S/heldout" --data.num_workers "$WORKERS" \
    --logging.evaluate_every 0 --max_flops "$flops" --max_minutes 600 "${more[@]}" "${trunk_more[@]}"
}
trunks() { # every GPU, or set of them, works through its part of RUNS
  local named here jobs at_once=0 pids=() bad=0 gpus
  gpus=$(printf '%s\n' $RUNS | cut -d: -f1 | sort -u) DEADLINE=$((SECONDS + 60 * CALL_MINUTES))
  for named in $gpus; do
    here=$(printf '%s\n' $RUNS | grep -c "^$named:")
    here=$((here < RUNS_PER_GPU ? here : RUNS_PER_GPU))
    at_once=$((at_once + here * $(echo "$named" | tr ',' ' ' | wc -w)))
  done
  WORKERS=$((CORES / at_once - 1)) # of each rank
  WORKERS=$((WORKERS > 14 ? 14 : WORKERS < 0 ? 0 : WORKERS))
  [ "$SIZE" = nano ] && WORKERS=0
  for named in $gpus; do
    mapfile -t jobs < <(printf '%s\n' $RUNS | sed -n "s/^\($named\):/trunk \1 /p")
    [ "$SIZE" = nano ] && { spread any "${jobs[@]}" || bad=1; continue; }
    spread "$(times "$RUNS_PER_GPU" any)" "${jobs[@]}" &
    pids+=($!)
  done
  for pid in ${pids[@]+"${pids[@]}"}; do wait "$pid" || bad=1; done
  return $bad
}
pictures() { # run, objective
  [ -f "$ROOT/scores/$1/$2/worldeval/summary.json" ] && return
  python eval/score_images.py eval/configs/images_objectives.yaml --model "$ROOT/$1/model" \
    --objective "$2" --detector "$DETECTOR" --output "$ROOT/scores/$1/$2/worldeval" \
    "${picture_more[@]}"
}
stories() { # run, objective
  [ -f "$ROOT/scores/$1/$2/stories/summary.json" ] && return
  python eval/score_stories.py eval/configs/stories_objectives.yaml --model "$ROOT/$1/model" \
    --objective "$2" --detector "$DETECTOR" --output "$ROOT/scores/$1/$2/stories" "${story_more[@]}"
}
speed() { # run
  [ -f "$ROOT/scores/$1/drawing.json" ] ||
    python eval/benchmark_generation.py "$ROOT/$1/model" --name drawing --output "$ROOT/scores/$1" \
      "${speed_more[@]}"
}
report() {
  python eval/compare_objectives.py eval/configs/compare.yaml --root "$ROOT" "${report_more[@]}"
}
finished() { # names of runs with a model
  for path in "$ROOT"/*/model/config.json; do
    [ -f "$path" ] && basename "$(dirname "$(dirname "$path")")"
  done
}
objectives_of() { # run
  python -c 'import json, sys
print(*(x["name"] for x in json.load(open(sys.argv[1]))["model"]["objectives"]))' \
    "$ROOT/$1/model/config.json"
}
pack() { # "results" or a run, ...
  local staging="$ROOT/staging" name
  rm -rf "$staging" && mkdir -p "$staging" "$OUT"
  for what in "$@"; do
    if [ "$what" = results ]; then
      # Of the drawn pictures only those that the report shows: first prompts of the tasks.
      (cd "$ROOT" && find . \( -name checkpoints -o -name model -o -name samples -o -name "shards_*" \
        -o -name staging -o -name packed \) -prune -o -type f ! -name "state*" -print0 |
        tar -cf - --null -T -) | tar -C "$staging" -xf -
      for found in "$ROOT"/scores/*/*/worldeval/samples/*00; do
        [ -d "$found" ] && mkdir -p "$staging/${found#"$ROOT/"}" &&
          cp -r "$found/." "$staging/${found#"$ROOT/"}"
      done
    else
      mkdir -p "$staging/image_$TOKENIZER" && cp -r "$T" "$staging/image_$TOKENIZER/"
      python train/export_model.py "$ROOT/$what/model" "$staging/$what/model" \
        --shared-image-tokenizer "../../image_$TOKENIZER/image_tokenizer" || return 1
      cp "$ROOT/$what/config.yaml" "$ROOT/$what/log.jsonl" "$staging/$what/"
    fi
  done
  name=$(echo "$*" | tr ' @' '__') # letters that any machine takes
  rm -f "$OUT/$name".tgz.*         # an earlier one may have had more pieces
  tar -C "$staging" -czf - . | split -b 15M - "$OUT/$name.tgz."
  rm -rf "$staging"
  ls -l "$OUT"
  [ "$(ls "$OUT" | wc -l)" -le "$PIECES" ] || { echo "more than $PIECES: pack less at once" && return 1; }
}

stage() {
  local jobs=() ways=()
  case $1 in
  tokenizers)
    spread "$(echo $GPUS | cut -d' ' -f1-3)" "tokenizer single single" \
      "tokenizer multi $SCALES" "tokenizer shared single $SCALES"
    ;;
  score)
    spread "$GPUS" "reconstruction single" "reconstruction multi" "reconstruction shared" ceilings
    ;;
  encode)
    local parts processes
    parts=$(echo "$ENCODE_GPUS" | tr ',' ' ' | wc -w)
    processes=$((CORES / parts - 3)) # of each
    [ "$SIZE" = nano ] && processes=0
    spread "$GPUS" "encode $ENCODE_GPUS train $DOCUMENTS $processes" \
      "encode ${GPUS##* } validation $HELD_OUT 0" "encode ${GPUS##* } heldout $HELD_OUT 0"
    ;;
  trunks) trunks ;;
  eval)
    for run in $(finished); do
      for name in $(objectives_of "$run"); do
        ways+=("pictures $run $name")
        [[ $run == *@* ]] || jobs+=("stories $run $name")
      done
    done
    spread "$(times "$PER_GPU" $GPUS)" ${ways[@]+"${ways[@]}"} ${jobs[@]+"${jobs[@]}"}
    ;;
  speed)
    for run in $(finished); do [[ $run == *@* ]] || jobs+=("speed $run"); done
    spread "$GPUS" ${jobs[@]+"${jobs[@]}"}
    ;;
  report) report ;;
  *) echo "unknown stage $1; see the head of this script" >&2 && return 2 ;;
  esac
}

mkdir -p "$ROOT/logs" "$ROOT/ledger"
[ "$1" = pack ] && { pack "${@:2}"; exit; }
result=0
for name in ${1//+/ }; do stage "$name" || result=1; done
exit $result
