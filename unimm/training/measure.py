"""Measures what the planner estimates: the peak memory of real steps under DeepSpeed."""

import gc

import torch

from unimm.training.config import EngineConfig
from unimm.training.engine import Engine
from unimm.training.footprint import LiveBytes
from unimm.training.planner import Planner

_NUM_STEPS = 3  # the optimizer's moments come with the first


def measure_peak(
    planner: Planner, config: EngineConfig, *, micro_rows: int, device: torch.device
) -> int:
    """Build the planned model, step it, and give the most bytes that this rank held.

    Every rank must call it. On a GPU the allocator counts, on a CPU all tensors are.

    Args:
        planner: of the run.
        config: how a step is computed.
        micro_rows: rows of a forward.
        device: of ``choose_device``.
    """
    is_cuda, before = device.type == "cuda", 0
    if is_cuda:
        gc.collect()  # an engine before this one
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)  # DeepSpeed keeps parts of earlier engines
    model = planner.make_model()
    planner.bind(model)
    batch = planner.batch(micro_rows).to(device)
    live, own = LiveBytes(), sum(p.nbytes for p in model.parameters())
    for parameter in model.parameters():
        live.ignore(parameter)

    def steps() -> None:
        engine = Engine(model, config, planner.config.optimizer, device=device)
        live.peak = live.now  # building it on a CPU takes what a GPU does not see
        for step in range(_NUM_STEPS):
            losses = engine.forward(batch)
            engine.backward(losses.total)
            del losses
            engine.step(learning_rate=1e-4, step=step)

    if is_cuda:
        steps()
        return torch.cuda.max_memory_allocated(device) - before
    with live:
        steps()
    # In ZeRO 1 to 3 the engine moves the weights into buffers of its own.
    return max(live.peak + (own if config.zero_stage == 0 else 0), own)
