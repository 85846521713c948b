"""A denoiser head: the trunk runs once over learned queries, a small DiT draws the latents.

The trunk's hidden states at one query position a patch are all that the denoiser is told (Emu2,
MAR, SD3), so a picture costs one step of the trunk and as many of the head as the sampler takes.
Legend: ``M`` pictures, ``n`` patches, ``R`` noisy versions of a picture, ``C h w`` latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from unimm.diffusion.guidance import guided
from unimm.diffusion.path import add_noise, velocity_of
from unimm.diffusion.sampler import denoise, run
from unimm.diffusion.solvers import SOLVERS
from unimm.diffusion.times import TimeConfig, time_grid
from unimm.document import ImageTokens, Segment, SpecialIds
from unimm.nn.denoiser import Denoiser, DenoiserConfig
from unimm.nn.embeddings import to_patches
from unimm.nn.recorded import Recorder
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.base import (
    Block,
    Draw,
    ImageSpec,
    Objective,
    ObjectiveConfig,
    Steps,
    Watch,
    to_device,
)
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

SolverName = Literal["euler", "heun", "ddim", "dpm_solver_pp_2m", "unipc"]


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(ObjectiveConfig):
    """A denoiser head.

    Attributes:
        denoiser: its sizes and how it is conditioned.
        times: density of training times.
        num_draws: noisy versions of a picture in one step; the trunk runs once for all (MAR has 4).
        solver: of sampling.
        num_steps: of sampling, unless the caller says.
        guidance_interval: times at which guidance is on.
    """

    name: ClassVar[str] = "diffusion"
    is_own_context: ClassVar[bool] = False
    needs_latents: ClassVar[bool] = True
    default_sampling: ClassVar[tuple[SamplingConfig, SamplingConfig] | None] = DEFAULT_SAMPLING

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    times: TimeConfig = field(default_factory=TimeConfig)
    num_draws: int = 4
    solver: SolverName = "unipc"
    num_steps: int = 10
    guidance_interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.num_draws < 1 or self.num_steps < 1:
            raise ValueError(
                f"num_draws {self.num_draws} and num_steps {self.num_steps} must be at least 1"
            )
        if self.denoiser.num_scalars:
            raise ValueError(
                f"num_scalars {self.denoiser.num_scalars}: documents carry no micro-conditioning; "
                "only a denoiser used by itself can have it"
            )

    def build(self, dim: int, spec: ImageSpec) -> "Diffusion":
        """Make the head."""
        return Diffusion(self, dim, spec)

    def layout(self, tokens: ImageTokens, special: SpecialIds) -> Segment:
        """One query a patch, all in one block."""
        p = self.denoiser.patch_size
        return query_layout(tokens, special, patch_size=p, head=self.name)


@dataclass(frozen=True, kw_only=True)
class NoisyDraw(Draw):
    """Pictures with their times and noise.

    Attributes:
        times: ``(M, R)`` float32.
        noise: ``(M, R, C, h, w)``.
    """

    times: Tensor
    noise: Tensor


class Diffusion(Objective[NoisyDraw]):
    """Learned queries and a denoiser.

    Args:
        config: sizes and times.
        dim: width ``D`` of the trunk.
        spec: the image tokenizer's sizes.
    """

    fills_slots = True
    space: LatentSpace

    def __init__(self, config: DiffusionConfig, dim: int, spec: ImageSpec) -> None:
        super().__init__(spec)
        self.config = config
        num_patches = check_patches(config.denoiser.patch_size, spec)
        # An embedding rather than a bare parameter: ZeRO 3 gathers what is called.
        self.queries = nn.Embedding(num_patches, dim)
        nn.init.normal_(self.queries.weight, std=0.02)
        self.denoiser = Denoiser(config.denoiser, latent_dim=spec.latent_dim, context_dim=dim)
        self._recorder = Recorder()

    def bind(self, image_tokenizer: ImageTokenizer) -> None:
        """Take the statistics of its latents and its codebook."""
        self.space = LatentSpace(image_tokenizer)

    def draw(self, tokens: ImageTokens, generators: Sequence[torch.Generator]) -> NoisyDraw:
        """Draw times and noise of ``M`` pictures."""
        latents, count = latents_of(tokens), self.config.num_draws
        noise = draw_noise((count, *latents.shape[1:]), generators)
        times = draw_times(generators, count, self.config.times)
        device = latents.device
        return NoisyDraw(
            tokens=tokens, times=to_device(times, device), noise=to_device(noise, device)
        )

    def embed(self, draw: NoisyDraw) -> Tensor:
        """The queries once a picture, ``(M n, D)``: nothing of the picture enters the trunk."""
        return self._all_queries().repeat(len(draw.times), 1)

    def loss(self, hidden: Tensor, draw: NoisyDraw) -> Tensor:
        """Squared error of the velocity of each patch, the mean over channels and draws."""
        num_pictures, count = draw.times.shape
        told = hidden.view(num_pictures, -1, hidden.shape[-1])  # (M, n, D)
        x0 = self.space.standardise(latents_of(draw.tokens)).repeat_interleave(count, 0)
        noise, t = draw.noise.flatten(0, 1), draw.times.flatten()  # (M R, C, h, w), (M R,)
        error = velocity_error(self.denoiser, x0, noise, t, told.repeat_interleave(count, 0))
        return error.view(num_pictures, count, -1).mean(1).flatten()

    def sample(
        self,
        last: Tensor,
        *,
        generators: Sequence[torch.Generator],
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Watch | None = None,
    ) -> Steps:
        """Run the trunk once over the queries, then the denoiser along the path."""
        side, p, batch = self.spec.grid_size, self.config.denoiser.patch_size, len(generators)
        positions = to_device(torch.tensor(patch_positions(side, side, p)), last.device)
        hidden = yield Block(
            x=self._all_queries().expand(batch, -1, -1),
            positions=positions.expand(batch, -1, -1),
            keep=0,
        )  # (G B, n, D)
        guidance = guidance_of(sampling, self.config.guidance_interval)

        def evaluate(x: Tensor, t: Tensor, told: Tensor) -> Tensor:
            return self.denoiser(x, t, told).velocity

        def velocity(x: Tensor, t: Tensor, branches: int) -> Tensor:
            told, key = hidden[: branches * batch], self.queries.weight.data_ptr()
            return self._recorder.run(key, evaluate, x, t, told)

        noise = draw_noise((self.spec.latent_dim, side, side), generators)
        path = denoise(
            # A colder start is a likelier picture; 0 is the same one every time.
            sampling.temperature * to_device(noise, last.device),
            time_grid(sampling.num_steps or self.config.num_steps, shift=self.config.times.shift),
            solver=SOLVERS[self.config.solver],
        )
        mixed = guided(velocity, guidance)

        def watched(x: Tensor, t: float) -> Tensor:
            found = mixed(x, t)
            tell(watch, self.space, x, found, t)
            return found

        return self.space.to_tokens(run(path, watched).x)

    def zeros(self, device: torch.device) -> ImageTokens:
        """One picture of zeros."""
        return zero_picture(self.spec, device)

    def _all_queries(self) -> Tensor:
        """``(n, D)``."""
        count = self.queries.num_embeddings
        return self.queries(torch.arange(count, device=self.queries.weight.device))


def velocity_error(
    denoiser: Denoiser, x0: Tensor, noise: Tensor, t: Tensor, told: Tensor
) -> Tensor:
    """Squared error of a denoiser, the mean over each patch's channels.

    Args:
        denoiser: to measure.
        x0: ``(M, C, h, w)`` standardised latents.
        noise: the same shape.
        t: ``(M,)`` float32.
        told: ``(M, n, D)`` hidden states of the trunk.

    Returns:
        ``(M, n)`` float32.
    """
    found = denoiser(add_noise(x0, noise, t), t, told).velocity
    error = (found - velocity_of(x0, noise)).square()
    return to_patches(error, denoiser.config.patch_size).mean(-1)
