"""Single pictures from text."""

from typing import Any, overload

from PIL import Image

from unimm.generation.generate import generate
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
    **options: Any,
) -> Image.Image | list[Image.Image]:
    """Draw what a text says: a document of that text and one picture.

    Args:
        pipeline: the model.
        prompt: a caption, which may be empty, or a list of them, drawn together.
        options: ``seed``, ``temperature``, ``top_k``, ``top_p``, ``guidance_scale``, ``num_steps``,
            ``objective`` and ``progress``, as in ``generate``.

    Returns:
        One picture, or a list for a list of prompts.

    Raises:
        ValueError: if an option is out of range, or a prompt does not fit the context.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        return []
    stories: Any = generate(
        pipeline,
        [""] * len(prompts),
        page_texts=[[text] for text in prompts],
        **options,
    )
    pictures = [story.images[0] for story in stories]
    return pictures[0] if isinstance(prompt, str) else pictures
