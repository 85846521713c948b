"""What drawing costs: pictures a second, steps of the trunk, evaluations of a head, memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from unimm.diffusion.sampler import EvaluationCounter
from unimm.document import ImageTokens
from unimm.evaluation.ceilings import seconds_of, wait_for
from unimm.generation.generate import generate
from unimm.generation.image import generate_image
from unimm.nn.recorded import unrecorded
from unimm.pictures import decode_images
from unimm.pipeline import Pipeline

PROMPT = "A red ball."
_STEPS_BEFORE = 1  # the caption, from <bos> to <boi>


@dataclass(kw_only=True)
class Work:
    """What was run to draw a batch.

    Attributes:
        new: positions that each step of the trunk ran for one document, the prompt's first.
        calls: forwards of a denoiser.
        rows: pictures that they evaluated, guidance branches included.
    """

    new: list[int] = field(default_factory=list[int])
    calls: int = 0
    rows: int = 0

    @property
    def before(self) -> int:
        """Positions of a document that is about to be drawn in, ``<boi>`` included."""
        return sum(self.new[:_STEPS_BEFORE])

    @property
    def drawing(self) -> list[int]:
        """Positions of each step of the drawing itself."""
        return self.new[_STEPS_BEFORE:]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What drawing a batch takes, image decoding included.

    Attributes:
        batch_size: pictures drawn at once.
        seconds: median of a call.
        decode_seconds: of that, turning tokens into pictures; measured by itself.
        work: what was run.
        memory_gb: at its peak on a GPU, 0 elsewhere.
    """

    batch_size: int
    seconds: float
    decode_seconds: float
    work: Work
    memory_gb: float

    def row(self) -> dict[str, float]:
        """For a table; ``trunk steps`` run one after another, the prompt's included."""
        figures: dict[str, float] = {
            "pictures/s": float(f"{self.batch_size / self.seconds:.4g}"),
            "trunk steps": len(self.work.new),
            "head evaluations": self.work.rows / self.batch_size,
        }
        return figures | ({"memory_gb": round(self.memory_gb, 2)} if self.memory_gb else {})


def drawing_cost(pipeline: Pipeline, *, batch_size: int, repeats: int = 1, **options: Any) -> Cost:
    """Draw some batches after two that compile and record.

    Args:
        pipeline: the model, drawing by one of its objectives.
        batch_size: pictures drawn at once.
        repeats: batches that are timed.
        options: of ``generate_image``.
    """
    device = pipeline.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    prompts = [PROMPT] * batch_size
    work, tokens = count_work(pipeline, prompts, **options)

    def draw() -> None:
        generate_image(pipeline, prompts, seed=1, **options)

    times = seconds_of(draw, device, repeats=repeats, num_warm=2)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    decoded = seconds_of(lambda: decode_images(pipeline, tokens), device, repeats=repeats)
    return Cost(
        batch_size=batch_size,
        seconds=median(times),
        decode_seconds=median(decoded),
        work=work,
        memory_gb=peak,
    )


def count_work(
    pipeline: Pipeline, prompts: list[str], **options: Any
) -> tuple[Work, list[ImageTokens]]:
    """Draw one picture a prompt and count what is run; give the pictures' tokens, too."""
    work, seen, counter = Work(), 0, EvaluationCounter()

    def count(_page: int, positions: int) -> None:
        nonlocal seen
        work.new.append(positions - seen)
        seen = positions

    # Recorded forwards are replayed and cannot be watched.
    head = getattr(pipeline.model.objective(pipeline.drawing.name), "denoiser", None)
    stop: Callable[[], None] = counter.watch(head) if head is not None else lambda: None
    texts = [[text] for text in prompts]
    with unrecorded():
        stories: Any = generate(
            pipeline, [""] * len(prompts), page_texts=texts, seed=1, progress=count, **options
        )
    stop()
    work.calls, work.rows = counter.num_calls, counter.num_rows
    return work, [story.tokens[-1] for story in stories]


def context_cost(
    pipeline: Pipeline, *, num_earlier: int, repeats: int = 1, **options: Any
) -> dict[str, float]:
    """Draw a picture behind others, which the trunk reads first.

    Args:
        pipeline: the model.
        num_earlier: pictures before it.
        repeats: drawings that are timed.
        options: of ``generate``.

    Returns:
        ``positions before``, the ``seconds`` to read them, and ``ms a step`` of the drawing.
    """
    device, spec = pipeline.device, pipeline.model.spec
    generator = torch.Generator().manual_seed(0)
    size = (spec.grid_size, spec.grid_size)
    earlier = [
        ImageTokens(codes=torch.randint(spec.codebook_size, size, generator=generator))
        for _ in range(num_earlier)
    ]
    stamps: list[float] = []
    positions: list[int] = []

    def follow(_page: int, seen: int) -> None:
        positions.append(seen)
        if len(positions) == 1:  # all that stands before the picture is read
            wait_for(device)
            stamps.append(time.perf_counter())

    def draw() -> tuple[float, float]:
        positions.clear()
        stamps[:] = [time.perf_counter()]
        told: dict[str, Any] = {"num_images": 1, "max_text_tokens": 0, "seed": 1}
        generate(pipeline, [[*earlier, PROMPT]], progress=follow, **told, **options)
        wait_for(device)
        return stamps[1] - stamps[0], (time.perf_counter() - stamps[1]) / (len(positions) - 1)

    draw()
    read, step = zip(*(draw() for _ in range(repeats)), strict=True)
    return {
        "positions before": positions[0],
        "seconds to read": float(f"{median(read):.4g}"),
        "ms a step": float(f"{1000 * median(step):.4g}"),
    }
