"""Skips steps whose loss is no number or leaps, and ends a run that skips too many in a row.

All ranks judge the sum of their losses, so they agree; the judgement stays on the device, and the
host looks at it when a line of the log is due.
"""

import json
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unimm.distributed import all_reduce_sum, is_main, rank
from unimm.document import Batch, ImageTokens, Slots
from unimm.training.config import GuardConfig

logger = logging.getLogger(__name__)

_WARM_STEPS = 50  # before them the running mean says little
_MEMORY = 100  # steps that the running mean looks back


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What is kept of a step until the next look: batches on the host, the rest on the device."""

    number: int
    batches: list[Batch]
    loss: Tensor
    is_skipped: Tensor


class StepGuard:
    """Judges every step before the weights move.

    Args:
        config: when to skip and when to stop.
        run_dir: where the batches of the last skipped step are saved.
        device: of the losses.
        state: ``state()`` of the run that goes on.

    Attributes:
        num_skipped: steps of the whole run, up to the last ``check``.
    """

    def __init__(
        self,
        config: GuardConfig,
        *,
        run_dir: Path,
        device: torch.device,
        state: dict[str, float] | None = None,
    ) -> None:
        start = {"mean": 0.0, "steps": 0.0, "in_a_row": 0.0, "skipped": 0.0} | (state or {})
        self._config, self._run_dir = config, run_dir
        self._mean = torch.tensor(start["mean"], device=device)
        self._steps = torch.tensor(start["steps"], device=device)
        self._in_a_row, self.num_skipped = int(start["in_a_row"]), int(start["skipped"])
        self._batches: list[Batch] = []
        self._losses: list[Tensor] = []
        self._kept: list[_Step] = []

    def add(self, batch: Batch, total: Tensor) -> None:
        """Take a micro-batch (its copy on the host) and its scalar share of the step's loss."""
        self._batches.append(batch)
        self._losses.append(total.detach().float())

    def judge(self) -> Tensor:
        """Say whether the step must be skipped, after its backwards; every rank must call it.

        Returns:
            Scalar float32, 1 to skip, the same on all ranks.
        """
        self._loss = all_reduce_sum(torch.stack(self._losses).sum())
        is_bad = ~self._loss.isfinite()
        if self._config.spike_ratio:
            is_leap = self._loss > self._config.spike_ratio * self._mean
            is_bad = is_bad | (is_leap & (self._steps >= _WARM_STEPS))
        return is_bad.float()

    def close_step(self, step: int, is_skipped: Tensor) -> None:
        """Note what became of the step: the engine also skips gradients that are no numbers."""
        kept = _Step(
            number=step, batches=self._batches, loss=self._loss, is_skipped=is_skipped.clone()
        )
        self._kept.append(kept)
        self._batches, self._losses = [], []
        share = 1.0 / (self._steps + 1).clamp(max=_MEMORY)
        moved = self._mean + share * (self._loss - self._mean)
        self._mean = torch.where(is_skipped > 0, self._mean, moved)
        self._steps = self._steps + (1 - is_skipped)

    def check(self) -> None:
        """Look at the steps since the last check; waits for the device.

        Raises:
            RuntimeError: too many were skipped in a row; the last one's batches were saved.
        """
        kept, self._kept = self._kept, []
        if not kept:
            return
        found = torch.stack([torch.stack([x.is_skipped, x.loss]) for x in kept]).tolist()
        for step, (is_skipped, loss) in zip(kept, found, strict=True):
            if not is_skipped:
                self._in_a_row = 0
                continue
            self.num_skipped += 1
            self._in_a_row += 1
            if is_main():
                logger.warning("step %d was skipped: its loss is %g", step.number, loss)
            if self._in_a_row >= self._config.max_skipped:
                paths = self._save(step, loss)
                raise RuntimeError(
                    f"{self._in_a_row} steps in a row were skipped, the last one, {step.number}, "
                    f"with loss {loss:g}; its batch was saved to {', '.join(map(str, paths))}. "
                    "Lower optimizer.learning_rate, or look at the documents named beside it"
                )

    def state(self) -> dict[str, float]:
        """What a resumed run needs, after ``check``."""
        return {
            "mean": float(self._mean),
            "steps": float(self._steps),
            "in_a_row": self._in_a_row,
            "skipped": self.num_skipped,
        }

    def _save(self, step: _Step, loss: float) -> list[Path]:
        paths: list[Path] = []
        for number, batch in enumerate(step.batches):
            name = f"bad_step_{step.number}_rank_{rank()}_batch_{number}"
            paths.append(self._run_dir / f"{name}.safetensors")
            save_batch(batch, paths[-1])
            documents = {"step": step.number, "loss": str(loss), "rank": rank()}
            documents["document_indices"] = batch.document_indices
            paths[-1].with_suffix(".json").write_text(json.dumps(documents, indent=1) + "\n")
        return paths


def save_batch(batch: Batch, path: Path) -> None:
    """Write a batch, so that ``load_batch`` gives it back: tensors, and the rest as metadata."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    plain: dict[str, Any] = {
        name: value
        for name, value in vars(batch).items()
        if name not in tensors and name != "slots"
    }
    plain["seeds"] = {head: slots.seeds for head, slots in batch.slots.items()}
    for head, slots in batch.slots.items():
        tensors |= {f"{head}.index": slots.index, f"{head}.image_ids": slots.image_ids}
        if slots.tokens is not None:
            tensors |= _token_tensors(head, slots.tokens)
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"batch": json.dumps(plain)},
    )


def load_batch(path: Path) -> Batch:
    """Read what ``save_batch`` wrote, on the CPU, to run a step again and look into it."""
    with safe_open(path, "pt") as file:
        plain = json.loads(file.metadata()["batch"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    seeds = plain.pop("seeds")
    slots = {
        head: Slots(
            index=tensors[f"{head}.index"],
            image_ids=tensors[f"{head}.image_ids"],
            tokens=_read_tokens(head, tensors),
            seeds=tuple(seeds[head]),
        )
        for head in seeds
    }
    plain["heads"] = tuple(plain["heads"])
    plain["document_indices"] = tuple(map(tuple, plain["document_indices"]))
    own = {field.name for field in fields(Batch)} & tensors.keys()
    return Batch(slots=slots, **{name: tensors[name] for name in own}, **plain)


def _token_tensors(head: str, tokens: ImageTokens) -> dict[str, Tensor]:
    named = {"codes": tokens.codes, "latents": tokens.latents}
    named |= {f"scale_codes.{k}": codes for k, codes in enumerate(tokens.scale_codes)}
    return {f"{head}.{name}": x for name, x in named.items() if x is not None}


def _read_tokens(head: str, tensors: dict[str, Tensor]) -> ImageTokens | None:
    scales = [tensors[name] for k in range(99) if (name := f"{head}.scale_codes.{k}") in tensors]
    tokens = ImageTokens(
        codes=tensors.get(f"{head}.codes"),
        scale_codes=tuple(scales),
        latents=tensors.get(f"{head}.latents"),
    )
    return tokens if tokens.has_codes or tokens.latents is not None else None
