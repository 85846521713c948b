"""Single pictures from text."""

from collections.abc import Sequence
from typing import Any, overload

from PIL import Image

from unimm.generation.story import choose_seeds, override
from unimm.generation.writer import PictureEvent, Plan, Progress, Request, write
from unimm.pipeline import Pipeline, decode_images


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
    objective: str | None = None,
    progress: Progress | None = None,
) -> Image.Image | list[Image.Image]:
    """Draw what a text says.

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
        objective: which of the model's objectives draws; by default the pipeline's.
        progress: called after every step with 0 and the positions made so far.

    Returns:
        One picture, or a list for a list of prompts.

    Raises:
        ValueError: if an option is out of range, or a prompt does not fit the context.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        return []
    pipeline = pipeline.draw_by(objective)
    sampling = override(
        pipeline.sampler.first_page,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        num_steps=num_steps,
    )
    plan = Plan(text=pipeline.sampler.text, first_page=sampling, later_pages=sampling, num_images=1)
    requests = [
        Request(parts=(), page_texts=(pipeline.text_tokenizer.encode(text),), seed=number)
        for text, number in zip(prompts, choose_seeds(seed, len(prompts)), strict=True)
    ]
    drawn = {
        event.document: event.tokens
        for event in write(pipeline, requests, plan, progress=progress)
        if isinstance(event, PictureEvent)
    }
    pictures = decode_images(pipeline, [drawn[i] for i in range(len(prompts))])
    return pictures[0] if isinstance(prompt, str) else pictures
