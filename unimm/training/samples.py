"""A grid of what a trunk draws, so that a person sees it learn."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unimm.generation.image import generate_image
from unimm.generation.story import generate_story
from unimm.pipeline import Pipeline
from unimm.training.picture_grid import save_grid

CAPTIONS: tuple[str, ...] = (
    "A red balloon.",
    "A blue car in the snow.",
    "Three apples on the meadow.",
    "A fox with a crown.",
)
# Later pages say the name only: who is drawn there shows what the trunk remembers.
STORIES: tuple[tuple[str, ...], ...] = (
    (
        "Mia is a fox with a crown. She lives in the meadow.",
        "Mia finds a red balloon.",
        "Mia walks to the beach.",
        "At night, Mia looks at the stars.",
    ),
    (
        "Tom is a blue bear. He lives in the snow.",
        "Tom finds a yellow kite.",
        "Tom walks to the desert.",
        "At dusk, Tom goes home.",
    ),
)


def draw_samples(pipeline: Pipeline, path: Path, *, seed: int = 0) -> None:
    """Write a PNG: a row of pictures of captions, then a row for each story.

    Args:
        pipeline: model and tokenizers.
        path: of the picture.
        seed: of all samples, so that grids of one run can be compared.
    """
    pictures = generate_image(pipeline, CAPTIONS, seed=seed)
    stories = generate_story(
        pipeline,
        [""] * len(STORIES),
        page_texts=[list(pages) for pages in STORIES],
        num_images=len(STORIES[0]),
        seed=seed,
    )
    for story in stories:
        pictures += [part for part in story.parts if not isinstance(part, str)]
    save_grid(path, torch.stack([_pixels(picture) for picture in pictures]), columns=len(CAPTIONS))


def _pixels(picture: Image.Image) -> Tensor:
    """``(3, H, W)`` in [-1, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1
