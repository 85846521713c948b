"""What DeepSpeed 0.19 keeps on one GPU in each ZeRO stage, beside what a step itself needs."""

from dataclasses import dataclass, replace

from unimm.training.config import EngineConfig
from unimm.training.engine import MAX_LIVE_PARAMETERS, REDUCE_BUCKET_SIZE
from unimm.training.footprint import StepBytes

SINGLE, HALF = 4, 2  # bytes of a number


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one GPU at the worst moment of a step.

    Attributes:
        parameters: weights that the forward reads; in ZeRO 3 this rank's share.
        optimizer: float32 weights and AdamW's two moments.
        average: moving average of the weights.
        gradients: whole or sharded.
        activations: kept for the backward, and temporary.
        buffers: gradients on their way to other ranks, and gathered weights of ZeRO 3.
        moment: when that is: while the run starts, in the backward, or in the optimizer's update.
    """

    parameters: float
    optimizer: float
    average: float
    gradients: float
    activations: float
    buffers: float
    moment: str = "backward"

    @property
    def total(self) -> float:
        """All of them."""
        return sum(value for value in vars(self).values() if isinstance(value, float))


def _states(num: int, engine: EngineConfig, num_gpus: int) -> Memory:
    """What lies in memory between two steps, in DeepSpeed 0.19."""
    width = HALF if engine.precision == "bfloat16" else SINGLE
    stage = engine.zero_stage
    share = num if stage == 0 else num / num_gpus
    is_away = engine.offload_optimizer  # in the host's memory
    return Memory(
        parameters=float(width * (share if stage == 3 else num)),
        # Beside float32 weights too, ZeRO keeps a float32 copy of its share.
        optimizer=0.0 if is_away else float((2 + (stage > 0)) * SINGLE * share),
        average=0.0 if is_away else float(SINGLE * share),
        gradients=float(width * share) if stage == 3 else 0.0,
        activations=0.0,
        buffers=0.0,
    )


def estimate_memory(
    num: int, engine: EngineConfig, step: StepBytes, *, num_gpus: int, num_micro: int
) -> Memory:
    """Estimate one rank's worst moment.

    Args:
        num: trained weights of the model.
        engine: stage and precision.
        step: peaks of one micro-step.
        num_gpus: ranks.
        num_micro: micro-steps of a step.
    """
    width = HALF if engine.precision == "bfloat16" else SINGLE
    stage, states = engine.zero_stage, _states(num, engine, num_gpus)
    whole, share = width * num, width * num / num_gpus
    # Autocast reduces in both formats, each with a bucket of its own.
    bucket = REDUCE_BUCKET_SIZE * (width + (HALF if engine.precision == "autocast" else 0))
    bare = step.without_gradients
    # Gradients grow while activations go: at the worst moment not all of both are there.
    growing = step.with_gradients - bare if num_micro == 1 else whole
    gradients = {0: growing, 1: growing, 2: growing / num_gpus, 3: 0.0}[stage]
    # In ZeRO 1 and 2 a second one fills while a GPU sends the first.
    several = 1 if engine.device == "cpu" else 2
    buffers = {0: 0, 1: several, 2: several, 3: 1}[stage] * bucket
    if stage == 3 and num_gpus > 1:
        buffers += width * min(num, MAX_LIVE_PARAMETERS)
    backward = replace(
        states,
        gradients=states.gradients + gradients,
        activations=float(bare),
        buffers=float(buffers),
    )
    extra = {  # gradients as the optimizer reads them
        0: whole + (min(whole, SINGLE * REDUCE_BUCKET_SIZE) if num_gpus > 1 else 0.0),
        1: 2 * SINGLE * num / num_gpus,
        2: 2 * SINGLE * num / num_gpus,
        3: SINGLE * num / num_gpus + (share if width == HALF else 0.0),
    }[stage]
    kept_buffers = float(bucket) if stage == 3 else 0.0
    moving = replace(
        states, gradients=states.gradients + extra, buffers=kept_buffers, moment="update"
    )
    # While a run starts, every GPU holds the whole float32 model, but in ZeRO 3.
    start = Memory(
        parameters=float(SINGLE * num) if stage < 3 else 0.0,
        moment="start",
        **dict.fromkeys(("optimizer", "average", "gradients", "activations", "buffers"), 0.0),
    )
    return max(backward, moving, start, key=lambda memory: memory.total)
