"""Single pictures from text."""

from collections.abc import Sequence
from typing import Any, overload

from PIL import Image

from unimm.generation.generate import generate
from unimm.generation.writer import Progress
from unimm.pipeline import Pipeline


@overload
def generate_image(pipeline: Pipeline, prompt: str, **options: Any) -> Image.Image: ...
@overload
def generate_image(
    pipeline: Pipeline, prompt: list[str] | tuple[str, ...], **options: Any
) -> list[Image.Image]: ...
def generate_image(  # pyright: ignore[reportInconsistentOverload]
    pipeline: Pipeline,
    prompt: str | list[str] | tuple[str, ...],
    *,
    seed: int | Sequence[int] | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance_scale: float | None = None,
    num_steps: int | None = None,
    progress: Progress | None = None,
) -> Image.Image | list[Image.Image]:
    """Draw what a text says: a document of that text and one picture.

    Args:
        pipeline: the model.
        prompt: a caption, which may be empty, or a list of them, drawn together.
        seed: of all randomness; picture ``i`` of many gets ``seed + i``, or its own from a list.
            By default one is drawn.
        temperature: 0 is greedy. Options that are None are the model's defaults.
        top_k: keeps the k most likely codes; 0 keeps all.
        top_p: keeps the likeliest codes that have this probability together.
        guidance_scale: of classifier-free guidance; 1 is off.
        num_steps: of models that draw in steps of their own choice, such as denoising; 0 is the
            model's own number.
        progress: called after every step with 0 and the positions made so far.

    Returns:
        One picture, or a list for a list of prompts.

    Raises:
        ValueError: if an option is out of range, or a prompt does not fit the context.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        return []
    stories: list[Any] = generate(
        pipeline,
        [""] * len(prompts),
        page_texts=[[text] for text in prompts],
        seed=seed,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        num_steps=num_steps,
        progress=progress,
    )
    pictures = [story.images[0] for story in stories]
    return pictures[0] if isinstance(prompt, str) else pictures
