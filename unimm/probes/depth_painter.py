"""Depth painted by a denoiser that sees the picture: Marigold, and its one-step variant.

A depth map goes through the frozen image tokenizer as a grey picture; the denoiser gets the
picture's latents beside the noisy depth's (Ke et al., 2024). End to end, one step from zeros is
trained through the decoder on depth itself (Martin Garcia et al., 2024).

Legend: ``B`` pictures, ``C h w`` latents, ``H W`` pixels.
"""

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unimm.data.labelled.sets import LabelledPictures
from unimm.diffusion.noise import multi_resolution_noise
from unimm.diffusion.path import add_noise, to_data, velocity_of
from unimm.diffusion.sampler import denoise, run
from unimm.diffusion.solvers import SOLVERS
from unimm.diffusion.times import TimeConfig, sample_times, time_grid
from unimm.metrics.depth import fit_affine
from unimm.nn.denoiser import Denoiser
from unimm.objectives.diffusion import Diffusion
from unimm.pipeline import Pipeline
from unimm.probes.painted import depth_picture_of
from unimm.probes.sources import latents_of_pixels, tell


@dataclass(frozen=True, kw_only=True)
class PainterTrainConfig:
    """Training of a painter.

    Attributes:
        num_steps: of AdamW; 0 trains nothing.
        batch_size: pictures a step.
        learning_rate: at its height; a one-cycle schedule.
        noise_strength: of the multi-resolution noise, annealed by the time.
    """

    num_steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 5e-4
    noise_strength: float = 0.9


class DepthPainter(nn.Module):
    """A denoiser with twice the input channels; everything around it is frozen.

    Args:
        pipeline: whose diffusion head it starts from, and whose image tokenizer it paints with.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        objective = pipeline.model.objective(pipeline.drawing.name)
        if not isinstance(objective, Diffusion):
            raise ValueError(
                f"{pipeline.name} draws by {pipeline.drawing.name}; painting depth needs a "
                "model with the diffusion objective"
            )
        self.denoiser = widen_input(objective.denoiser)
        self.space = objective.space
        self._frozen = (pipeline,)  # no module of this one: never trained or saved
        self.register_buffer("told", tell(pipeline, objective, [""]).detach())

    @property
    def pipeline(self) -> Pipeline:
        """Behind it."""
        return self._frozen[0]

    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)`` in [-1, 1] to standardised latents."""
        return self.space.standardise(latents_of_pixels(self.pipeline, pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents to depth ``(B, H, W)`` about [-1, 1]; gradients flow."""
        drawn = self.pipeline.image_tokenizer.decoder(self.space.restore(latents))
        return drawn.mean(1)

    def forward(self, x: Tensor, t: Tensor, picture: Tensor) -> Tensor:
        """Velocity of noisy depth latents ``(B, C, h, w)`` beside the picture's."""
        told = self.told.expand(len(x), -1, -1)  # pyright: ignore[reportCallIssue]
        return self.denoiser(torch.cat([picture, x], dim=1), t, told).velocity

    @torch.no_grad()
    def paint(self, picture: Tensor, *, num_steps: int, generator: torch.Generator) -> Tensor:
        """Depth ``(B, H, W)`` from noise along the path."""
        noise = torch.randn(picture.shape, generator=generator, device=picture.device)

        def velocity(x: Tensor, t: float) -> Tensor:
            return self(x, torch.full((len(x),), t, device=x.device), picture)

        path = denoise(noise, time_grid(num_steps), solver=SOLVERS["euler"])
        return self.decode(run(path, velocity).x)

    def paint_at_once(self, picture: Tensor) -> Tensor:
        """Depth ``(B, H, W)`` by one step from zeros; gradients flow."""
        x = torch.zeros_like(picture)
        t = torch.ones(len(picture), device=picture.device)
        return self.decode(to_data(x, self(x, t, picture), t))


def widen_input(denoiser: Denoiser) -> Denoiser:
    """A copy that reads two sets of latents; both weights are the old ones, halved."""
    wide = copy.deepcopy(denoiser).float().requires_grad_(True)
    old = wide.input
    wide.input = nn.Linear(2 * old.in_features, old.out_features).to(old.weight.device)
    with torch.no_grad():
        wide.input.weight.copy_(torch.cat([old.weight, old.weight], dim=1) / 2)
        wide.input.bias.copy_(old.bias)
    return wide


def train_painter(
    painter: DepthPainter,
    part: LabelledPictures,
    config: PainterTrainConfig,
    *,
    is_one_step: bool,
    seed: int,
    show_progress: bool = True,
) -> None:
    """Train in place, on the velocity or end to end on one step."""
    from rich.progress import track

    device = painter.told.device
    assert isinstance(device, torch.device)
    if config.num_steps == 0:
        return
    parameters = list(painter.denoiser.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps, pct_start=0.05
    )
    order = torch.randint(
        len(part),
        (config.num_steps, config.batch_size),
        generator=torch.Generator().manual_seed(seed),
    ).to(device)
    generator = torch.Generator(device).manual_seed(seed)
    label = "one step" if is_one_step else "painter"
    painter.train()
    seen = _encode_all(painter, part)  # once: only the denoiser changes
    for rows in track(order, description=label, disable=not show_progress):
        picture = seen.pictures[rows]
        if is_one_step:
            found = painter.paint_at_once(picture)
            cost = affine_invariant_loss(found, seen.targets[rows], seen.masks[rows])
        else:
            cost = _velocity_loss(painter, picture, seen.painted[rows], config, generator)
        optimizer.zero_grad()
        cost.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    painter.eval()


class _Encoded(NamedTuple):
    """A whole set on the painter's device.

    Attributes:
        pictures: ``(N, C, h, w)`` standardised latents.
        painted: ``(N, C, h, w)`` those of depth as a picture.
        targets: ``(N, H, W)`` depth as a picture.
        masks: ``(N, H, W)`` where there is depth.
    """

    pictures: Tensor
    painted: Tensor
    targets: Tensor
    masks: Tensor


@torch.no_grad()
def _encode_all(painter: DepthPainter, part: LabelledPictures) -> _Encoded:
    device = painter.told.device
    assert isinstance(device, torch.device)
    chunks: list[_Encoded] = []
    for rows in torch.arange(len(part)).split(128):
        pixels = part.pixels[rows].to(device).float() / 127.5 - 1
        depth, mask = (part.need(x)[rows].to(device) for x in ("depth", "has_depth"))
        drawn = depth_picture_of(depth, mask)
        encoded = (painter.encode(pixels), painter.encode(drawn))
        chunks.append(_Encoded(*encoded, drawn[:, 0].contiguous(), mask))
    return _Encoded(*(torch.cat(x) for x in zip(*chunks, strict=True)))


def affine_invariant_loss(found: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error after the scale and shift that fit best, found in closed form."""
    scale, shift = fit_affine(found, target, mask)
    gap = (scale[:, None, None] * found + shift[:, None, None] - target).abs()
    return torch.where(mask, gap, 0.0).sum() / mask.sum().clamp(min=1)


def _velocity_loss(
    painter: DepthPainter,
    picture: Tensor,
    x0: Tensor,
    config: PainterTrainConfig,
    generator: torch.Generator,
) -> Tensor:
    count, device = len(x0), x0.device
    uniform = torch.rand(count, generator=generator, device=device)
    t = sample_times((torch.arange(count, device=device) + uniform) / count, TimeConfig())
    shape = (count, *x0.shape[1:])
    assert len(shape) == 4
    noise = multi_resolution_noise(
        shape, config.noise_strength * t, generator=generator, device=device
    )
    found = painter(add_noise(x0, noise, t), t, picture)
    return (found - velocity_of(x0, noise)).square().mean()
