#!/usr/bin/env bash
# All probes of a model on one GPU; each of these takes about a minute:
#   eval/probes_h100.sh classify | fashion | depth | depth_dpt | segment | correspond | marigold
#   eval/probes_h100.sh hyperfeatures      all layers and timesteps mixed
#   eval/probes_h100.sh zero_shot          classes, tints and colour binding; or one: zero_shot_class
#   eval/probes_h100.sh depth_sequence     depth as the next picture, by the model's own objective
#   eval/probes_h100.sh furniture          depth of 3-D models; FURNITURE is the folder of .sh3f files
#   eval/probes_h100.sh photo              depth on a real photo; pip install scikit-image
#   eval/probes_h100.sh all                one after the other
# MODEL names another model, OUTPUT another folder than runs/, LEDGER another than docs/results, DATA
# the folder of Fashion-MNIST. Flags after a stage of one probe go to eval/run_probe.py. Features are
# made anew in the GPU's memory: CACHE=runs/features keeps them on disk for other stages.
set -euo pipefail
MODEL=${MODEL:-storyworld}
OUTPUT=${OUTPUT:-runs}
LEDGER=${LEDGER:-docs/results}
CACHE=${CACHE:-}
DATA=${DATA:-/usr/share/datasets/fashion-mnist}
FURNITURE=${FURNITURE:-/usr/share/sweethome3d/furniture}

probe() { # name of the settings, further flags
  local name=$1
  shift
  python eval/run_probe.py "eval/configs/probes/$name.yaml" --model "$MODEL" \
    --output "$OUTPUT/probes/$name" --cache "$CACHE" --ledger "$LEDGER" "$@"
}

case $1 in
classify | depth | depth_dpt | segment | correspond | hyperfeatures | marigold | depth_sequence | \
  zero_shot_class | zero_shot_tint | zero_shot_binding)
  probe "$@"
  ;;
fashion) probe classify_fashion --data.folder "$DATA" "${@:2}" ;;
furniture) probe depth_furniture --data.folder "$FURNITURE" "${@:2}" ;;
photo) probe depth_photo "${@:2}" ;;
zero_shot) for task in class tint binding; do probe "zero_shot_$task" "${@:2}"; done ;;
all)
  for stage in classify zero_shot depth depth_dpt segment correspond hyperfeatures marigold \
    depth_sequence; do
    "$0" "$stage"
  done
  if [ -d "$DATA" ]; then "$0" fashion; fi
  ;;
*) echo "unknown stage $1" >&2 && exit 2 ;;
esac
