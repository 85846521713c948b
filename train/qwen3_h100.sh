#!/bin/bash
# Step a trunk of Qwen3-8B's widths at two layers, from a folder of random weights, on 2 GPUs with
# ZeRO 3; before it, its peak memory beside the planner's. bash train/qwen3_h100.sh [FOLDER]
set -euo pipefail
R=${1:-runs/qwen3_two_layers}
TOKENIZER=unimm/assets/models/storyworld/image_tokenizer
mkdir -p "$R"

python - "$R/llm" <<'PYTHON'
import sys
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

folder, vocab_size = sys.argv[1], 151936
config = AutoConfig.for_model(
    "qwen3", hidden_size=4096, num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128, intermediate_size=12288, vocab_size=vocab_size, tie_word_embeddings=False,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6},
)
AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
# A tokenizer of as many ids, so that embedding and head have their real sizes.
tokenizer = Tokenizer.from_file("unimm/assets/models/storyworld/tokenizer.json")
missing = vocab_size - tokenizer.get_vocab_size()
tokenizer.add_tokens([f"<extra {number}>" for number in range(missing)])
tokenizer.save(f"{folder}/tokenizer.json")
PYTHON

python tokenizers/encode_shards.py tokenizers/configs/shards_storyworld_cpu.yaml \
  --image_tokenizer $TOKENIZER --output "$R/shards" --num_documents 400

SHORT="--run_dir $R/run --initial_llm $R/llm --text_tokenizer $R/llm --image_tokenizer $TOKENIZER
  --model.backbone.depth 2 --data.train $R/shards --data.validation= --data.row_length 4096
  --data.rows_per_step 4 --data.num_workers 0 ${EXTRA:-}"
torchrun --standalone --nproc_per_node 2 train/measure_memory.py train/configs/qwen3_8b.yaml \
  $SHORT --stages 1 2 3 --ledger "$R/results"
torchrun --standalone --nproc_per_node 2 train/pretrain.py train/configs/qwen3_8b.yaml $SHORT \
  --max_steps 20 --logging.log_every 1 --logging.save_every 0 --logging.evaluate_every 0
