"""Write and draw stories, each to a page that can be read, printed or shared.

    python eval/write_stories.py --prompt "Mia the fox finds a red balloon." --output story.html
    python eval/write_stories.py --prompt "Tom is a bear." --num-images 6 --output story/tom.json

Several ``--prompt`` make several stories at once: ``story_1.html``, ``story_2.html`` ...
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import unimm
from unimm.generation import Story

PROMPTS = ("Mia the fox finds a red balloon.",)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which stories to write."""

    prompt: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """How a story begins; give it again for another story."""
    model: str = "storyworld"
    """A shipped model, a model folder, or owner/name of the Hugging Face Hub."""
    num_images: int | None = None
    """Pictures of a story; by default the model ends it."""
    seed: int | None = None
    """Of all randomness; by default one is drawn, and printed."""
    guidance_scale: float | None = None
    """Of the pictures; by default the model's."""
    output: Path = Path("story.html")
    """A .html page, or a .json file beside which the pictures are put."""
    device: str | None = None
    """By default the GPU if there is one."""


def write(arguments: Arguments) -> list[Story]:
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True
    ) as bar:
        task = bar.add_task(f"loading {arguments.model}")
        pipeline = unimm.load_pipeline(arguments.model, device=arguments.device)
        pages = f" of {arguments.num_images}" if arguments.num_images else ""

        def show(page: int, positions: int) -> None:
            bar.update(task, description=f"page {page + 1}{pages}, {positions} tokens")

        return unimm.generate_story(
            pipeline,
            list(arguments.prompt or PROMPTS),
            num_images=arguments.num_images,
            seed=arguments.seed,
            guidance_scale=arguments.guidance_scale,
            progress=show,
        )


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    output, start = arguments.output, time.monotonic()
    stories = write(arguments)
    for number, story in enumerate(stories, start=1):
        name = output.name if len(stories) == 1 else f"{output.stem}_{number}{output.suffix}"
        path = story.save(output.with_name(name))
        print(f"{path}: {len(story.images)} pictures, seed {story.settings['seed']}")
    print(f"{time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
