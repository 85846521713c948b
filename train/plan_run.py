"""Say before a run whether it fits, how long it takes, and what would make it fit.

python train/plan_run.py train/configs/storyworld_diffusion.yaml --gpus 8
python train/plan_run.py train/configs/qwen3_8b.yaml --gpus 64 --vocab-size 151942 --mfu 0.45
"""

import argparse

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.document import SpecialIds
from unimm.tokenizer.text import TextTokenizer
from unimm.training.config import TrainConfig
from unimm.training.plan_page import describe_plan
from unimm.training.planner import Cluster, Planner
from unimm.training.resume import CHOICES

NO_IDS = dict.fromkeys(("pad", "bos", "eos", "boi", "eoi", "null"), 0)  # none is looked at


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="other flags override the config, as train/pretrain.py's do",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="the run's YAML")
    parser.add_argument("--gpus", type=int, required=True)
    parser.add_argument("--gpu-gb", type=float, default=80, help="memory of one, in 1e9 bytes")
    parser.add_argument("--tflops", type=float, default=989, help="bfloat16 peak of one; H100: 989")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak that is reached")
    parser.add_argument("--bandwidth-gb", type=float, default=50, help="1e9 bytes/s a GPU can send")
    parser.add_argument("--image-size", type=int, default=0, help="side of the pictures in pixels")
    parser.add_argument("--vocab-size", type=int, help="plan without the run's text tokenizer")
    parser.add_argument("--text-tokens", type=int, default=64, help="text ids before each picture")
    arguments, overrides = parser.parse_known_args()
    config = load_config(TrainConfig, [arguments.config, *overrides], choices=CHOICES)
    if arguments.vocab_size:
        special = SpecialIds(**NO_IDS, vocab_size=arguments.vocab_size)
    else:
        special = TextTokenizer.from_pretrained_file(config.text_tokenizer).special_ids
    tokenizer = load_image_tokenizer(config.image_tokenizer)
    world_size = config.data.world.image_size if config.data.world else 0
    planner = Planner(
        config,
        special=special,
        image_tokenizer=tokenizer,
        image_size=arguments.image_size or world_size or tokenizer.config.image_size,
        text_tokens=arguments.text_tokens,
    )
    cluster = Cluster(
        num_gpus=arguments.gpus,
        gpu_bytes=arguments.gpu_gb * 1e9,
        peak_flops=arguments.tflops * 1e12,
        mfu=arguments.mfu,
        bandwidth=arguments.bandwidth_gb * 1e9,
    )
    print(describe_plan(planner, cluster))


if __name__ == "__main__":
    main()
