"""Next-token pictures: raster VQ codes, one block a code (Parti, LlamaGen, Chameleon).

``<boi>`` and all codes but the last predict the next code; the target is its own context.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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
from unimm.nn.linear import Linear
from unimm.nn.recorded import Recorder
from unimm.nn.sampling import SamplingConfig, draw_guided
from unimm.objectives.base import Block, Draw, ImageSpec, Objective, ObjectiveConfig, Steps, Watch


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
        self._recorder = Recorder()

    def draw(self, tokens: ImageTokens, generators: Sequence[torch.Generator]) -> Draw:
        """Nothing is random."""
        return Draw(tokens=tokens)

    def loss(self, hidden: Tensor, draw: Draw) -> Tensor:
        """Cross-entropy of each code; ``hidden`` is ``(M h w, D)`` in raster order."""
        assert draw.tokens.codes is not None
        logits = self.head(hidden).float()  # (N, V)
        return functional.cross_entropy(logits, draw.tokens.codes.flatten(), reduction="none")

    def sample(
        self,
        last: Tensor,
        *,
        generators: Sequence[torch.Generator],
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Watch | None = None,
    ) -> Steps:
        """Draw code after code; every code stays in the cache."""
        side, batch = self.spec.grid_size, len(generators)
        positions = torch.tensor(image_positions(side, side), device=last.device)
        noise = torch.stack(
            [torch.rand(side * side, generator=generator) for generator in generators]
        ).to(last.device)  # (B, h w): all of a picture's randomness, drawn before its first step
        codes: list[Tensor] = []

        def pick(last: Tensor, noise: Tensor) -> Tensor:
            return draw_guided(self.head(last), noise, sampling.scales, sampling)  # (B,)

        key = (sampling, self.head.weight.data_ptr())

        def so_far() -> ImageTokens:
            unknown = [torch.full_like(codes[0], NO_CODE)] * (side * side - len(codes))
            return ImageTokens(codes=torch.stack(codes + unknown, 1).view(batch, side, side))

        for i in range(side * side):
            code = self._recorder.run(key, pick, last, noise[:, i])
            codes.append(code)
            if watch:
                watch(len(codes) / (side * side), so_far)
            hidden = yield Block(
                x=embed_codes(code)[:, None],  # (B, 1, D)
                positions=positions[None, i : i + 1].expand(batch, -1, -1),
                keep=1,
                is_causal=True,
            )
            last = hidden[:, -1]
        return so_far()
