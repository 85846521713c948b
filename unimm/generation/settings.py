"""From a caller's options to a plan, and from a plan to the settings that make a story again."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from unimm.generation.cache_policy import CachePolicy
from unimm.generation.request import Plan
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline

SAMPLINGS = ("text", "first_page", "later_pages")


def base_plan(pipeline: Pipeline, settings: Mapping[str, Any] | None) -> Plan:
    """How the model draws by itself, or how an earlier story was made.

    Args:
        pipeline: the model.
        settings: of an earlier ``Story``.

    Raises:
        ValueError: if these are no settings of a story.
    """
    if settings is None:
        defaults = pipeline.sampler
        return Plan(
            text=defaults.text, first_page=defaults.first_page, later_pages=defaults.later_pages
        )
    missing = [name for name in ("seed", *SAMPLINGS) if name not in settings]
    if missing:
        raise ValueError(f"settings lack {missing}: give a story's settings as they are")
    policy = settings.get("cache_policy")
    return Plan(
        **{name: SamplingConfig(**settings[name]) for name in SAMPLINGS},
        **{
            name: settings[name]
            for name in ("num_images", "max_images", "max_text_tokens", "num_previews", "write_on")
            if name in settings
        },
        cache_policy=CachePolicy(**policy) if policy else None,
    )


def change_plan(
    plan: Plan,
    *,
    text: Mapping[str, float | None],
    pictures: Mapping[str, float | None],
    first_guidance_scale: float | None,
    **options: Any,
) -> Plan:
    """Replace what the caller gives, which is everything that is not None.

    Args:
        plan: to start from.
        text: options of the text's sampling.
        pictures: options of the pictures' sampling.
        first_guidance_scale: of the first picture, if it shall differ.
        options: fields of the plan.

    Raises:
        ValueError: if one is out of range.
    """
    lowest = {"num_images": 0, "max_images": 1, "max_text_tokens": 0, "num_previews": 0}
    given = {name: value for name, value in options.items() if value is not None}
    for name, low in lowest.items():
        if name in given and given[name] < low:
            raise ValueError(f"{name} must be {low} or larger, got {given[name]}")
    first = {**pictures}
    if first_guidance_scale is not None:
        first["guidance_scale"] = first_guidance_scale
    return replace(
        plan,
        text=_override(plan.text, text),
        first_page=_override(plan.first_page, first),
        later_pages=_override(plan.later_pages, pictures),
        **given,
    )


def choose_seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """One seed a document: counted up from the given one, or from one that is drawn.

    Raises:
        ValueError: on a list of another length or a negative seed.
    """
    first = secrets.randbelow(2**31) if seed is None else seed
    seeds = [first + i for i in range(count)] if isinstance(first, int) else list(first)
    if len(seeds) != count or any(value < 0 for value in seeds):
        raise ValueError(f"seed must be 0 or larger, one or {count} of them; got {seed}")
    return seeds


def record(pipeline: Pipeline, plan: Plan) -> dict[str, Any]:
    """All but prompt and seed that makes a story again; plain data."""
    drawing = {"objective": pipeline.drawing.name, "precision": pipeline.precision}
    return {"model": pipeline.name, **drawing, **pipeline.hashes, **asdict(plan)}


def _override(sampling: SamplingConfig, options: Mapping[str, float | None]) -> SamplingConfig:
    given: dict[str, Any] = {name: x for name, x in options.items() if x is not None}
    return replace(sampling, **given) if given else sampling
