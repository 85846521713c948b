"""The engine's rows without a cache: every step runs all of them again. A reference for tests."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unimm.document import Layout
from unimm.generation.cached_rows import CachedRows
from unimm.nn.attention import Visibility
from unimm.objectives.base import Chain


class RecomputedRows(CachedRows):
    """Keeps what each row read, not its keys and values; what they hold is never looked at.

    The cache still counts positions: a rewind or an eviction shortens what is read again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._read: list[list[tuple[Tensor, Tensor, int]]] = [[] for _ in self.of()]

    def prefill(self, layouts: Sequence[Layout], **options: Any) -> Tensor:
        last = super().prefill(layouts, **options)
        for row, layout in enumerate(layouts):
            ids, codes, places = map(
                torch.tensor, (layout.input_ids, layout.code_ids, layout.position_ids)
            )
            x = self.model.embed_inputs(ids[None], codes[None])[0]
            blocks = [int(b) for b in layout.block_ids]
            self._read[row] = list(zip(x, places, blocks, strict=True))
        return last

    def keep(self, documents: Sequence[int]) -> None:
        self._read = [self._read[row] for row in self.of(documents=documents)]
        super().keep(documents)

    def run(self, rows: list[int], x: Tensor, positions: Tensor, *, is_causal: bool) -> Tensor:
        super().run(rows, x, positions, is_causal=is_causal)  # the cache counts, and is checked
        found: list[Tensor] = []
        for i, row in enumerate(rows):
            read = self._read[row][: self.cache.lengths[row]]
            first = read[-1][2] + 1 if read else 0
            count = x.shape[1]
            blocks = [first + (j if is_causal else 0) for j in range(count)]
            read = read + list(zip(x[i], positions[i], blocks, strict=True))
            self._read[row] = read
            order = torch.tensor([block for *_, block in read])
            hidden = self.model.backbone(
                torch.stack([vector for vector, *_ in read])[None],
                torch.stack([place for _, place, _ in read])[None],
                Visibility(dense=(order <= order[:, None])[None, None]),
            )
            found.append(hidden[0, -count:])
        return torch.stack(found)

    def run_chain(self, rows: list[int], chain: Chain, positions: Tensor) -> Tensor:
        last = chain.last
        for i in range(positions.shape[1]):
            x = chain.embed(chain.follow(last, torch.tensor([i]), *chain.state))[:, None]
            x = x.repeat(len(rows) // len(x), 1, 1)
            last = self.run(rows, x, positions[:, i : i + 1], is_causal=True)[:, 0]
            self.cache.advance(rows, [1] * len(rows))
        return last[:, None]
