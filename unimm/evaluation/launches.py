"""What the processor hands to a GPU while pictures are drawn: kernels, launches, busy time."""

from collections.abc import Iterable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from unimm.evaluation.ceilings import wait_for
from unimm.evaluation.drawing_cost import PROMPT
from unimm.generation.image import generate_image
from unimm.pipeline import Pipeline

_WINDOW = 16  # steps that are recorded of long drawings
_LAUNCHES = ("LaunchKernel", "GraphLaunch", "MemcpyAsync", "MemsetAsync")


def count_launches(
    pipeline: Pipeline, *, batch_size: int, trunk_steps: int, **options: Any
) -> dict[str, float]:
    """Record some steps of a drawing with torch's profiler.

    Args:
        pipeline: the model, on a GPU; it draws twice before, to record.
        batch_size: pictures drawn at once.
        trunk_steps: in a drawing.
        options: of ``generate_image``.

    Returns:
        A step's ``kernels``, ``launches`` by the processor, fewer where graphs are replayed, and
        ``busy ms`` of the GPU; drawings of few steps are recorded whole, their denoiser and
        decoder included. Nothing on a CPU.
    """
    device = pipeline.device
    if device.type != "cuda":
        return {}
    is_long = trunk_steps > 2 * _WINDOW
    first = trunk_steps // 2 if is_long else 0
    recorder = profile(activities=[ProfilerActivity.CUDA])
    seen, is_running = 0, False

    def follow(*_: object) -> None:
        nonlocal seen, is_running
        seen += 1
        if seen in (first, first + _WINDOW) and is_long:
            wait_for(device)
            is_running = seen == first
            recorder.start() if is_running else recorder.stop()

    prompts = [PROMPT] * batch_size
    for _ in range(2):
        generate_image(pipeline, prompts, seed=1, **options)
    if not is_long:
        recorder.start()
    generate_image(pipeline, prompts, seed=1, progress=follow, **options)
    if not is_long:
        wait_for(device)
        recorder.stop()
    steps = _WINDOW if is_long else trunk_steps
    return _summary(recorder.events() or (), steps)


def _summary(events: Iterable[Any], steps: int) -> dict[str, float]:
    kernels, launches, busy = 0, 0, 0.0
    for event in events:
        if str(event.device_type).endswith("CUDA"):
            kernels += 1
            busy += event.time_range.elapsed_us() / 1000
        else:
            launches += any(name in event.name for name in _LAUNCHES)
    return {
        "kernels a step": round(kernels / steps, 1),
        "launches a step": round(launches / steps, 1),
        "busy ms a step": round(busy / steps, 4),
    }
