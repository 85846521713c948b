"""Next-scale pictures: a pyramid of residual codes, one block a scale (VAR).

All codes of a scale are predicted at once, in place, from the sum of the coarser scales averaged
down to its grid (Tian et al., 2024). What later positions read is a copy of the finished picture in
single-scale codes, found from the sum of all scales, in training as in generation.

Legend: ``S`` scales of sides ``n``, ``T`` positions of all scales, ``h`` side of the finest grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unimm.document import (
    NO_CODE,
    Ids,
    ImageTokens,
    Segment,
    SpecialIds,
    image_positions,
    read_only,
)
from unimm.nn.cross_entropy import token_losses
from unimm.nn.linear import Linear
from unimm.nn.recorded import Recorder
from unimm.nn.sampling import SamplingConfig, draw_guided
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
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.pyramid import parse_schedule, schedule_name

_SAMPLING = SamplingConfig(temperature=0.9, top_k=300, top_p=0.96, guidance_scale=2.5)
DEFAULT_SAMPLING = (_SAMPLING, _SAMPLING)  # VAR's guidance: 2.5 at the last scale


@dataclass(frozen=True, kw_only=True)
class NextScaleConfig(ObjectiveConfig):
    """Next-scale prediction.

    Attributes:
        scales: sides of the grids, coarse to fine; a schedule of the image tokenizer.
    """

    name: ClassVar[str] = "next_scale"
    is_own_context: ClassVar[bool] = False
    default_sampling: ClassVar[tuple[SamplingConfig, SamplingConfig] | None] = DEFAULT_SAMPLING

    scales: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        parse_schedule(self.schedule)

    @property
    def schedule(self) -> str:
        """The pyramid's name."""
        return schedule_name(self.scales)

    def build(self, dim: int, spec: ImageSpec) -> "NextScale":
        """Make embeddings and head."""
        return NextScale(dim, spec, self.scales)

    def layout(self, tokens: ImageTokens, special: SpecialIds) -> Segment:
        """The codes of all scales, one block a scale; each position predicts its own code."""
        codes = np.concatenate([grid.numpy().ravel() for grid in tokens.scale_codes])  # (T,)
        positions, blocks = _pyramid_positions(self.scales)
        assert len(codes) == len(blocks), (len(codes), self.scales)
        return Segment(
            input_ids=np.full_like(codes, special.pad),
            code_ids=np.full_like(codes, NO_CODE),
            labels=codes,
            position_ids=positions,
            block_ids=blocks,
            head=self.name,
            is_context=False,
            image=ImageTokens(scale_codes=tokens.scale_codes),
        )


class NextScale(Objective[Draw]):
    """Embeds the sum of coarser scales, with level and position; a linear head over the codebook.

    Args:
        dim: width ``D`` of the trunk.
        spec: the image tokenizer's sizes.
        scales: sides of the grids.
    """

    fills_slots = True

    def __init__(self, dim: int, spec: ImageSpec, scales: tuple[int, ...]) -> None:
        super().__init__(spec)
        self.scales = scales
        self._bound: tuple[ImageTokenizer, ...] = ()  # no module of this one: never trained, saved
        self.counts = [n * n for n in scales]
        self.start = nn.Embedding(1, dim)  # input of the first scale, which has no coarser one
        self.project = nn.Linear(spec.latent_dim, dim)
        self.level = nn.Embedding(len(scales), dim)
        self.position = nn.Embedding(sum(self.counts), dim)
        self.head = Linear(dim, spec.codebook_size)
        self._recorder = Recorder()
        self._place_ids: Tensor | None = None  # (2, T) level and position, where the weights are
        for table in (self.start, self.level, self.position, self.head):
            nn.init.normal_(table.weight, std=0.02)

    def bind(self, image_tokenizer: ImageTokenizer) -> None:
        """Take the tokenizer, for its pyramid.

        Raises:
            ValueError: if it was not trained on the schedule.
        """
        wanted = schedule_name(self.scales)
        if wanted not in image_tokenizer.schedules:
            raise ValueError(
                f"objective next_scale draws by {wanted}, but the image tokenizer was trained on "
                f"{', '.join(image_tokenizer.schedules)}: set the objective's scales, or train a "
                f"tokenizer with tokenizer.schedules [single, {wanted}]"
            )
        self._bound = (image_tokenizer,)

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        """The bound image tokenizer."""
        if not self._bound:
            raise ValueError("no image tokenizer is bound to the objective: call model.bind first")
        return self._bound[0]

    def draw(self, tokens: ImageTokens, generators: Sequence[torch.Generator]) -> Draw:
        """Nothing is random."""
        return Draw(tokens=tokens)

    def embed(self, draw: Draw) -> Tensor:
        """Inputs ``(M T, D)``, picture after picture, scale after scale."""
        codes = draw.tokens.scale_codes
        with torch.no_grad():
            grids = self.image_tokenizer.inputs(codes)  # (M, C, n, n) each
            vectors = torch.cat([grid.flatten(2) for grid in grids], dim=2)
        inputs = torch.cat([self._start(len(codes[0])), self._project(vectors)], dim=1)
        return (inputs + self._places(0, len(self.scales))).flatten(0, 1)

    def loss(self, hidden: Tensor, draw: Draw) -> Tensor:
        """Cross-entropy of each code; ``hidden`` is ``(M T, D)``."""
        labels = torch.cat([grid.flatten(1) for grid in draw.tokens.scale_codes], dim=1)  # (M, T)
        return token_losses(self.head(hidden), labels.flatten())

    def sample(
        self,
        last: Tensor,
        *,
        generators: Sequence[torch.Generator],
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Watch | None = None,
    ) -> Steps:
        """Draw scale after scale; guidance grows from none at the first to full at the last."""
        tokenizer, batch, side = self.image_tokenizer, len(generators), self.scales[-1]
        places = _pyramid_positions(self.scales)[0]
        positions = to_device(torch.tensor(places), last.device).expand(batch, -1, -1)
        noise = torch.stack(
            [torch.rand(sum(self.counts), generator=generator) for generator in generators]
        )  # (B, T): all of a picture's randomness, drawn before its first step
        noise = to_device(noise, last.device)
        total = torch.zeros(batch, self.spec.latent_dim, side, side, device=last.device)
        codes: list[Tensor] = []

        def so_far() -> ImageTokens:
            return ImageTokens(codes=tokenizer.quantize(total))

        x = self._start(batch) + self._places(0, 1)
        for k, count in enumerate(self.counts):
            span = slice(sum(self.counts[:k]), sum(self.counts[: k + 1]))
            hidden = yield Block(
                x=x,  # (B, n n, D)
                positions=positions[:, span],
                keep=count,  # finer scales see it; all are dropped when the picture is finished
            )
            key = (k, sampling, self.head.weight.data_ptr(), tokenizer.latent_mean.data_ptr())
            step = partial(self._draw_scale, k=k, sampling=sampling)
            drawn, total, x = self._recorder.run_all(key, step, hidden, noise[:, span], total)
            codes.append(drawn)
            if watch:
                watch((k + 1) / len(self.scales), so_far)
        return ImageTokens(codes=tokenizer.quantize(total), scale_codes=tuple(codes))

    def _draw_scale(
        self, hidden: Tensor, noise: Tensor, total: Tensor, *, k: int, sampling: SamplingConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw scale ``k`` from hidden states ``(G B, n n, D)``.

        Returns:
            Its codes ``(B, n, n)``, the sum with it ``(B, C, h, h)``, and the next scale's inputs.
        """
        batch, n = len(noise), self.scales[k]
        growth = k / (len(self.scales) - 1)
        scales = [1 + (scale - 1) * growth for scale in sampling.scales]
        scales = scales if k else []
        logits = self.head(hidden[: (1 + len(scales)) * batch]).flatten(0, 1)  # (G B n n, V)
        drawn = draw_guided(logits, noise.flatten(), scales, sampling)
        codes = drawn.view(batch, n, n)
        total = self.image_tokenizer.add_scale(total, codes, k, self.scales)
        is_last = k == len(self.scales) - 1
        return codes, total, total if is_last else self._input(total, k + 1)

    def zeros(self, device: torch.device) -> ImageTokens:
        """One picture of code 0 in all scales."""
        grids = [torch.zeros(1, n, n, dtype=torch.int64, device=device) for n in self.scales]
        return ImageTokens(codes=grids[-1], scale_codes=tuple(grids))

    def _start(self, batch: int) -> Tensor:
        """What the first scale is predicted from, ``(B, n n, D)``."""
        index = torch.zeros(1, 1, dtype=torch.int64, device=self.start.weight.device)
        return self.start(index).expand(batch, self.counts[0], -1)

    def _input(self, total: Tensor, k: int) -> Tensor:
        """Inputs of scale ``k`` from the sum ``(B, C, h, h)`` of the coarser ones."""
        small = self.image_tokenizer.shrink(total, self.scales[k])  # (B, C, n, n)
        return self._project(small.flatten(2)) + self._places(k, k + 1)

    def _project(self, vectors: Tensor) -> Tensor:
        """``(B, C, T)`` to ``(B, T, D)``."""
        return self.project(vectors.transpose(1, 2).to(self.project.weight.dtype))

    def _places(self, first: int, last: int) -> Tensor:
        """Level and position of scales ``first`` to before ``last``, ``(T, D)``."""
        device = self.level.weight.device
        if self._place_ids is None or self._place_ids.device != device:
            levels = _pyramid_positions(self.scales)[1]
            with torch.inference_mode(False):
                ids = torch.tensor(np.stack([levels, np.arange(len(levels))]))
                self._place_ids = ids.to(device)  # once: it waits for the device
        span = slice(sum(self.counts[:first]), sum(self.counts[:last]))
        levels, positions = self._place_ids[:, span]
        return self.level(levels) + self.position(positions)


@lru_cache(maxsize=8)
def _pyramid_positions(scales: tuple[int, ...]) -> tuple[Ids, Ids]:
    """Positions ``(T, 3)`` on the finest grid, floor((i + .5) m / n), and blocks ``(T,)``."""
    finest = scales[-1]
    positions = [
        (2 * image_positions(n, n) + [0, 1, 1]) * finest // (2 * n)  # the time stays 0
        for n in scales
    ]
    blocks = np.repeat(np.arange(len(scales)), [n * n for n in scales])
    return read_only(np.concatenate(positions)), read_only(blocks)
