"""What a document is made of: texts and pictures, in any order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """A picture, or a stack of equally large ones, as the image tokenizer gives it.

    Attributes:
        codes: single-scale codes ``(..., h, w)`` int64; what contexts are made of. Beside
            ``scale_codes`` they are found from the sum of these.
        scale_codes: one ``(..., h_k, w_k)`` int64 a scale, coarse to fine; empty without a pyramid.
        latents: ``(..., C, h, w)`` float, what the code lookup sees.
    """

    codes: Tensor | None = None
    scale_codes: tuple[Tensor, ...] = ()
    latents: Tensor | None = None

    @property
    def has_codes(self) -> bool:
        """Whether there are codes of any kind."""
        return self.codes is not None or bool(self.scale_codes)

    def map(self, function: Callable[[Tensor], Tensor]) -> "ImageTokens":
        """Apply ``function`` to every tensor."""
        return ImageTokens(
            codes=None if self.codes is None else function(self.codes),
            scale_codes=tuple(function(codes) for codes in self.scale_codes),
            latents=None if self.latents is None else function(self.latents),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor, in the order of ``map``."""
        given = (self.codes, *self.scale_codes, self.latents)
        return tuple(tensor for tensor in given if tensor is not None)

    def __getitem__(self, index: int | slice) -> "ImageTokens":
        """Pick from the leading dimension."""
        return self.map(lambda tensor: tensor[index])

    def _grid(self) -> tuple[int, ...]:
        """Shape of the finest grid."""
        finest = (self.codes, *reversed(self.scale_codes), self.latents)
        return next(tuple(tensor.shape) for tensor in finest if tensor is not None)

    @staticmethod
    def stack(images: Sequence["ImageTokens"]) -> "ImageTokens":
        """Stack pictures of one size along a new leading dimension.

        Raises:
            ValueError: if the pictures differ in size.
        """
        shapes = {image._grid() for image in images}
        if len(shapes) > 1:
            raise ValueError(
                f"pictures of one batch must share a code grid, found {sorted(shapes)}: "
                "resize them, or bucket documents by picture size"
            )
        return ImageTokens._join(images, torch.stack)

    @staticmethod
    def cat(stacks: Sequence["ImageTokens"]) -> "ImageTokens":
        """Join stacks of pictures along their leading dimension."""
        return ImageTokens._join(stacks, torch.cat)

    @staticmethod
    def _join(
        images: Sequence["ImageTokens"], function: Callable[[list[Tensor]], Tensor]
    ) -> "ImageTokens":
        first = images[0]
        return ImageTokens(
            codes=None
            if first.codes is None
            else function([image.codes for image in images if image.codes is not None]),
            scale_codes=tuple(
                function(list(scale))
                for scale in zip(*(i.scale_codes for i in images), strict=True)
            ),
            latents=None
            if first.latents is None
            else function([image.latents for image in images if image.latents is not None]),
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """Text or a picture of a document; exactly one of the first four is set.

    Attributes:
        text: raw text.
        text_ids: ``(n,)`` int64, the same tokenised.
        pixels: ``(3, H, W)`` uint8, a raw picture.
        tokens: the same encoded.
        is_drawn: whether the model shall learn to draw the picture; a given one is only read.
    """

    text: str | None = None
    text_ids: Tensor | None = None
    pixels: Tensor | None = None
    tokens: ImageTokens | None = None
    is_drawn: bool = True

    def __post_init__(self) -> None:
        given = [
            name
            for name in ("text", "text_ids", "pixels", "tokens")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(f"a part is text or one picture, got {given or 'nothing'}")

    @property
    def is_text(self) -> bool:
        """Whether this is text and not a picture."""
        return self.text is not None or self.text_ids is not None


@dataclass(frozen=True, kw_only=True)
class Document:
    """Text and pictures in any order.

    Attributes:
        parts: what the document holds, in reading order.
        is_open: it ends in a picture after which nothing follows (a caption pair): no ``<eoi>``,
            no context copy and no ``<eos>`` are laid out.
        index: number of the document in its source; seeds its randomness.
    """

    parts: tuple[Part, ...]
    is_open: bool = False
    index: int = 0


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Ids of the special tokens in the text vocabulary, and its size."""

    pad: int
    bos: int
    eos: int
    boi: int
    eoi: int
    null: int
    vocab_size: int
