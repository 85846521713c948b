#!/usr/bin/env bash
# From nothing to the storyworld model on one GPU: tokenizers, shards, judge, trunk, scores.
# Needs about 20 minutes of one H100 and 16 processor cores. Every step goes on where it was broken
# off, so run it again after an interruption. A first argument names another folder than runs/.
set -euo pipefail
R=${1:-runs}
T="--image-tokenizer $R/image_storyworld/image_tokenizer"

[ -f "$R/text_tokenizer/tokenizer.json" ] ||
  python tokenizers/train_text_tokenizer.py tokenizers/configs/text.yaml --output "$R/text_tokenizer"
python tokenizers/train_image_tokenizer.py tokenizers/configs/image_storyworld.yaml --run-dir "$R/image_storyworld"
for split in validation heldout; do
  python tokenizers/encode_shards.py tokenizers/configs/shards_storyworld.yaml $T \
    --split $split --num-documents 512 --output "$R/shards/$split"
done
python tokenizers/encode_shards.py tokenizers/configs/shards_storyworld.yaml $T --output "$R/shards/train"
python train/pretrain.py train/configs/storyworld.yaml $T --run-dir "$R/storyworld" \
  --text-tokenizer "$R/text_tokenizer" --data.train "$R/shards/train" \
  --data.validation "$R/shards/validation" --data.heldout "$R/shards/heldout"
python eval/train_detector.py eval/configs/detector.yaml --output "$R/detector" $T
python eval/calibrate_detector.py --detector "$R/detector" $T --ledger "$R/results"
python eval/score_stories.py eval/configs/stories.yaml --model "$R/storyworld/model" \
  --detector "$R/detector" --output "$R/story_scores" --ledger "$R/results"
python eval/score_images.py eval/configs/images.yaml --model "$R/storyworld/model" \
  --detector "$R/detector" --output "$R/worldeval" --ledger "$R/results"
