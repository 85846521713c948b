"""Pairs of our programs and others' that do the same work: what the comparison times.

Legend: ``B`` pictures, ``n`` patches, ``D`` width.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from unimm.evaluation.ceilings import measure_ceilings
from unimm.evaluation.drawing_cost import PROMPT
from unimm.evaluation.random_models import RandomModel, random_pipeline
from unimm.evaluation.side_by_side import Program
from unimm.evaluation.speed import Row, measure_speed
from unimm.generation.image import generate_image
from unimm.nn.denoiser import DenoiserConfig
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.diffusion import DiffusionConfig
from unimm.objectives.next_scale import NextScaleConfig
from unimm.pipeline import Pipeline


def our_drawing(pipeline: Pipeline, sampling: SamplingConfig, *, batch_size: int) -> Program:
    """``generate_image`` of a batch, decoding included."""
    prompts = [PROMPT] * batch_size
    return lambda: generate_image(pipeline, prompts, seed=1, **vars(sampling))


def our_share(pipeline: Pipeline, sampling: SamplingConfig, *, batch_size: int) -> Row:
    """How near drawing comes to what the device can do."""
    device, dtype = pipeline.device, pipeline.model.text_embedding.weight.dtype
    ceilings = measure_ceilings(device, dtype)
    row = measure_speed(pipeline, sampling, ceilings, batch_size=batch_size, repeats=3)
    return row | ceilings.row()


def our_head(
    sizes: RandomModel, *, batch_size: int, grid_size: int, device: torch.device
) -> Callable[[], object]:
    """A denoiser head's whole sampling loop, guided, behind made-up hidden states of the trunk.

    Args:
        sizes: of the model.
        batch_size: ``B``.
        grid_size: side of the latents, so that as many positions are denoised as elsewhere.
        device: to run on.
    """
    sizes = replace(sizes, grid_size=grid_size)
    model, sampling = random_pipeline(sizes, device=device).model, sizes.sampling
    head = model.objective("diffusion")
    assert isinstance(sizes.objective, DiffusionConfig)
    patches = (grid_size // sizes.objective.denoiser.patch_size) ** 2
    dtype = model.text_embedding.weight.dtype
    hidden = torch.randn(2 * batch_size, patches, sizes.dim, device=device, dtype=dtype)

    @torch.inference_mode()
    def run() -> object:
        steps = head.sample(
            hidden[:, 0],
            generators=[torch.Generator().manual_seed(i) for i in range(batch_size)],
            sampling=sampling,
            embed_codes=model.embed_codes,
        )
        next(steps)
        try:
            steps.send(hidden)
        except StopIteration as stop:
            return stop.value

    return run


def shrunk(sizes: RandomModel) -> RandomModel:
    """The same in seconds on any machine."""
    objective, grid, patch = sizes.objective, 4, 1
    if isinstance(objective, NextScaleConfig):
        objective = replace(objective, scales=(1, 2, 4))
    if isinstance(objective, DiffusionConfig):
        old = objective.denoiser
        patch = old.patch_size
        small = DenoiserConfig(
            dim=32, depth=2, num_heads=2, patch_size=patch, conditioning=old.conditioning
        )
        objective = replace(objective, denoiser=small)
    return replace(
        sizes,
        dim=32,
        depth=2,
        num_heads=2,
        ffn_dim=64,
        objective=objective,
        codebook_size=64,
        grid_size=grid,
        widths=(16, 16),
        sampling=replace(
            sizes.sampling,
            top_k=min(sizes.sampling.top_k, 20),
            num_steps=min(sizes.sampling.num_steps, 2),
        ),
    )
