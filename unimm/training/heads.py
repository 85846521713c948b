"""Compare denoiser heads on the hidden states of one frozen trunk, at equal budget.

The trunk runs once over every picture; what it says is kept, and each head learns from that alone.
Legend: ``M`` pictures, ``n`` patches, ``D`` width of the trunk, ``C h w`` latents.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unimm.data.corpus import Corpus
from unimm.data.loader import Packing, RowStream, TrainBatches
from unimm.diffusion.times import TimeConfig, sample_times
from unimm.document import Batch
from unimm.nn.denoiser import Denoiser, DenoiserConfig
from unimm.objectives.diffusion import Diffusion, velocity_error
from unimm.objectives.latents import latents_of
from unimm.pipeline import Pipeline
from unimm.training.schedule import learning_rate_factor

_EVALUATED_AT_ONCE = 256
_DRAWS_EVALUATED = 8  # noisy versions of a held-out picture, the same for every head


@dataclass(frozen=True, kw_only=True)
class HeadBudget:
    """What every head may spend.

    Attributes:
        num_steps: of AdamW.
        batch_size: pictures of a step.
        num_draws: noisy versions of a picture in a step.
        learning_rate: at its height; a cosine to nothing follows a short warm-up.
        weight_decay: of matrices.
        times: density of training times.
        seed: of weights, order and noise.
    """

    num_steps: int = 4000
    batch_size: int = 256
    num_draws: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    times: TimeConfig = field(default_factory=TimeConfig)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class States:
    """Pictures as a head sees them.

    Attributes:
        told: ``(M, n, D)`` hidden states of the trunk, half precision.
        latents: ``(M, C, h, w)`` standardised.
    """

    told: Tensor
    latents: Tensor

    @property
    def patch_size(self) -> int:
        """Side of the patches that the trunk's queries stand for."""
        return math.isqrt(self.latents[0, 0].numel() // self.told.shape[1])


def diffusion_batches(
    pipeline: Pipeline, corpus: Corpus, *, row_length: int, micro_rows: int = 8, seed: int = 0
) -> TrainBatches:
    """Rows of documents that are all drawn by diffusion, whatever else the model was trained with.

    The other objectives are named, as a model asks of its batches, and have no pictures.

    Args:
        pipeline: a model with the ``diffusion`` objective.
        corpus: the documents, with latents.
        row_length: positions of a row.
        micro_rows: rows of a batch.
        seed: of their order.
    """
    config = pipeline.model.config
    packing = Packing(
        row_length=row_length,
        special=pipeline.model.special,
        objectives={x.name: x for x in config.objectives},
        weights={head: float(head == "diffusion") for head in config.heads},
        seed=seed,
    )
    return TrainBatches(RowStream(corpus, packing), micro_rows=micro_rows)


@torch.no_grad()
def cache_states(pipeline: Pipeline, batches: Iterable[Batch], *, count: int) -> States:
    """Run the frozen trunk over pictures to draw, and keep what its queries say.

    Args:
        pipeline: a model with the ``diffusion`` objective.
        batches: laid out for it, with latents.
        count: pictures.

    Raises:
        ValueError: if there are fewer pictures.
    """
    model, device = pipeline.model, pipeline.device
    objective = model.objective("diffusion")
    assert isinstance(objective, Diffusion)
    told: list[Tensor] = []
    latents: list[Tensor] = []
    found = 0
    is_gpu = device.type == "cuda"
    for batch in batches:
        batch = batch.to(device)
        slots = batch.slots["diffusion"]
        if slots.tokens is None:
            continue
        with torch.autocast("cuda", torch.bfloat16) if is_gpu else nullcontext():
            hidden, _, _ = model.run_trunk(batch)  # (B L, D)
        x0 = objective.space.standardise(latents_of(slots.tokens))
        told.append(hidden[slots.index].view(len(x0), -1, hidden.shape[-1]).half().cpu())
        latents.append(x0.half().cpu())
        found += len(x0)
        if found >= count:
            return States(told=torch.cat(told)[:count], latents=torch.cat(latents)[:count])
    raise ValueError(f"only {found} pictures of {count}: encode more documents, or ask for fewer")


def save_states(states: Mapping[str, States], path: Path) -> None:
    """Write the states of named sets to one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": tensor.contiguous()
        for name, found in states.items()
        for key, tensor in vars(found).items()
    }
    save_file(tensors, path)


def load_states(path: Path, name: str, device: torch.device) -> States:
    """Read the states of one set onto a device."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        told, latents = (file.get_tensor(f"{name}.{key}") for key in ("told", "latents"))
    return States(told=told, latents=latents)


def train_head(
    path: Path, config: DenoiserConfig, budget: HeadBudget, device: torch.device
) -> dict[str, float]:
    """Train one head and measure it on held-out pictures.

    Args:
        path: of the states, sets ``train`` and ``validation``.
        config: of the head; its patches are those of the trunk's queries, whatever it says.
        budget: the same for all.
        device: where it trains.

    Returns:
        ``parameters``, ``loss`` (squared error of the velocity), ``standard_error`` over pictures,
        ``seconds`` of training.
    """
    states = load_states(path, "train", device)
    generator = torch.Generator(device).manual_seed(budget.seed)
    torch.manual_seed(budget.seed)  # of this head's own process
    denoiser = Denoiser(
        replace(config, patch_size=states.patch_size),
        latent_dim=states.latents.shape[1],
        context_dim=states.told.shape[-1],
    ).to(device)
    if device.type == "cuda":  # eager, a step waits for the launches of its many small kernels
        for block in denoiser.blocks:
            block.compile()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in denoiser.parameters() if p.ndim >= 2]},
            {"params": [p for p in denoiser.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        weight_decay=budget.weight_decay,
        fused=device.type == "cuda",
    )
    started = time.monotonic()
    for step in range(budget.num_steps):
        rows = torch.randint(
            len(states.latents), (budget.batch_size,), generator=generator, device=device
        ).repeat(budget.num_draws)
        loss = _error(denoiser, states, rows, budget.times, generator).mean()
        rate = budget.learning_rate * learning_rate_factor(
            (step + 1) / budget.num_steps, warmup=0.03, hold=0.03, final=0.01
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.monotonic() - started
    return {
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        **_measure(denoiser, load_states(path, "validation", device), budget.times),
        "seconds": round(seconds, 1),
    }


def compare_heads(
    path: Path,
    heads: Mapping[str, DenoiserConfig],
    budget: HeadBudget,
    *,
    device: torch.device,
    num_processes: int,
) -> dict[str, dict[str, float]]:
    """Train heads side by side, each in a process of its own.

    What a head reached is kept beside the states as soon as it is known; a comparison that was
    broken off goes on with the heads that are missing.

    Args:
        path: of the states.
        heads: name -> head.
        budget: the same for all.
        device: shared by all.
        num_processes: heads at once; 0 trains one after the other in this process.

    Returns:
        Name -> what ``train_head`` measured, in the order of ``heads``.
    """
    found = {name: _kept(path, name, head, budget) for name, head in heads.items()}
    missing = {name: head for name, head in heads.items() if found[name] is None}
    trained = _train_all(path, missing, budget, device, num_processes)
    for name, figures in track(trained, "Training heads", total=len(missing)):
        found[name] = figures
        entry = {"settings": _settings(heads[name], budget), "figures": figures}
        (path.parent / f"{name}.json").write_text(json.dumps(entry), encoding="utf-8")
    return {name: figures for name, figures in found.items() if figures is not None}


def _train_all(
    path: Path,
    heads: Mapping[str, DenoiserConfig],
    budget: HeadBudget,
    device: torch.device,
    num_processes: int,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Names and figures of heads, each as soon as it is trained."""
    if num_processes == 0:
        for name, head in heads.items():
            yield name, train_head(path, head, budget, device)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(
        num_processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        jobs = {pool.submit(train_head, path, x, budget, device): name for name, x in heads.items()}
        for job in as_completed(jobs):
            yield jobs[job], job.result()


def _settings(head: DenoiserConfig, budget: HeadBudget) -> dict[str, Any]:
    return {"head": asdict(head), "budget": asdict(budget)}


def _kept(
    path: Path, name: str, head: DenoiserConfig, budget: HeadBudget
) -> dict[str, float] | None:
    """What a head of these settings reached in an earlier call, on the same states."""
    file = path.parent / f"{name}.json"
    if not file.is_file() or file.stat().st_mtime < path.stat().st_mtime:
        return None
    entry = json.loads(file.read_text(encoding="utf-8"))
    return entry["figures"] if entry["settings"] == _settings(head, budget) else None


def _error(
    denoiser: Denoiser, states: States, rows: Tensor, times: TimeConfig, generator: torch.Generator
) -> Tensor:
    """Errors ``(len(rows), n)`` at stratified times with fresh noise."""
    device, count = rows.device, len(rows)
    x0 = states.latents[rows].float()
    uniform = torch.rand(count, generator=generator, device=device)
    t = sample_times((torch.arange(count, device=device) + uniform) / count, times)
    noise = torch.randn(x0.shape, generator=generator, device=device)
    is_gpu = device.type == "cuda"
    with torch.autocast("cuda", torch.bfloat16) if is_gpu else nullcontext():
        return velocity_error(denoiser, x0, noise, t, states.told[rows].float())


@torch.no_grad()
def _measure(denoiser: Denoiser, states: States, times: TimeConfig) -> dict[str, float]:
    """Mean error over held-out pictures, at noise that is the same for every head."""
    device = states.latents.device
    generator = torch.Generator(device).manual_seed(1)
    means: list[Tensor] = []
    for start in range(0, len(states.latents), _EVALUATED_AT_ONCE):
        rows = torch.arange(start, min(start + _EVALUATED_AT_ONCE, len(states.latents)))
        rows = rows.to(device)
        draws = [
            _error(denoiser, states, rows, times, generator).mean(1)
            for _ in range(_DRAWS_EVALUATED)
        ]
        means.append(torch.stack(draws).mean(0))
    pictures = torch.cat(means).double()
    return {
        "loss": float(pictures.mean()),
        "standard_error": float(pictures.std() / len(pictures) ** 0.5),
    }
