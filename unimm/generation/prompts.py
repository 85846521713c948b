"""What a caller gives: texts and pictures in any order, of one document or of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from unimm.document import ImageTokens, Part
from unimm.pictures import decode_image, encode_image, open_picture
from unimm.pipeline import Pipeline

Piece = str | Path | Image.Image | ImageTokens
"""A string is text; a path is the file of a picture."""

Prompt = Piece | Sequence[Piece]
"""The beginning of one document: a text, a picture, or both in turn."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """A part that stands already, as people and as the model see it.

    Attributes:
        shown: text, or the picture as it was given.
        part: tokenised.
    """

    shown: str | Image.Image
    part: Part

    @property
    def tokens(self) -> list[int] | ImageTokens:
        """Text ids, or the picture's tokens."""
        if self.part.text_ids is None:
            assert self.part.tokens is not None
            return self.part.tokens
        return [int(x) for x in self.part.text_ids]


def split_prompts(prompt: Prompt | Sequence[Prompt]) -> tuple[list[list[Piece]], bool]:
    """Tell one document's pieces from many documents' prompts; neighbouring texts become one.

    Returns:
        Pieces of each document, and whether the caller gave just one document.

    Raises:
        ValueError: on an empty list, or on what is neither text nor picture.
    """
    if isinstance(prompt, (str, Path, Image.Image, ImageTokens)):
        return [_join_texts([prompt])], True
    if any(isinstance(piece, (Path, Image.Image, ImageTokens)) for piece in prompt):
        return [_join_texts(cast(Sequence[Piece], prompt))], True
    if not prompt:
        raise ValueError("no prompt is given; one story without a beginning has the prompt ''")
    prompts = [[item] if isinstance(item, str) else cast(Sequence[Piece], item) for item in prompt]
    return [_join_texts(pieces) for pieces in prompts], False


def split_page_texts(
    page_texts: Sequence[str] | Sequence[Sequence[str]] | None, count: int, is_single: bool
) -> list[list[str]] | None:
    """Texts of each document's pages.

    Raises:
        ValueError: if they are not one or more texts for each document.
    """
    if page_texts is None:
        return None
    rows = [page_texts] if is_single else page_texts
    if any(isinstance(row, str) for row in rows):
        raise ValueError("page_texts of many stories must be a list of lists of texts")
    lists = [[str(text) for text in row] for row in rows]
    if len(lists) != count or not all(lists):
        raise ValueError(
            f"page_texts must give each of the {count} stories one text or more; got "
            f"{[len(row) for row in lists]}"
        )
    return lists


def read_piece(pipeline: Pipeline, piece: Piece) -> Given:
    """Tokenise a piece.

    Raises:
        ValueError: if a file is no picture, or tokens are not of this model's pictures.
    """
    if isinstance(piece, str):
        ids = pipeline.text_tokenizer.encode(piece)
        return Given(shown=piece, part=Part(text_ids=torch.tensor(ids, dtype=torch.int64)))
    if isinstance(piece, ImageTokens):
        side = pipeline.model.spec.grid_size
        if piece.codes is None or tuple(piece.codes.shape) != (side, side):
            found = None if piece.codes is None else tuple(piece.codes.shape)
            raise ValueError(f"the model reads pictures of {side} x {side} codes, got {found}")
        shown = decode_image(pipeline, piece)
        return Given(shown=shown, part=Part(tokens=piece, is_drawn=False))
    picture = open_picture(piece)
    tokens = encode_image(pipeline, picture)
    return Given(shown=picture, part=Part(tokens=tokens, is_drawn=False))


def _join_texts(pieces: Sequence[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if not isinstance(piece, (str, Path, Image.Image, ImageTokens)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"a prompt is made of texts and pictures, found {type(piece).__name__}"
            )
        if joined and isinstance(piece, str) and isinstance(joined[-1], str):
            joined[-1] = " ".join(filter(None, (joined[-1], piece)))
        else:
            joined.append(piece)
    return joined
