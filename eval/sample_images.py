"""Draw captions into one PNG: a row for each caption, a column for each sample.

python eval/sample_images.py --prompt "A red balloon." --prompt "Three apples in the snow."
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

import unimm

PROMPTS = ("A red balloon.", "Three green apples in the snow.")
GAP = 4  # pixels between pictures


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to draw."""

    prompt: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A caption; give it again for another one."""
    model: str = "storyworld"
    """A shipped model, a model folder, or owner/name of the Hugging Face Hub."""
    num_samples: int = 4
    """Pictures of each caption."""
    seed: int = 0
    """Of all randomness: each picture counts one up."""
    temperature: float | None = None
    """0 is greedy; by default the model's."""
    top_k: int | None = None
    """Keep the k most likely codes; by default the model's."""
    guidance_scale: float | None = None
    """1 is off; by default the model's."""
    num_steps: int | None = None
    """Of models that denoise; by default the model's."""
    batch_size: int = 32
    """Pictures at once."""
    output: Path = Path("images.png")
    """The grid."""
    device: str | None = None
    """By default the GPU if there is one."""


def grid(pictures: list[Image.Image], columns: int) -> Image.Image:
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    size = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, ((i % columns) * (width + GAP), (i // columns) * (height + GAP)))
    return sheet


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    pipeline = unimm.load_pipeline(arguments.model, device=arguments.device)
    captions = arguments.prompt or PROMPTS
    prompts = [text for text in captions for _ in range(arguments.num_samples)]
    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), arguments.batch_size):
        pictures += unimm.generate_image(
            pipeline,
            prompts[start : start + arguments.batch_size],
            seed=arguments.seed + start,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            guidance_scale=arguments.guidance_scale,
            num_steps=arguments.num_steps,
        )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    grid(pictures, arguments.num_samples).save(arguments.output)
    print(f"{arguments.output}: {len(captions)} captions, {arguments.num_samples} each")


if __name__ == "__main__":
    main()
