"""Checkpoints to resume from: written beside, synced, then renamed, so none is ever half there."""

import json
import os
import shutil
import signal
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from unimm.config import config_to_dict, read_yaml, save_config
from unimm.distributed import barrier, is_main
from unimm.objectives import OBJECTIVES
from unimm.objectives.base import ObjectiveConfig
from unimm.training.config import TrainConfig
from unimm.training.engine import Engine

CHOICES = {ObjectiveConfig: OBJECTIVES}
CONFIG_FILE = "config.yaml"
_STATE_FILE = "state.json"
# What may change between two starts of one run.
_FREE = (
    *("logging", "guard", "run_dir", "max_minutes", "data.num_workers", "data.micro_rows"),
    *("engine.compile", "engine.zero_stage", "engine.offload_optimizer", "engine.device"),
    *("engine.checkpoint_activations", "engine.sequence_ranks"),
)


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run stands, beside the engine's state.

    Attributes:
        step: optimizer steps done; the loader needs nothing else.
        seconds: spent so far.
        warm_seconds: of them, in the first steps of processes.
        num_ranks: processes that wrote the checkpoint, for whoever looks at it.
        flops: floating-point operations of all ranks.
        images: pictures drawn in training by all ranks.
        guard: of the steps that were skipped.
    """

    step: int = 0
    seconds: float = 0.0
    warm_seconds: float = 0.0
    num_ranks: int = 1
    flops: float = 0.0
    images: int = 0
    guard: dict[str, float] = field(default_factory=dict[str, float])


def start_run(config: TrainConfig) -> None:
    """Make the run's folder and write its config, or check that it is the same run.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    run_dir = Path(config.run_dir)
    path = run_dir / CONFIG_FILE
    if path.is_file():
        old, new = _flat(read_yaml(path)), _flat(config_to_dict(config, choices=CHOICES))
        changed = [
            f"{key}: {old.get(key)} there, {new.get(key)} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not key.startswith(_FREE)
        ]
        if changed:
            raise ValueError(
                f"{run_dir} holds a run with other settings ({'; '.join(changed)}): give another "
                "run_dir, or delete that one"
            )
    barrier()
    if is_main():
        run_dir.mkdir(parents=True, exist_ok=True)
        save_config(config, path, choices=CHOICES)
    barrier()


def save_checkpoint(engine: Engine, state: RunState, *, run_dir: Path, keep: int) -> Path:
    """Write a checkpoint, whole or not at all, and delete the oldest; every rank must call it.

    Args:
        engine: weights, optimizer, average.
        state: where the run stands.
        run_dir: of the run.
        keep: how many to keep.
    """
    folder = _folder(run_dir)
    partial, path = folder / ".partial", folder / f"step_{state.step:08d}"
    if is_main():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    barrier()
    engine.save(partial)
    barrier()
    if is_main():
        (partial / _STATE_FILE).write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
        _sync(partial)
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        _sync_entry(folder)
        for old in _checkpoints(run_dir)[:-keep]:
            shutil.rmtree(old)
    barrier()
    return path


def load_checkpoint(engine: Engine, *, run_dir: Path) -> RunState:
    """Go on from the last checkpoint, if there is one; every rank must call it.

    The number of processes and the ZeRO stage may be others than those that wrote it.

    Raises:
        ValueError: it does not fit the model, or is damaged.
    """
    found = _checkpoints(run_dir)
    if not found:
        return RunState()
    path = found[-1]
    state = RunState(**json.loads((path / _STATE_FILE).read_text(encoding="utf-8")))
    engine.load(path)
    return state


class StopSignal:
    """Remembers a SIGTERM, so that the loop can save before it ends."""

    def __init__(self) -> None:
        self.is_set = False

    def __enter__(self) -> "StopSignal":
        # Only the main thread may take signals; elsewhere the run simply cannot be stopped so.
        self._is_active = threading.current_thread() is threading.main_thread()
        if self._is_active:
            self._old = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_active:
            signal.signal(signal.SIGTERM, self._old)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True


def _folder(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def _checkpoints(run_dir: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(_folder(run_dir).glob("step_*"))


def _sync(folder: Path) -> None:
    """Force every file below a folder to disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_entry(folder)


def _sync_entry(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flat(values: object, path: str = "") -> dict[str, object]:
    """Nested dicts as ``a.b.c`` -> value."""
    if not isinstance(values, dict):
        return {path: values}
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{path}.{key}" if path else str(key))
    return flat
