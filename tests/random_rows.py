"""Rows of random documents, segments and blocks, for whatever computes the attention rule."""

from dataclasses import replace

import torch
from helpers import packed, random_story

from unimm.document import Batch
from unimm.objectives.next_token import NextTokenConfig


def random_rows(
    length: int,
    *,
    num_rows: int = 2,
    is_causal: bool = False,
    longest: tuple[int, int, int] = (70, 40, 20),
    seed: int = 0,
) -> Batch:
    """Rows without padding; no input of a model, only ids that the rule reads.

    Args:
        length: of a row.
        num_rows: rows.
        is_causal: blocks are single positions and everything is context.
        longest: document, segment and block.
        seed: of all lengths.
    """
    generator = torch.Generator().manual_seed(seed)

    def cut(total: int, longest: int) -> list[int]:
        lengths: list[int] = []
        while total:
            lengths.append(min(total, int(torch.randint(1, longest + 1, (), generator=generator))))
            total -= lengths[-1]
        return lengths

    ids = torch.zeros(4, num_rows, length, dtype=torch.int64)
    for row in range(num_rows):
        at = 0
        for document, positions in enumerate(cut(length, longest[0])):
            block = 0
            for segment, share in enumerate(cut(positions, longest[1])):
                is_context = is_causal or int(torch.randint(2, (), generator=generator))
                for size in [1] * share if is_causal else cut(share, longest[2]):
                    numbers = torch.tensor([document, segment, block, int(is_context)])
                    ids[:, row, at : at + size] = numbers[:, None]
                    at, block = at + size, block + 1
    return replace(
        packed(NextTokenConfig(), [[random_story(0)]]),
        input_ids=torch.zeros(num_rows, length, dtype=torch.int64),
        document_ids=ids[0],
        segment_ids=ids[1],
        block_ids=ids[2],
        is_context=ids[3].bool(),
        is_causal=is_causal,
    )
