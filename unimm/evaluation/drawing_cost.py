"""What drawing costs: pictures a second, steps of the trunk, evaluations of a head, memory."""

import time
from typing import Any

import torch

from unimm.diffusion.sampler import EvaluationCounter
from unimm.generation.image import generate_image
from unimm.pipeline import Pipeline

PROMPT = "A red ball."


def drawing_cost(
    pipeline: Pipeline, *, batch_size: int, repeats: int = 1, **options: Any
) -> dict[str, float]:
    """Draw some batches after one that compiles and records.

    Args:
        pipeline: the model, drawing by one of its objectives.
        batch_size: pictures drawn at once.
        repeats: batches that are timed; the fastest counts.
        options: of ``generate_image``.

    Returns:
        ``pictures/s``; ``trunk steps``, one after another, prompt included; ``head evaluations`` of
        a denoiser for one picture, guidance included; and ``memory_gb`` at its peak on a GPU.
    """
    is_cuda = pipeline.device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(pipeline.device)
    prompts, times, steps = [PROMPT] * batch_size, list[float](), [0]
    counter = EvaluationCounter()
    head = getattr(pipeline.model.objective(pipeline.drawing.name), "denoiser", None)
    generate_image(pipeline, prompts, seed=1, **options)
    stop = counter.watch(head) if head is not None else lambda: None
    for number in range(repeats):
        started = time.perf_counter()
        # The trunk's own forwards cannot be watched: recorded ones are replayed.
        generate_image(
            pipeline,
            prompts,
            seed=2 + number,
            progress=lambda *_: steps.__setitem__(0, steps[0] + 1),
            **options,
        )
        if is_cuda:
            torch.cuda.synchronize(pipeline.device)
        times.append(time.perf_counter() - started)
    stop()
    figures = {
        "pictures/s": float(f"{batch_size / min(times):.4g}"),
        "trunk steps": steps[0] / repeats,
        "head evaluations": counter.num_rows / (batch_size * repeats),
    }
    if is_cuda:
        figures["memory_gb"] = round(torch.cuda.max_memory_allocated(pipeline.device) / 1e9, 2)
    return figures
