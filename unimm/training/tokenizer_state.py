"""All that an image tokenizer's training changes: weights, averages, optimizers, progress.

One object, saved whole and atomically as one safetensors file, so that a killed run goes on.
"""

import copy
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.losses import PatchDiscriminator
from unimm.training.schedule import Clock


@dataclass(kw_only=True)
class TokenizerState:
    """What has to survive a restart.

    Attributes:
        tokenizer: the weights that are trained.
        average: their moving average, used to evaluate and to keep.
        optimizer: of the tokenizer.
        discriminator: with its optimizer; both None without an adversarial loss.
        generator: on the CPU; picks the latents that dead codes move to.
        step: optimizer steps done.
        clock: how far the training is.
    """

    tokenizer: ImageTokenizer
    average: ImageTokenizer
    optimizer: torch.optim.Optimizer
    discriminator: PatchDiscriminator | None = None
    discriminator_optimizer: torch.optim.Optimizer | None = None
    generator: torch.Generator
    step: int = 0
    clock: Clock = field(default_factory=lambda: Clock(max_steps=1))


def copy_for_average(tokenizer: ImageTokenizer) -> ImageTokenizer:
    """Copy a tokenizer to hold its moving average."""
    return copy.deepcopy(tokenizer).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, *, decay: float, step: int) -> None:
    """Move an average towards the present weights and buffers, faster in the first steps."""
    weight = 1.0 - min(decay, (1 + step) / (10 + step))
    old, new = average.state_dict(), module.state_dict()
    moving = [name for name, tensor in old.items() if tensor.is_floating_point()]
    foreach_lerp: Any = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
    foreach_lerp([old[n] for n in moving], [new[n] for n in moving], weight)
    for name in old.keys() - set(moving):
        old[name].copy_(new[name])


def save_state(state: TokenizerState, path: Path) -> None:
    """Write everything; a reader sees the old file or the new one, never half of one."""
    tensors: dict[str, Tensor] = {"generator": state.generator.get_state()}
    for prefix, module in _modules(state).items():
        tensors |= {f"{prefix}.{name}": t for name, t in module.state_dict().items()}
    for prefix, optimizer in _optimizers(state).items():
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {
                f"{prefix}.{index}.{key}": torch.as_tensor(value) for key, value in values.items()
            }
    progress = {
        "step": state.step,
        "seconds": state.clock.elapsed(),
        "warm_seconds": state.clock.warm_seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # Clones: safetensors refuses tensors that share memory.
    kept = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    save_file(kept, partial, metadata={"progress": json.dumps(progress)})
    os.replace(partial, path)


def load_state(state: TokenizerState, path: Path) -> None:
    """Read what ``save_state`` wrote into a state made from the same configuration.

    Raises:
        ValueError: if the file belongs to another configuration.
    """
    with safe_open(path, framework="pt") as file:
        progress = json.loads((file.metadata() or {})["progress"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state.generator.set_state(tensors["generator"])
    try:
        for prefix, module in _modules(state).items():
            module.load_state_dict(_below(tensors, prefix))
    except RuntimeError as error:
        raise ValueError(
            f"{path} was written by another configuration; use another run_dir: {error}"
        ) from error
    for prefix, optimizer in _optimizers(state).items():
        values: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(tensors, prefix).items():
            index, key = name.split(".")
            values.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
    state.step = progress["step"]
    state.clock.seconds = progress["seconds"]
    state.clock.warm_seconds = progress["warm_seconds"]


def _modules(state: TokenizerState) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {"tokenizer": state.tokenizer, "average": state.average}
    if state.discriminator is not None:
        modules["discriminator"] = state.discriminator
    return modules


def _optimizers(state: TokenizerState) -> dict[str, torch.optim.Optimizer]:
    optimizers = {"optimizer": state.optimizer}
    if state.discriminator_optimizer is not None:
        optimizers["discriminator_optimizer"] = state.discriminator_optimizer
    return optimizers


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
