"""Write a trained model in fewer bits, to be shipped.

python train/export_model.py runs/storyworld/model exported --precision int8
python train/export_model.py runs/storyworld_joint/model exported --objectives masked diffusion
"""

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from unimm.checkpoint.weights import Precision
from unimm.pipeline import load_pipeline


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to write."""

    model: tyro.conf.Positional[Path]
    """Folder of the trained model."""
    output: tyro.conf.Positional[Path]
    """Folder to write."""
    objectives: tuple[str, ...] = ()
    """That it keeps, the default one first, without what only training needs; none keeps all."""
    precision: Precision = "int8"
    """Of the model's matrices; the image tokenizer stays as it is."""
    shared_image_tokenizer: str = ""
    """Folder of the same image tokenizer, seen from the output; empty writes a copy."""
    max_shard_bytes: int = 15_000_000
    """Largest weight file."""


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    pipeline = load_pipeline(arguments.model, device="cpu")
    pipeline = replace(pipeline, model=pipeline.model.to_ship(arguments.objectives))
    pipeline.save_pretrained(
        arguments.output,
        precision=arguments.precision,
        max_shard_bytes=arguments.max_shard_bytes,
        shared_image_tokenizer=arguments.shared_image_tokenizer,
    )
    load_pipeline(arguments.output, device="cpu")
    size = sum(path.stat().st_size for path in arguments.output.rglob("*") if path.is_file())
    print(f"{arguments.output}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
