"""How many whole stories a model tells in a second: text, pictures, decoding."""

from statistics import median
from time import perf_counter
from typing import Any

import torch

from unimm.data.world.splits import Split
from unimm.evaluation.story_sets import story_tasks
from unimm.generation.story import generate_story
from unimm.pipeline import Pipeline


def time_stories(
    pipeline: Pipeline,
    *,
    batch_size: int,
    num_pages: int,
    repeats: int,
    seed: int,
    max_text_tokens: int | None = None,
) -> dict[str, Any]:
    """Time ``generate_story`` from the first pages of validation stories; the model goes on.

    Args:
        pipeline: the model, drawing by one of its objectives.
        batch_size: stories told at once.
        num_pages: of each.
        repeats: calls that are timed, the same each time, after one that warms up.
        seed: of the beginnings and of the telling.
        max_text_tokens: bound on the text before each picture; None is the library's.

    Returns:
        ``stories/s`` and ``pictures/s`` of the median call, its ``seconds`` and the slowest one's,
        ``text tokens a story`` that were written or given, ``precision``, and on a GPU ``peak GB``.
    """
    tasks = story_tasks("words", Split.VALIDATION, num=batch_size, seed=seed)
    prompts = [task.page_texts[0] for task in tasks]
    options = {"num_images": num_pages, "max_text_tokens": max_text_tokens, "seed": seed}
    is_cuda = pipeline.device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(pipeline.device)
    seconds, num_tokens = [], 0
    for _ in range(1 + repeats):
        start = perf_counter()
        stories = generate_story(pipeline, prompts, stream=False, **options)
        seconds.append(perf_counter() - start)  # the pictures are on the CPU by now
        num_tokens = sum(len(x) for story in stories for x in story.tokens if isinstance(x, list))
    taken = median(seconds[1:])
    row: dict[str, Any] = {
        "stories/s": float(f"{batch_size / taken:.3g}"),
        "pictures/s": float(f"{batch_size * num_pages / taken:.3g}"),
        "seconds": float(f"{taken:.4g}"),
        "slowest, s": float(f"{max(seconds[1:]):.4g}"),
        "text tokens a story": round(num_tokens / batch_size, 1),
        "precision": pipeline.precision,
    }
    if is_cuda:
        row["peak GB"] = round(torch.cuda.max_memory_allocated(pipeline.device) / 1e9, 2)
    return row
