"""Guidance branches: the same document with its text, or its pictures, hidden behind nulls."""

import itertools
from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor

from unimm.document import (
    NULL_CODE,
    Document,
    Dropped,
    ImageLayout,
    Layout,
    SpecialIds,
    layout_document,
)
from unimm.nn.sampling import SamplingConfig


class Branch(Enum):
    """What a row of the cache hides; training hides the same (``sample_dropped``)."""

    NOTHING = "nothing"
    TEXT = "text"
    PICTURES = "pictures"

    def reads(self, ids: Sequence[int], special: SpecialIds) -> list[int]:
        """Text ids as this branch reads them; ``<bos>`` is none that is hidden."""
        if self is not Branch.TEXT:
            return list(ids)
        return [x if x == special.bos else special.null for x in ids]

    def shows(self, codes: Tensor) -> Tensor:
        """Codes of a finished picture as this branch reads them."""
        return torch.full_like(codes, NULL_CODE) if self is Branch.PICTURES else codes

    def layout(self, document: Document, objective: ImageLayout, special: SpecialIds) -> Layout:
        """Lay a document out with this hidden."""
        parts = enumerate(document.parts)
        hidden = [
            i for i, part in parts if self is (Branch.TEXT if part.is_text else Branch.PICTURES)
        ]
        return layout_document(
            document, objective, special, dropped=Dropped(parts=frozenset(hidden))
        )


def branches_of(*, is_guided: bool, is_image_guided: bool) -> tuple[Branch, ...]:
    """Branches of a batch in the order of their rows: what is drawn comes first."""
    hidden = [Branch.TEXT] * is_guided + [Branch.PICTURES] * is_image_guided
    return (Branch.NOTHING, *hidden)


def needed_branches(branches: Sequence[Branch], sampling: SamplingConfig) -> tuple[int, ...]:
    """Numbers of the branches that a picture is drawn with, in the order of its ``scales``."""
    needed = [Branch.NOTHING]
    needed += [Branch.TEXT] * (sampling.guidance_scale != 1)
    needed += [Branch.PICTURES] * (sampling.image_guidance_scale != 1)
    assert set(needed) <= set(branches), "guidance was not announced"
    return tuple(branches.index(branch) for branch in needed)


def layouts_of(
    branches: Sequence[Branch],
    documents: Sequence[Document],
    objective: ImageLayout,
    special: SpecialIds,
) -> list[Layout]:
    """Of all documents in all branches, in the order of their rows.

    Documents of the same text, such as none, are laid out once.
    """
    found: list[Layout] = []
    known: dict[tuple[object, ...], Layout] = {}
    for branch, document in itertools.product(branches, documents):
        texts = [part.text_ids for part in document.parts if part.text_ids is not None]
        is_text = len(texts) == len(document.parts)
        key = (branch, *(x.numpy().tobytes() for x in texts)) if is_text else (len(found),)
        if key not in known:
            known[key] = branch.layout(document, objective, special)
        found.append(known[key])
    return found
