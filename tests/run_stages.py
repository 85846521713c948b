"""One run in every way that must change nothing: stages, ranks, accumulation, interruptions.

Started by torchrun: argv is the folder that ``tiny_run`` prepared and what to do there.
"""

import ctypes
import functools
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from corpora import tiny_data, tiny_run
from helpers import tiny_objective
from safetensors.torch import save_file

from unimm.checkpoint.folder import save_model
from unimm.distributed import barrier, is_main, rank, shutdown
from unimm.model import ModelConfig, UniMM
from unimm.nn.transformer import BackboneConfig
from unimm.training import loop
from unimm.training.config import EngineConfig, OptimizerConfig, TrainConfig
from unimm.training.engine import Engine, choose_device
from unimm.training.prepare import Parts, prepare

STEPS = 20
ROWS = 8  # of a step: micro-batches of 1 on two ranks accumulate 4, of 4 none
FROZEN = {"frozen": ("backbone.layers.0", "code_embedding")}
TRUNK = {"frozen": ("text_embedding", "code_embedding", "objectives")}  # only the trunk learns
# Name of a way to train on two ranks -> what differs from the single process.
WAYS: dict[str, dict[str, Any]] = {
    "zero_0": {"micro_rows": 4},
    "zero_1": {"micro_rows": 4, "zero_stage": 1, "checkpoint_activations": True},
    "zero_2": {"micro_rows": 1, "zero_stage": 2},
    "zero_3": {"micro_rows": 4, "zero_stage": 3},
    "offload": {"micro_rows": 4, "zero_stage": 2, "offload_optimizer": True},
    "compiled": {"micro_rows": 4, "zero_stage": 3, "compile": True},
}
# All combinations: stage (and offload), accumulation, checkpointing, frozen parts.
ALL_WAYS: dict[str, dict[str, Any]] = {
    f"{'frozen_' if frozen else ''}{stage}{'_offload' if offload else ''}_{rows}_{again}": {
        "micro_rows": rows,
        "zero_stage": stage,
        "offload_optimizer": offload,
        "checkpoint_activations": again,
        "optimizer": FROZEN if frozen else {},
    }
    for stage, offload in ((0, False), (1, False), (1, True), (2, False), (3, False), (3, True))
    for rows in (1, 4)
    for again in (False, True)
    for frozen in (False, True)
}
ALL_WAYS |= {
    f"{'trunk_' if trunk else ''}compiled_{stage}_{again}": {
        "micro_rows": 4,
        "zero_stage": stage,
        "compile": True,
        "checkpoint_activations": again,
        "optimizer": TRUNK if trunk else {},
    }
    for stage in (1, 2, 3)
    for again in (False, True)
    for trunk in (False, True)
}
ALL_WAYS["compiled_shared_rows"] = WAYS["compiled"] | {"sequence_ranks": 2}
GPU_WAYS: dict[str, dict[str, Any]] = {
    f"zero_{stage}": {"micro_rows": 4, "zero_stage": stage, "compile": True} for stage in (1, 2, 3)
}
# Runs that go on with two ranks, one and two: stage of each leg, and the step after which it ends.
LEGS = {"1": (1, 1, 1), "2": (2, 2, 2), "3": (3, 3, 3), "frozen": (3, 0, 1)}
ENDS = (4, 8, 0)
LEG_STEPS = 12


def run_config(
    folder: Path, name: str, *, max_steps: int = STEPS, micro_rows: int = 0, **way: Any
) -> TrainConfig:
    """The run. Several objectives, so that some rank has none of one's pictures in some step."""
    optimizer = dict(learning_rate=1e-3, ema_decay=0.9) | way.pop("optimizer", {})
    model = ModelConfig(
        backbone=BackboneConfig(dim=32, depth=2, num_heads=2, num_kv_heads=2, ffn_dim=48),
        objectives=tuple(map(tiny_objective, ("next_token", "next_scale", "masked", "diffusion"))),
    )
    return tiny_run(
        folder,
        model=model,
        data=tiny_data(folder, rows_per_step=ROWS, micro_rows=micro_rows, row_length=200),
        engine=EngineConfig(**({"device": "cpu"} | way)),
        optimizer=OptimizerConfig(**optimizer),
        run_dir=str(folder / name),
        max_steps=max_steps,
    )


def gpu_config(folder: Path, name: str, **way: Any) -> TrainConfig:
    """The same for GPUs, in sizes that their kernels take."""
    config = run_config(folder, name, device="cuda", **way)
    backbone = BackboneConfig(dim=64, depth=2, num_heads=2, num_kv_heads=2, ffn_dim=96)
    return replace(
        config,
        model=replace(config.model, backbone=backbone),
        data=replace(config.data, row_length=256),
    )


def run(config: TrainConfig, *, stop_after: int = 0, kill_rank: int | None = None) -> None:
    """Train; keep the averaged weights, and the documents that each step of this rank has seen.

    Args:
        config: of the run.
        stop_after: steps after which this process is told to stop, as job managers do.
        kill_rank: dies in its third step.
    """
    weights: dict[str, torch.Tensor] = {}
    seen: list[Any] = []
    forward, step = Engine.forward, Engine.step

    def noted_forward(self: Engine, batch: Any, **kwargs: Any) -> Any:
        seen.append(batch.document_indices)
        return forward(self, batch, **kwargs)

    def noted_step(self: Engine, **kwargs: Any) -> Any:
        number = kwargs["step"]
        with Path(config.run_dir, f"seen_{rank()}.jsonl").open("a") as file:
            file.write(json.dumps([number, seen]) + "\n")
        seen.clear()
        if number + 1 == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        if number == 2 and kill_rank == rank():
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, **kwargs)

    Engine.forward, Engine.step = noted_forward, noted_step
    try:
        loop.train(
            config, draw=lambda *_: None, save=lambda model, *_: weights.update(saved(model))
        )
    except SystemExit:
        assert stop_after
    finally:
        Engine.forward, Engine.step = forward, step
    if weights:
        save_file(weights, Path(config.run_dir, "weights.safetensors"))


def export(folder: Path) -> None:
    """Note how many copies of a wider model its export takes on the first rank, in ZeRO 2."""
    wide = BackboneConfig(dim=768, depth=3, num_heads=2, num_kv_heads=2, ffn_dim=2048)
    config = run_config(folder, "wide", micro_rows=4, zero_stage=2)
    config = replace(config, model=ModelConfig(backbone=wide))
    Path(config.run_dir).mkdir(exist_ok=True)
    device = choose_device("cpu")
    parts = prepare(config, micro_rows=4, device=device)
    engine = Engine(parts.model, config.engine, config.optimizer, device=device)

    def save(model: UniMM, parts: Parts, path: Path) -> None:
        save_model(path, model, parts.text_tokenizer, parts.image_tokenizer)
        own = sum(parameter.nbytes for parameter in model.parameters())
        copies = (resident("VmHWM") - before) / own
        Path(folder, "export.json").write_text(json.dumps({"copies": copies}))

    ctypes.CDLL("libc.so.6").malloc_trim(0)  # else it would use what was freed before
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    loop._finish(engine, parts, config, draw=lambda *_: None, save=save)


def resident(what: str) -> int:
    """Memory of this process in bytes: now (``VmRSS``) or at its peak (``VmHWM``)."""
    lines = dict(x.split(":") for x in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024


def saved(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its weights, those that are tied each for itself."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def run_leg(folder: Path, number: int) -> None:
    """Run one leg of every interrupted run."""
    for name, stages in LEGS.items():
        way: dict[str, Any] = {"zero_stage": stages[number], "micro_rows": (4, 0, 2)[number]}
        way["optimizer"] = FROZEN if name == "frozen" else {}
        config = run_config(folder, f"legs_{name}", max_steps=LEG_STEPS, **way)
        run(config, stop_after=ENDS[number])


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def main(folder: Path, task: str) -> None:
    if task == "gpu":
        for name, way in GPU_WAYS.items():
            run(gpu_config(folder, name, **way))
        shutdown()
        return
    torch.set_num_threads(1)
    # Layers are traced and cut as ever, but kernels for a CPU would take longer than all runs.
    torch.compile = functools.partial(torch.compile, backend="aot_eager_decomp_partition")
    for name, way in (ALL_WAYS if task == "all" else WAYS).items():
        torch.compiler.reset()
        run(run_config(folder, name, **way))
    if task != "all":
        export(folder)
        run_leg(folder, 0)
        barrier()
        if is_main():
            (folder / "first_leg").touch()
        wait_for(folder / "second_leg")
        run_leg(folder, 2)
        barrier()
        if is_main():
            (folder / "last_leg").touch()
        # Its loader's worker outlives it for a while.
        config = run_config(folder, "killed")
        run(replace(config, data=replace(config.data, num_workers=1)), kill_rank=1)
    shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
