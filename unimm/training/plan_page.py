"""The planner's answer in words: a table of stages, the run's own line, what would make it fit."""

import itertools

from unimm.training.planner import Cluster, Memory, Planner, fits, with_stage
from unimm.training.shared_step import cut_step

_COLUMNS = ("parameters", "optimizer", "average", "gradients", "activations", "buffers", "total")
_GB = 1e9
_MOST_WAYS = 4


def describe_plan(planner: Planner, cluster: Cluster) -> str:
    """Write the plan of a run.

    Raises:
        ValueError: the rows of a step cannot be shared by so many GPUs.
    """
    config = planner.config
    micro_rows, num_micro = _cut(planner, cluster)
    own = config.engine
    lines = [
        f"{planner.num_parameters / 1e6:,.1f}M parameters, {cluster.num_gpus} GPUs of "
        f"{cluster.gpu_bytes / _GB:.0f} GB, precision {own.precision}, "
        f"{num_micro} x {micro_rows} rows of {config.data.row_length} positions a step and GPU",
        "",
        "GB on one GPU at its worst moment; > marks this run",
        f"  {'zero_stage':>10}  {'recomputed':>10}  "
        + "  ".join(f"{name:>11}" for name in (*_COLUMNS, "moment")),
    ]
    found: Memory | None = None
    for recompute, stage in itertools.product((False, True), range(4)):
        engine = with_stage(own, stage, checkpoint_activations=recompute)
        if engine is None:
            continue
        memory = planner.memory(
            engine, num_gpus=cluster.num_gpus, micro_rows=micro_rows, num_micro=num_micro
        )
        found = memory if engine == own else found
        lines.append(_row(memory, stage, recompute, cluster, is_own=engine == own))
    assert found is not None
    lines += ["", *_verdict(planner, cluster, found, micro_rows), "", *_speed(planner, cluster)]
    return "\n".join(lines)


def _cut(planner: Planner, cluster: Cluster) -> tuple[int, int]:
    """Rows of a micro-batch, and micro-batches of a step."""
    shares = cluster.num_gpus // planner.config.engine.sequence_ranks
    return cut_step(planner.config, num_ranks=shares)


def _row(memory: Memory, stage: int, is_recomputed: bool, cluster: Cluster, *, is_own: bool) -> str:
    sizes = "  ".join(f"{getattr(memory, name) / _GB:11.2f}" for name in _COLUMNS)
    word = "fits" if fits(memory, cluster) else "does not fit"
    mark, recomputed = ">" if is_own else " ", "yes" if is_recomputed else "no"
    return f"{mark} {stage:>10}  {recomputed:>10}  {sizes}  {memory.moment:>11}  {word}"


def _verdict(planner: Planner, cluster: Cluster, memory: Memory, micro_rows: int) -> list[str]:
    if fits(memory, cluster):
        return ["This run fits."]
    part = max(_COLUMNS[:-1], key=lambda name: getattr(memory, name))
    lines = [
        f"This run does not fit: {memory.total / _GB:.1f} GB of {cluster.gpu_bytes / _GB:.0f}; "
        f"most of it are {part}, {getattr(memory, part) / _GB:.1f} GB. It would fit with"
    ]
    ways = list(itertools.islice(planner.ways_to_fit(cluster, micro_rows=micro_rows), _MOST_WAYS))
    lines += [f"  {words}: {found.total / _GB:.1f} GB" for words, found in ways]
    if not ways:
        lines.append("  shared rows (engine.sequence_ranks), shorter rows or a smaller model only")
    return lines


def _speed(planner: Planner, cluster: Cluster) -> list[str]:
    config = planner.config
    micro_rows, _ = _cut(planner, cluster)
    speed = planner.speed(config.engine, cluster, micro_rows=micro_rows)
    lines = [
        f"At {cluster.mfu:.0%} of {cluster.peak_flops / 1e12:.0f} TFLOP/s and "
        f"{cluster.bandwidth / _GB:.0f} GB/s (both assumed): {speed.tokens_per_second:,.0f} "
        f"positions/s, {speed.step_seconds:.3g} s a step, {speed.days:.3g} days for "
        f"{config.max_steps:,} steps."
    ]
    if speed.communication > 0.2:
        lines.append(
            f"{speed.communication:.0%} of a step is sending, if nothing overlaps: more rows a "
            "step (data.rows_per_step, data.micro_rows) or fewer GPUs would help."
        )
    return lines
