"""What a story longer than the context keeps in the cache: whole pages slide out, sinks stay.

A page is a text and the picture after it, up to ``<eoi>``. When a page begins, the oldest pages
that no longer belong to the window leave, except for their *sinks*: the document's first positions
and those where each picture begins and ends, which hold much of the attention (SEED-Story: Yang et
al., 2024, "multimodal attention sink"; the first ones as in StreamingLLM: Xiao et al., 2023).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from unimm.document import NO_CODE, Layout, SpecialIds


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """Which positions of a long story stay.

    Attributes:
        window_pages: newest pages that stay whole, the one being made included.
        first_pages: oldest pages that stay whole beside them: characters are introduced there.
        first_positions: of the document that always stay.
        boundary: codes that stay at either end of each picture, beside ``<boi>`` and ``<eoi>``;
            -1 keeps no boundary at all. A plain window has 0, 0 and -1.
        is_reindexed: move what follows an evicted page back, so that no position is larger than
            the window needs; by default all positions stay what they were.
    """

    window_pages: int = 3
    first_pages: int = 1
    first_positions: int = 4
    boundary: int = 2
    is_reindexed: bool = False

    def __post_init__(self) -> None:
        least = {"window_pages": 1, "first_pages": 0, "first_positions": 0, "boundary": -1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be {low} or more, got {getattr(self, name)}")

    @property
    def sinks_per_page(self) -> int:
        """Positions that an evicted page leaves at most."""
        return 2 + 2 * self.boundary if self.boundary >= 0 else 0

    def is_sink(self, *, position: Tensor, page: Tensor, is_boundary: Tensor) -> Tensor:
        """Whether a position never leaves; tensors of any equal shape.

        Args:
            position: its number in the document, which counts what the cache holds.
            page: its page.
            is_boundary: whether it is one where a picture begins or ends.
        """
        return (position < self.first_positions) | (page < self.first_pages) | is_boundary

    def may_see(self, *, query_page: Tensor, key_page: Tensor, key_is_sink: Tensor) -> Tensor:
        """What the policy leaves visible, beside the attention rule; on any shapes."""
        return (query_page - key_page < self.window_pages) | key_is_sink


def find_pages(layout: Layout, special: SpecialIds, policy: CachePolicy) -> tuple[Tensor, Tensor]:
    """Page of each position of a document, and whether it is a sink.

    Returns:
        ``(n,)`` int64 and ``(n,)`` bool. What is no context is no sink: no cache keeps it.
    """
    input_ids, is_context = torch.tensor(layout.input_ids), torch.tensor(layout.is_context)
    is_code = torch.tensor(layout.code_ids) != NO_CODE
    is_text = ~is_code & is_context
    is_end = is_text & (input_ids == special.eoi)
    page = is_end.long().cumsum(0) - is_end.long()  # <eoi> is its page's last position
    is_boundary = is_end | (is_text & (input_ids == special.boi))
    if policy.boundary < 0:
        is_boundary = torch.zeros_like(is_boundary)
    else:
        for number in {int(x) for x in page[is_code]}:
            (codes,) = torch.where(is_code & (page == number))
            ends = [codes[: policy.boundary], codes[len(codes) - policy.boundary :]]
            is_boundary[torch.cat(ends)] = True
    held = is_context.long().cumsum(0) - 1
    sinks = policy.is_sink(position=held, page=page, is_boundary=is_boundary)
    return page, sinks & is_context


def window_rule(layout: Layout, special: SpecialIds, policy: CachePolicy) -> Tensor:
    """What a policy leaves visible in a document, beside the attention rule: ``(n, n)`` bool."""
    page, is_sink = find_pages(layout, special, policy)
    return policy.may_see(query_page=page[:, None], key_page=page, key_is_sink=is_sink)


class Eviction(NamedTuple):
    """What leaves a document's cache as a page begins.

    Attributes:
        kept: numbers of the held positions that stay.
        steps: how far each of those moves, 0 or less.
        step: how far the position moves at which the document goes on.
    """

    kept: list[int]
    steps: list[int]
    step: int


@dataclass
class PageMap:
    """What each position that a document's cache holds is; one for all guidance branches.

    Attributes:
        pages: of each held position.
        sinks: whether each of them stays.
        starts: position of each page's ``<boi>``.
        ends: position behind each page.
        num_read: positions that the document has had, evicted ones included.
    """

    pages: list[int] = field(default_factory=list[int])
    sinks: list[bool] = field(default_factory=list[bool])
    starts: list[int] = field(default_factory=list[int])
    ends: list[int] = field(default_factory=list[int])
    num_read: int = 0

    @staticmethod
    def of(layout: Layout, special: SpecialIds, policy: CachePolicy) -> "PageMap":
        """The map of a document that stands already, its last page maybe unfinished."""
        page, sinks = find_pages(layout, special, policy)
        is_code = layout.code_ids != NO_CODE
        where = layout.position_ids[:, 0]
        is_boi = ~is_code & (layout.input_ids == special.boi)
        is_eoi = ~is_code & (layout.input_ids == special.eoi)
        return PageMap(
            pages=[int(x) for x in page],
            sinks=[bool(x) for x in sinks],
            starts=[int(x) for x in where[is_boi]],
            ends=[int(x) + 1 for x in where[is_eoi]],
            num_read=len(layout),
        )

    @property
    def current(self) -> int:
        """Number of the page being made."""
        return len(self.ends)

    def close_page(
        self, policy: CachePolicy, *, length: int, num_codes: int, start: int, end: int
    ) -> None:
        """Take in the page that has just ended.

        Args:
            policy: says which positions are sinks.
            length: positions that the cache holds of the document.
            num_codes: how many of the last ones are the picture's; ``<eoi>`` follows them.
            start: position of its ``<boi>``.
            end: position behind it.
        """
        new = length - len(self.pages)
        places = torch.arange(new)
        from_boi, to_eoi = places - (new - 2 - num_codes), new - 1 - places
        is_boundary = (from_boi >= 0) & (torch.minimum(from_boi, to_eoi) <= policy.boundary)
        sinks = policy.is_sink(
            position=places + self.num_read,
            page=torch.full_like(places, self.current),
            is_boundary=is_boundary,
        )
        self.pages += [self.current] * new
        self.sinks += [bool(x) for x in sinks]
        self.num_read += new
        self.starts.append(start)
        self.ends.append(end)

    def evict(self, policy: CachePolicy) -> Eviction:
        """Drop what is out of the window of the page that begins."""
        old = [self.current - page >= policy.window_pages for page in self.pages]
        leaves = [is_old and not is_sink for is_old, is_sink in zip(old, self.sinks, strict=True)]
        evicted = sorted({page for page, x in zip(self.pages, leaves, strict=True) if x})
        kept = [i for i, x in enumerate(leaves) if not x]
        self.pages = [self.pages[i] for i in kept]
        self.sinks = [self.sinks[i] for i in kept]
        steps, step = [0] * len(kept), 0
        for page in evicted if policy.is_reindexed else ():
            back = self._move_back(page, policy)
            step -= back
            for i, other in enumerate(self.pages):
                if other >= page and i >= policy.first_positions:
                    steps[i] -= back
        return Eviction(kept=kept, steps=steps, step=step)

    def _move_back(self, page: int, policy: CachePolicy) -> int:
        """Close the gap of an evicted page: what is left of it begins behind the first pages."""
        anchor = self.ends[policy.first_pages - 1] if policy.first_pages else policy.first_positions
        marks = self.starts if policy.boundary >= 0 else self.ends
        back = marks[page] - anchor
        for places in (self.starts, self.ends):
            places[page:] = [place - back for place in places[page:]]
        return back
