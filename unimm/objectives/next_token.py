"""Next-token pictures: raster VQ codes, one block a code (Parti, LlamaGen, Chameleon).

``<boi>`` and all codes but the last predict the next code; the target is its own context.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unimm.document import (
    IGNORE,
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
from unimm.nn.sampling import SamplingConfig, draw_in_turn
from unimm.objectives.base import (
    Chain,
    Draw,
    ImageSpec,
    Objective,
    ObjectiveConfig,
    Requests,
    Watch,
    to_device,
)


@dataclass(frozen=True, kw_only=True)
class NextTokenConfig(ObjectiveConfig):
    """Next-token prediction of raster codes."""

    name: ClassVar[str] = "next_token"
    is_own_context: ClassVar[bool] = True

    def build(self, dim: int, spec: ImageSpec) -> "NextToken":
        """Make the head."""
        return NextToken(dim, spec)

    def layout(self, tokens: ImageTokens, special: SpecialIds) -> Segment:
        """``<boi>`` and the codes in raster order, one block each; position i predicts code i."""
        assert tokens.codes is not None
        codes = tokens.codes.numpy().ravel()  # (h w,)
        count = len(codes)
        inputs_and_labels = np.concatenate([[NO_CODE], codes, [IGNORE]])  # one step apart
        input_ids = np.full(count + 1, special.pad)
        input_ids[0] = special.boi
        return Segment(
            input_ids=input_ids,
            code_ids=inputs_and_labels[:-1],
            labels=inputs_and_labels[1:],
            position_ids=_positions_from_boi(*tokens.codes.shape),
            block_ids=np.arange(count + 1),
            head=self.name,
            image=ImageTokens(codes=tokens.codes),
        )

    def context(self, codes: Ids, special: SpecialIds) -> Segment:
        """The codes in raster order, one block each: what the drawn picture leaves behind."""
        return replace(super().context(codes, special), block_ids=np.arange(codes.size))


@lru_cache(maxsize=64)
def _positions_from_boi(height: int, width: int) -> Ids:
    """Positions ``(1 + height * width, 3)`` of ``<boi>`` and the picture behind it."""
    return read_only(
        np.concatenate([np.zeros((1, 3), np.int64), 1 + image_positions(height, width)])
    )


class NextToken(Objective[Draw]):
    """A linear head over the codebook.

    Args:
        dim: width ``D`` of the trunk.
        spec: the image tokenizer's sizes.
    """

    fills_slots = False

    def __init__(self, dim: int, spec: ImageSpec) -> None:
        super().__init__(spec)
        self.head = Linear(dim, spec.codebook_size)
        nn.init.normal_(self.head.weight, std=0.02)

    def draw(self, tokens: ImageTokens, generators: Sequence[torch.Generator]) -> Draw:
        """Nothing is random."""
        return Draw(tokens=tokens)

    def loss(self, hidden: Tensor, draw: Draw) -> Tensor:
        """Cross-entropy of each code; ``hidden`` is ``(M h w, D)`` in raster order."""
        assert draw.tokens.codes is not None
        return token_losses(self.head(hidden), draw.tokens.codes.flatten())

    def sample(
        self,
        last: Tensor,
        *,
        generators: Sequence[torch.Generator],
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Watch | None = None,
    ) -> Requests:
        """Draw code after code; every code stays in the cache."""
        side, batch = self.spec.grid_size, len(generators)
        noise = torch.stack(
            [torch.rand(side * side, generator=generator) for generator in generators]
        )  # (B, h w): all of a picture's randomness, drawn before its first step
        codes = last.new_full((batch, side * side), NO_CODE, dtype=torch.int64)
        positions = to_device(torch.tensor(image_positions(side, side)), last.device)

        def so_far() -> ImageTokens:
            return ImageTokens(codes=codes.view(batch, side, side).clone())

        yield from self._one_by_one(
            last,
            codes,
            noise=to_device(noise, last.device),
            positions=positions.expand(batch, -1, -1),
            sampling=sampling,
            embed_codes=embed_codes,
            watch=(lambda share: watch(share, so_far)) if watch else None,
        )
        return so_far()

    def _one_by_one(
        self,
        last: Tensor,
        codes: Tensor,
        *,
        noise: Tensor,
        positions: Tensor,
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Callable[[float], None] | None = None,
    ) -> Generator[Chain, Tensor, None]:
        """Draw codes, each from the hidden state of the one before.

        Args:
            last: that of the position before the first, ``(G B, D)``.
            codes: ``(B, n)``; they are written here.
            noise: ``(B, n)``, uniform.
            positions: ``(B, n, 3)``.
            sampling: how they are drawn.
            embed_codes: as in ``sample``.
            watch: told of the share that is done, after every row of the picture.
        """

        def follow(last: Tensor, at: Tensor, codes: Tensor, noise: Tensor) -> Tensor:
            return draw_in_turn(self.head(last), at, noise, codes, sampling)  # (B,)

        count = codes.shape[1]
        stride = self.spec.grid_size if watch else count
        for start in range(0, count, stride):
            span = slice(start, start + stride)
            hidden = yield Chain(
                last=last,
                positions=positions[:, span],
                follow=follow,
                embed=embed_codes,
                state=(codes[:, span], noise[:, span]),
                key=(NextTokenConfig.name, sampling),
            )
            last = hidden[:, -1]
            if watch:
                watch(min(start + stride, count) / count)
