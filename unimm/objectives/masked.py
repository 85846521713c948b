"""Masked pictures: hidden codes of one block are guessed together (MaskGIT, Show-o, UniD3).

Training hides a share of a picture's codes that follows a cosine and predicts them in place, each
seeing all others. Drawing begins with all hidden and keeps the surest guesses of every step (Chang
et al., 2022, "MaskGIT", sections 3.1 and 3.2): discrete diffusion with an absorbing mask.

Legend: ``n`` codes of a picture, ``K`` codebook size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unimm.document import NO_CODE, ImageTokens, Segment, SpecialIds, image_positions
from unimm.nn.cross_entropy import token_losses
from unimm.nn.linear import Linear
from unimm.nn.sampling import SamplingConfig, guide, sample_from_logits
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

DEFAULT_SAMPLING = (SamplingConfig(guidance_scale=2.0), SamplingConfig(guidance_scale=2.0))
_MEAN_SHARE = 2 / math.pi  # of hidden codes: the mean of cos(pi u / 2) over u in [0, 1]


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(ObjectiveConfig):
    """Masked prediction.

    Attributes:
        num_steps: of drawing, unless the caller says; each runs the whole picture once.
        choice_temperature: of the Gumbel noise that loosens the order of the surest, falling to 0
            at the last step.
    """

    name: ClassVar[str] = "masked"
    is_own_context: ClassVar[bool] = False
    default_sampling: ClassVar[tuple[SamplingConfig, SamplingConfig] | None] = DEFAULT_SAMPLING

    num_steps: int = 12
    choice_temperature: float = 4.5

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.choice_temperature < 0:
            raise ValueError(
                f"num_steps must be 1 or more and choice_temperature 0 or more, got "
                f"{self.num_steps} and {self.choice_temperature}"
            )

    def build(self, dim: int, spec: ImageSpec) -> "Masked":
        """Make embedding and head."""
        return Masked(dim, spec, self)

    def layout(self, tokens: ImageTokens, special: SpecialIds) -> Segment:
        """All codes in one block, each predicted in place; which are hidden is drawn later."""
        assert tokens.codes is not None
        codes = tokens.codes.numpy().ravel()  # (n,)
        return Segment(
            input_ids=np.full_like(codes, special.pad),
            code_ids=np.full_like(codes, NO_CODE),
            labels=codes,
            position_ids=image_positions(*tokens.codes.shape),
            block_ids=np.zeros_like(codes),
            head=self.name,
            is_context=False,
            image=ImageTokens(codes=tokens.codes),
        )


@dataclass(frozen=True, kw_only=True)
class MaskedDraw(Draw):
    """Which codes are hidden.

    Attributes:
        is_hidden: ``(M, n)`` bool.
    """

    is_hidden: Tensor


class Masked(Objective[MaskedDraw]):
    """Embeds codes, with one more row for the mask, and positions; a linear head over the codebook.

    Args:
        dim: width ``D`` of the trunk.
        spec: the image tokenizer's sizes.
        config: how pictures are drawn.
    """

    fills_slots = True

    def __init__(self, dim: int, spec: ImageSpec, config: MaskedConfig) -> None:
        super().__init__(spec)
        self.config = config
        self.embedding = nn.Embedding(spec.codebook_size + 1, dim)  # the last row is the mask
        # Hidden codes look alike: without it only relative rotations tell them apart.
        self.position = nn.Embedding(spec.grid_size**2, dim)
        self.head = Linear(dim, spec.codebook_size)
        for table in (self.embedding, self.position, self.head):
            nn.init.normal_(table.weight, std=0.02)

    def draw(self, tokens: ImageTokens, generators: Sequence[torch.Generator]) -> MaskedDraw:
        """Hide ``ceil(n cos(pi u / 2))`` random codes of each picture, u uniform."""
        assert tokens.codes is not None
        n = tokens.codes[0].numel()
        noise = torch.stack([torch.rand(n + 1, generator=g) for g in generators])  # (M, n + 1)
        counts = (n * torch.cos(math.pi / 2 * noise[:, -1])).ceil().clamp(min=1)
        ranks = noise[:, :n].argsort(dim=1).argsort(dim=1)
        is_hidden = to_device(ranks < counts[:, None], tokens.codes.device)
        return MaskedDraw(tokens=tokens, is_hidden=is_hidden)

    def embed(self, draw: MaskedDraw) -> Tensor:
        """Codes, hidden ones as the mask, ``(M n, D)``."""
        assert draw.tokens.codes is not None
        return self._embed(draw.tokens.codes.flatten(1), draw.is_hidden).flatten(0, 1)

    def loss(self, hidden: Tensor, draw: MaskedDraw) -> Tensor:
        """Cross-entropy of the hidden codes, 0 for the others; ``hidden`` is ``(M n, D)``.

        It is divided by the mean share of hidden codes, so that the mean over all positions is
        nats a hidden code.
        """
        assert draw.tokens.codes is not None
        loss = token_losses(self.head(hidden), draw.tokens.codes.flatten())
        return loss * draw.is_hidden.flatten() / _MEAN_SHARE

    def sample(
        self,
        last: Tensor,
        *,
        generators: Sequence[torch.Generator],
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Watch | None = None,
    ) -> Steps:
        """Guess all hidden codes, keep the surest, hide the others again; nothing is cached."""
        side, batch = self.spec.grid_size, len(generators)
        n = side * side
        positions = to_device(torch.tensor(image_positions(side, side)), last.device)
        schedule = hidden_counts(n, sampling.num_steps or self.config.num_steps)
        noise = torch.stack(
            [torch.rand(2, len(schedule), n, generator=generator) for generator in generators], 2
        )  # (2, steps, B, n): all of a picture's randomness
        noise = to_device(noise, last.device)
        gumbel = -(-noise[1].clamp(1e-9, 1 - 1e-7).log()).log()
        codes = torch.zeros(batch, n, dtype=torch.int64, device=last.device)
        is_hidden = torch.ones_like(codes, dtype=torch.bool)

        def so_far() -> ImageTokens:
            shown = codes.masked_fill(is_hidden, NO_CODE)
            return ImageTokens(codes=shown.view(batch, side, side))

        for step, count in enumerate(schedule):
            hidden = yield Block(
                x=self._embed(codes, is_hidden), positions=positions.expand(batch, -1, -1), keep=0
            )
            logits = guide(self.head(hidden).float(), sampling.scales).flatten(0, 1)
            guesses = sample_from_logits(logits, noise[0, step].flatten(), sampling).view(batch, n)
            codes = torch.where(is_hidden, guesses, codes)
            likelihood = logits.log_softmax(-1).gather(-1, codes.view(-1, 1)).view(batch, n)
            looseness = self.config.choice_temperature * (1 - (step + 1) / len(schedule))
            if sampling.temperature > 0:
                likelihood = likelihood + looseness * gumbel[step]
            sureness = likelihood.masked_fill(~is_hidden, float("inf"))  # what is shown stays shown
            least_sure = sureness.topk(count, largest=False).indices  # (B, count)
            is_hidden = torch.zeros_like(is_hidden).scatter(1, least_sure, True)
            if watch:
                watch(1 - count / n, so_far)
        return ImageTokens(codes=codes.view(batch, side, side))

    def _embed(self, codes: Tensor, is_hidden: Tensor) -> Tensor:
        places = torch.arange(codes.shape[1], device=codes.device)
        found = self.embedding(torch.where(is_hidden, self.spec.codebook_size, codes))
        return found + self.position(places)


def hidden_counts(n: int, num_steps: int) -> list[int]:
    """How many of ``n`` codes are hidden again after each step: a cosine down to 0.

    Every step shows at least one code, so that there are at most ``n`` steps.
    """
    counts: list[int] = []
    left = n
    for step in range(1, num_steps + 1):
        wanted = 0 if step == num_steps else int(n * math.cos(math.pi / 2 * step / num_steps))
        left = max(0, min(left - 1, wanted))
        counts.append(left)
        if left == 0:
            break
    return counts
