"""Train the detector that judges pictures; ``calibrate_detector.py`` then measures it.

python eval/train_detector.py eval/configs/detector.yaml --output runs/detector
"""

import sys
from functools import partial

import torch

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.data.world.render import Renderer
from unimm.training.detector import DetectorRunConfig, train_detector
from unimm.training.detector_scenes import render_batch, rendered_batches


def main() -> None:
    config = load_config(DetectorRunConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True
    reconstruct = None
    if config.image_tokenizer:
        reconstruct = load_image_tokenizer(config.image_tokenizer).to(device).reconstruct
    renderer = Renderer(device=device)
    fresh = rendered_batches(
        partial(render_batch, renderer=renderer, size=config.detector.image_size),
        seed=config.seed,
        batch_size=config.batch_size,
        num_batches=config.num_batches,
        style_shares=config.style_shares,
        num_workers=config.num_workers,
    )
    generator = torch.Generator(device).manual_seed(config.seed)
    train_detector(config, fresh, generator=generator, reconstruct=reconstruct)
    fresh.close()
    print(
        f"wrote {config.output}; next: python eval/calibrate_detector.py --detector {config.output}"
    )


if __name__ == "__main__":
    main()
