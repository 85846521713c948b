"""In-trunk denoising: noisy latents are the trunk's inputs, its hidden states their velocities.

The trunk is the denoiser (Transfusion: Zhou et al., 2024): every step of the sampler is a step of
the trunk over the whole picture. Legend: ``M`` pictures, ``n`` patches, ``C h w`` latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.diffusion.path import add_noise, velocity_of
from unimm.diffusion.sampler import denoise
from unimm.diffusion.solvers import SOLVERS
from unimm.diffusion.times import TimeConfig, time_grid
from unimm.document import ImageTokens, Segment, SpecialIds
from unimm.nn.embeddings import TimeEmbedding, ZeroLinear, from_patches, to_patches
from unimm.nn.modulation import Modulation, modulate
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.base import (
    Block,
    ImageSpec,
    Objective,
    ObjectiveConfig,
    Steps,
    Watch,
    to_device,
)
from unimm.objectives.diffusion import NoisyDraw, SolverName
from unimm.objectives.latents import (
    DEFAULT_SAMPLING,
    LatentSpace,
    check_patches,
    draw_noise,
    draw_times,
    guidance_of,
    latents_of,
    patch_positions,
    query_layout,
    tell,
    zero_picture,
)
from unimm.tokenizer.image import ImageTokenizer


@dataclass(frozen=True, kw_only=True)
class TransfusionConfig(ObjectiveConfig):
    """Denoising by the trunk itself.

    Attributes:
        patch_size: side of the patches that are one position each.
        times: density of training times.
        solver: of sampling.
        num_steps: of sampling, unless the caller says; each runs the trunk.
        guidance_interval: times at which guidance is on.
    """

    name: ClassVar[str] = "transfusion"
    is_own_context: ClassVar[bool] = False
    needs_latents: ClassVar[bool] = True
    default_sampling: ClassVar[tuple[SamplingConfig, SamplingConfig] | None] = DEFAULT_SAMPLING

    patch_size: int = 1
    times: TimeConfig = field(default_factory=TimeConfig)
    solver: SolverName = "unipc"
    num_steps: int = 10
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.patch_size < 1:
            raise ValueError(
                f"num_steps {self.num_steps} and patch_size {self.patch_size} must be at least 1"
            )

    def build(self, dim: int, spec: ImageSpec) -> "Transfusion":
        """Make the way in and the way out."""
        return Transfusion(self, dim, spec)

    def layout(self, tokens: ImageTokens, special: SpecialIds) -> Segment:
        """One noisy patch a position, all in one block."""
        return query_layout(tokens, special, patch_size=self.patch_size, head=self.name)


class Transfusion(Objective[NoisyDraw]):
    """Patches into the trunk with their time, and velocities out of it.

    Args:
        config: patches and times.
        dim: width ``D`` of the trunk.
        spec: the image tokenizer's sizes.
    """

    fills_slots = True
    space: LatentSpace

    def __init__(self, config: TransfusionConfig, dim: int, spec: ImageSpec) -> None:
        super().__init__(spec)
        self.config = config
        channels = spec.latent_dim * config.patch_size**2
        self.input = nn.Linear(channels, dim)
        # Near noise all patches look alike: relative rotations alone would not tell them apart.
        self.position = nn.Embedding(check_patches(config.patch_size, spec), dim)
        nn.init.normal_(self.position.weight, std=0.02)
        self.time = TimeEmbedding(dim)
        self.modulation = Modulation(dim, 2)
        self.output = ZeroLinear(dim, channels)

    def bind(self, image_tokenizer: ImageTokenizer) -> None:
        """Take the statistics of its latents and its codebook."""
        self.space = LatentSpace(image_tokenizer)

    def draw(self, tokens: ImageTokens, generators: Sequence[torch.Generator]) -> NoisyDraw:
        """Draw one time and the noise of ``M`` pictures."""
        latents = latents_of(tokens)
        noise = draw_noise((1, *latents.shape[1:]), generators)
        times = draw_times(generators, 1, self.config.times)
        device = latents.device
        return NoisyDraw(
            tokens=tokens, times=to_device(times, device), noise=to_device(noise, device)
        )

    def embed(self, draw: NoisyDraw) -> Tensor:
        """Noisy patches with their time, ``(M n, D)``."""
        x0 = self.space.standardise(latents_of(draw.tokens))
        t = draw.times[:, 0]
        return self._embed(add_noise(x0, draw.noise[:, 0], t), t).flatten(0, 1)

    def loss(self, hidden: Tensor, draw: NoisyDraw) -> Tensor:
        """Squared error of the velocity of each patch, the mean over channels."""
        x0 = self.space.standardise(latents_of(draw.tokens))
        told = hidden.view(len(x0), -1, hidden.shape[-1])  # (M, n, D)
        found = self._velocity(told, draw.times[:, 0])
        error = (found - velocity_of(x0, draw.noise[:, 0])).square()
        return to_patches(error, self.config.patch_size).mean(-1).flatten()

    def sample(
        self,
        last: Tensor,
        *,
        generators: Sequence[torch.Generator],
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Watch | None = None,
    ) -> Steps:
        """Run the trunk at every step of the path; none of its positions stays in the cache."""
        side, batch = self.spec.grid_size, len(generators)
        places = patch_positions(side, side, self.config.patch_size)
        positions = to_device(torch.tensor(places), last.device)
        guidance = guidance_of(sampling, self.config.guidance_interval)
        noise = draw_noise((self.spec.latent_dim, side, side), generators)
        path = denoise(
            # A colder start is a likelier picture; 0 is the same one every time.
            sampling.temperature * to_device(noise, last.device),
            time_grid(sampling.num_steps or self.config.num_steps, shift=self.config.times.shift),
            solver=SOLVERS[self.config.solver],
        )
        try:
            query = next(path)
            while True:
                t = torch.full((batch,), query.t, device=last.device)
                hidden = yield Block(
                    x=self._embed(query.x, t).to(last.dtype),
                    positions=positions.expand(batch, -1, -1),
                    keep=0,
                )  # (G B, n, D)
                needed = guidance.branches_at(query.t) * batch
                found = self._velocity(hidden[:needed], t.repeat(needed // batch))
                mixed = guidance.mix(found, query.t)
                tell(watch, self.space, query.x, mixed, query.t)
                query = path.send(mixed)
        except StopIteration as stop:
            return self.space.to_tokens(stop.value.x)

    def zeros(self, device: torch.device) -> ImageTokens:
        """One picture of zeros."""
        return zero_picture(self.spec, device)

    def _embed(self, x: Tensor, t: Tensor) -> Tensor:
        """Noisy latents ``(M, C, h, w)`` at times ``(M,)`` to ``(M, n, D)``."""
        patches = to_patches(x, self.config.patch_size).to(self.input.weight.dtype)
        places = torch.arange(patches.shape[1], device=x.device)
        return self.input(patches) + self.position(places) + self.time(t)[:, None]

    def _velocity(self, hidden: Tensor, t: Tensor) -> Tensor:
        """Hidden states ``(M, n, D)`` at times ``(M,)`` to velocities ``(M, C, h, w)`` float32."""
        shift, scale = self.modulation(functional.silu(self.time(t))[:, None])
        hidden = hidden.to(self.output.weight.dtype)
        patches = self.output(modulate(hidden, shift, scale)).float()
        return from_patches(patches, self.config.patch_size, self.spec.grid_size)
