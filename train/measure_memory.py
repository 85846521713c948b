"""Measure a step's peak memory in every ZeRO stage, beside what the planner says.

torchrun --nproc_per_node 2 train/measure_memory.py train/configs/storyworld.yaml --stages 1 2 3
"""

import argparse
import sys

import torch

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.distributed import is_main, shutdown, world_size
from unimm.ledger import write_ledger
from unimm.tokenizer.text import TextTokenizer
from unimm.training.config import TrainConfig
from unimm.training.engine import choose_device
from unimm.training.measure import measure_peak
from unimm.training.planner import Planner, with_stage
from unimm.training.resume import CHOICES
from unimm.training.shared_step import cut_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ledger", default="", help="folder of the ledger; empty writes none")
    arguments, overrides = parser.parse_known_args()
    config = load_config(TrainConfig, [arguments.config, *overrides], choices=CHOICES)
    device = choose_device(config.engine.device)
    tokenizer = load_image_tokenizer(config.image_tokenizer).to(device)
    planner = Planner(
        config,
        special=TextTokenizer.from_pretrained_file(config.text_tokenizer).special_ids,
        image_tokenizer=tokenizer,
        image_size=tokenizer.config.image_size,
    )
    micro_rows, _ = cut_step(config, num_ranks=world_size())
    rows: dict[str, dict[str, float]] = {}
    for stage in arguments.stages:
        engine = with_stage(config.engine, stage, device=device.type)
        if engine is None:
            raise SystemExit(
                f"the engine's settings exclude ZeRO {stage}: leave it out of --stages"
            )
        memory = planner.memory(engine, num_gpus=world_size(), micro_rows=micro_rows)
        peak = measure_peak(planner, engine, micro_rows=micro_rows, device=device)
        torch.cuda.empty_cache()
        rows[f"ZeRO {stage}"] = {
            "estimated_gb": round(memory.total / 1e9, 2),
            "measured_gb": round(peak / 1e9, 2),
            "ratio": round(memory.total / peak, 3),
        }
        if is_main():
            print(f"ZeRO {stage}: {rows[f'ZeRO {stage}']}", flush=True)
    if is_main() and arguments.ledger:
        command = " ".join(["torchrun", f"--nproc_per_node {world_size()}", *sys.argv])
        write_ledger("memory", command=command, seed=0, figures=rows, folder=arguments.ledger)
    shutdown()


if __name__ == "__main__":
    main()
