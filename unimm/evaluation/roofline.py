"""The least time in which a batch could be drawn: bytes read and operations done, at the ceilings.

After the roofline model (Williams et al., 2009): a step takes at least as long as reading its
matrices and cached keys and values once, and at least as long as its products.
"""

from torch import nn

from unimm.evaluation.ceilings import Ceilings
from unimm.evaluation.drawing_cost import Cost
from unimm.generation.picture_context import picture_lengths
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline


def least_seconds(
    pipeline: Pipeline, cost: Cost, sampling: SamplingConfig, ceilings: Ceilings
) -> float:
    """Least time of a batch's trunk and heads, without the image tokenizer's decoder.

    Every step of the drawing reads the trunk's and the head's matrices once, and each row its own
    keys and values; nothing else is counted, the prompt neither, so that a real program stays below
    a share of 1.

    Args:
        pipeline: the model, drawing by one of its objectives.
        cost: what was run.
        sampling: whose guidance doubled the rows.
        ceilings: of the device.
    """
    model, config = pipeline.model, pipeline.model.config.backbone
    width = model.text_embedding.weight.element_size()
    matrix_width = 1 if pipeline.precision == "int8" else width
    objective = model.objective(pipeline.drawing.name)
    denoiser = getattr(objective, "denoiser", None)
    trunk, head = count_matrices(model.backbone), count_matrices(objective)
    inner = count_matrices(denoiser) if denoiser is not None else 0
    rows = cost.batch_size * (1 + len(sampling.scales))
    per_key = 2 * config.depth * config.num_kv_heads * config.head_width * width
    per_pair = 4 * config.depth * config.num_heads * config.head_width
    # What is dropped after each step, such as a masked picture, does not add up.
    longest = cost.work.before - 1 + picture_lengths(model, pipeline.objective)[1]
    total, filled, matrices = 0.0, cost.work.before, trunk + head - inner
    for new in cost.work.drawing:
        filled = min(filled + new, longest)
        num_bytes = matrices * matrix_width + rows * filled * per_key
        flops = rows * new * (2 * matrices + filled * per_pair)
        total += _seconds(num_bytes, flops, ceilings)
    if denoiser is not None:
        patches = (model.spec.grid_size // denoiser.config.patch_size) ** 2
        calls = cost.work.calls
        each = cost.work.rows / calls * patches * 2 * inner
        total += calls * _seconds(inner * width, each, ceilings)
    return total


def count_matrices(module: nn.Module) -> int:
    """Weights of a module that every position is multiplied with: no tables, no vectors."""
    return sum(x.weight.numel() for x in module.modules() if isinstance(x, nn.Linear))


def _seconds(num_bytes: float, flops: float, ceilings: Ceilings) -> float:
    return max(num_bytes / ceilings.bytes_per_second, flops / ceilings.flops_per_second)
