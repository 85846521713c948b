"""What an image objective is: how pictures are laid out, learned and drawn.

A new objective is one file with a config and a module, and one line in the registry. Legend:
``M`` pictures, ``N`` positions read by the objective, ``D`` width, ``G`` guidance branches.
"""

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from unimm.document import IGNORE, Ids, ImageTokens, Segment, SpecialIds, image_positions
from unimm.nn.sampling import SamplingConfig
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.schedules import SINGLE


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What an objective must know of the image tokenizer.

    Attributes:
        codebook_size: codes of the single-scale codebook.
        latent_dim: channels of the latents.
        grid_size: side of the code grid of the pictures the model draws.
    """

    codebook_size: int
    latent_dim: int
    grid_size: int


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Base of the objectives' configurations; picklable, so that loader workers lay out pictures.

    Attributes:
        name: of the head.
        is_own_context: later positions read the target itself: no copy follows.
        needs_latents: it learns from latents, not from codes alone.
        default_sampling: of the first and of later pictures of a document, where the defaults for
            codes do not suit.
        weight: of this objective's loss.
        share: of the documents whose pictures it draws, beside the other objectives' shares.
    """

    name: ClassVar[str]
    is_own_context: ClassVar[bool]
    needs_latents: ClassVar[bool] = False
    default_sampling: ClassVar[tuple[SamplingConfig, SamplingConfig] | None] = None

    weight: float = 1.0
    share: float = 1.0

    @property
    def schedule(self) -> str:
        """Code layout that its pictures are encoded in, one of the image tokenizer's."""
        return SINGLE

    def build(self, dim: int, spec: ImageSpec) -> "Objective[Any]":
        """Make the module that learns and draws, for a trunk of width ``dim``."""
        raise NotImplementedError

    def layout(self, tokens: ImageTokens, special: SpecialIds) -> Segment:
        """Lay the target out; ``<boi>`` is its first position only if it is its own context."""
        raise NotImplementedError

    def context(self, codes: Ids, special: SpecialIds) -> Segment:
        """Lay a clean picture ``(h, w)`` out as later positions read it: one block of its codes."""
        count = codes.size
        return Segment(
            input_ids=np.full(count, special.pad),
            code_ids=codes.ravel(),
            labels=np.full(count, IGNORE),
            position_ids=image_positions(*codes.shape),
            block_ids=np.zeros(count, dtype=np.int64),
            head=self.name,
        )


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A training picture with its randomness settled; objectives extend it.

    Attributes:
        tokens: the ``M`` pictures, stacked.
    """

    tokens: ImageTokens


@dataclass(frozen=True, kw_only=True)
class Block:
    """One step asked of the engine by ``Objective.sample``.

    Attributes:
        x: ``(B, n, D)`` embeddings; the engine repeats them for every guidance branch.
        positions: ``(B, n, 3)`` int64 relative to the picture's first position.
        keep: how many of the positions stay in the cache.
        is_causal: whether the block's positions see each other causally, or all.
    """

    x: Tensor
    positions: Tensor
    keep: int
    is_causal: bool = False


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Blocks of one position each, asked of the engine at once; all of them stay in the cache.

    Each is a code that follows from the hidden state before it without the host: on a GPU the
    engine records ``follow`` and the trunk's step as one graph. So whatever differs from block to
    block, or from picture to picture, lies in tensors.

    Attributes:
        last: hidden state ``(G B, D)`` before the first block.
        positions: ``(B, n, 3)`` int64 of the ``n`` blocks, relative to the picture's first one.
        follow: ``follow(last, at, *state)`` gives the code ``(B,)`` int64 of block ``at``, ``(1,)``
            int64 from 0, from the hidden state ``(G B, D)`` before it. It must not wait for the
            device.
        embed: turns codes ``(B,)`` into the block's input ``(B, D)``, which the engine repeats for
            every guidance branch.
        state: what ``follow`` reads and writes in place, no two elements in one place of memory.
        key: all else that makes ``follow`` another function: objective, options.
    """

    last: Tensor
    positions: Tensor
    follow: Callable[..., Tensor]
    embed: Callable[[Tensor], Tensor]
    state: tuple[Tensor, ...]
    key: Hashable


Steps = Generator[Block, Tensor, ImageTokens]
Requests = Generator[Block | Chain, Tensor, ImageTokens]

Watch = Callable[[float, Callable[[], ImageTokens]], None]
"""Told while pictures are drawn: the share that is done, and a function that gives the pictures so
far, stacked; codes that are still unknown are ``NO_CODE``."""


D = TypeVar("D", bound=Draw)


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy what was drawn on the host; from pinned memory, so that nobody waits for the device."""
    drawn = drawn.pin_memory() if device.type == "cuda" else drawn
    return drawn.to(device, non_blocking=True)


class Objective(nn.Module, Generic[D]):
    """Learns and draws pictures. Sees the trunk only through hidden states and embeddings."""

    #: Whether ``embed`` fills the positions that ``loss`` reads; else they hold codes or tokens.
    fills_slots: ClassVar[bool]

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.spec = spec

    def bind(self, image_tokenizer: ImageTokenizer) -> None:
        """Take what is needed of the frozen tokenizer, outside of the module tree.

        Called before the first draw, loss or sample; what is taken is never saved or sharded.
        """

    def draw(self, tokens: ImageTokens, generators: Sequence[torch.Generator]) -> D:
        """Settle the randomness of ``M`` pictures (mask, time, noise), one generator each."""
        raise NotImplementedError

    def embed(self, draw: D) -> Tensor:
        """Inputs ``(N, D)`` of the slots, when ``fills_slots``."""
        raise NotImplementedError

    def loss(self, hidden: Tensor, draw: D) -> Tensor:
        """Unreduced loss ``(N,)`` of the hidden states ``(N, D)`` that the objective reads."""
        raise NotImplementedError

    def sample(
        self,
        last: Tensor,
        *,
        generators: Sequence[torch.Generator],
        sampling: SamplingConfig,
        embed_codes: Callable[[Tensor], Tensor],
        watch: Watch | None = None,
    ) -> Requests:
        """Draw ``B`` pictures, yielding the blocks that the trunk must run.

        Args:
            last: hidden state of ``<boi>``, ``(G B, D)``, conditional branch first.
            generators: one a document.
            sampling: temperature, top-k, top-p, guidance: a branch for each of its ``scales``.
            embed_codes: the trunk's embedding of the codebook's codes, ``(...)`` to ``(..., D)``.
            watch: told of progress, for those who want to see pictures come into being.

        Yields:
            Blocks, for which ``send`` gives back their hidden states ``(G B, n, D)``, or chains,
            for which it gives that of the last block ``(G B, 1, D)``.

        Returns:
            The drawn pictures, stacked.
        """
        raise NotImplementedError

    def zeros(self, device: torch.device) -> ImageTokens:
        """One picture of zeros, for ranks without a picture: every head must run everywhere."""
        side = self.spec.grid_size
        return ImageTokens(codes=torch.zeros(1, side, side, dtype=torch.int64, device=device))
