"""Applies a cache policy: what has left the window leaves the cache, in all guidance branches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unimm.document import Layout, SpecialIds
from unimm.generation.cache_policy import CachePolicy, PageMap, window_rule
from unimm.nn.kv_cache import KVCache


class Evictor:
    """Knows which page each cached position belongs to.

    Args:
        policy: what may stay.
        cache: of the engine.
        special: ids of the model.
        num_codes: positions that a finished picture holds between ``<boi>`` and ``<eoi>``.
        rope_base: of the model, for moving keys.
    """

    def __init__(
        self,
        policy: CachePolicy,
        cache: KVCache,
        special: SpecialIds,
        *,
        num_codes: int,
        rope_base: float,
    ) -> None:
        self.policy, self.cache, self.special = policy, cache, special
        self.num_codes, self.rope_base = num_codes, rope_base
        self.maps: list[PageMap] = []  # one a document

    def begin(self, layouts: Sequence[Layout], num_documents: int) -> Tensor:
        """Take in what stands already.

        Args:
            layouts: of all rows; the documents come first, then what their branches hide.
            num_documents: how many of them are documents.

        Returns:
            What the policy leaves visible, ``(R, L, L)`` bool.
        """
        self.maps = [
            PageMap.of(layout, self.special, self.policy) for layout in layouts[:num_documents]
        ]
        longest = max(map(len, layouts))
        visible = torch.ones(len(layouts), longest, longest, dtype=torch.bool)
        for row, layout in enumerate(layouts):
            rule = window_rule(layout, self.special, self.policy)
            visible[row, : len(rule), : len(rule)] = rule
        return visible

    def end_page(self, document: int, rows: Sequence[int], *, start: int, end: int) -> int:
        """Take in a page that has just ended, then evict.

        Args:
            document: whose page it is.
            rows: of the document, in all branches.
            start: position of the page's ``<boi>``.
            end: position behind it.

        Returns:
            How far the position moves at which the document goes on, 0 or less.
        """
        length = self.cache.lengths[rows[0]]
        self.maps[document].close_page(
            self.policy, length=length, num_codes=self.num_codes, start=start, end=end
        )
        return self.evict(document, rows)

    def evict(self, document: int, rows: Sequence[int]) -> int:
        """Let go of what is out of the window of the page that begins; returns as ``end_page``."""
        eviction = self.maps[document].evict(self.policy)
        if len(eviction.kept) < self.cache.lengths[rows[0]]:
            self.cache.evict(rows, eviction.kept)
        if eviction.step:
            self.cache.shift(rows, eviction.steps, self.rope_base)
        return eviction.step

    def keep(self, documents: Sequence[int]) -> None:
        """Go on with these documents only."""
        self.maps = [self.maps[d] for d in documents]
