"""What fits: positions of prompts, pages and pictures against the model's context."""

from collections.abc import Sequence

from unimm.generation.cache_policy import CachePolicy
from unimm.generation.picture_context import picture_lengths
from unimm.generation.request import Plan, Request
from unimm.model import UniMM


class Room:
    """Counts positions.

    Args:
        model: whose context it is.
        plan: bound of a page's text, what leaves the cache of long documents, who writes.
        objective: that draws; by default the model's first.
    """

    def __init__(
        self,
        model: UniMM,
        plan: Plan,
        objective: str | None = None,
    ) -> None:
        self.max_length = model.config.backbone.max_seq_len
        self.max_text_tokens = min(plan.max_text_tokens, self.max_length)
        self.policy, self.write_on = plan.cache_policy, plan.write_on
        self.kept, self.peak = picture_lengths(model, objective)

    def for_text(self, length: int, pictures: int) -> int:
        """Text tokens that the next page may take, of a document that holds ``length``."""
        room = self.max_length - length - self._needed(pictures)
        return min(self.max_text_tokens, room)

    def fits(self, length: int) -> bool:
        """Whether another page fits."""
        return length + self.peak <= self.max_length

    def check(self, request: Request, limit: int, pictures: int) -> None:
        """Refuse what cannot fit.

        Args:
            request: the document.
            limit: pictures after which it ends.
            pictures: those that must fit.

        Raises:
            ValueError: with the numbers and the remedy.
        """
        length = self._prompt_length(request)
        if self.policy:
            held = self._held(request, limit, self.policy)
            if held > self.max_length:
                raise ValueError(
                    f"a window of {self.policy.window_pages} pages can hold {held} positions, but "
                    f"the model's context has {self.max_length}: give the cache policy fewer "
                    "window_pages, or lower max_text_tokens"
                )
            return
        texts = sum(map(len, request.page_texts or ()))
        if length > self.max_length:
            raise ValueError(
                f"the prompt takes {length} positions, but the model's context has "
                f"{self.max_length}: shorten it"
            )
        if length + texts + self._needed(pictures) > self.max_length:
            raise ValueError(
                f"the prompt takes {length} positions, the pages' texts {texts} and {pictures} "
                f"pictures {self._needed(pictures)}, but the model's context has "
                f"{self.max_length}: shorten the prompt, ask for fewer pictures, or give a "
                "cache_policy, which lets old pages go"
            )

    def capacity(self, documents: Sequence[tuple[Request, int]]) -> int:
        """Positions of a row of the cache, padding of uneven texts included.

        Args:
            documents: each with the pictures after which it ends.
        """
        texts = [len(text) for request, _ in documents for text in request.page_texts or ()]
        padding = max([self.max_text_tokens, *texts]) + 2
        return max(self._most(request, limit) for request, limit in documents) + padding

    def _most(self, request: Request, limit: int) -> int:
        prompt = self._prompt_length(request)
        if self.policy:
            return max(prompt, self._held(request, limit, self.policy))
        pages = max(limit, 1)
        written = pages * self.max_text_tokens
        given = sum(map(len, request.page_texts or ()))
        text = given + (written if self.write_on or not request.page_texts else 0)
        return min(prompt + text + self._needed(pages), self.max_length)

    def _prompt_length(self, request: Request) -> int:
        texts = [part.text_ids for part in request.parts if part.text_ids is not None]
        return 1 + sum(map(len, texts)) + request.num_given * self.kept

    def _needed(self, pictures: int) -> int:
        """Positions for so many pictures; only the last may take more while it is drawn."""
        if self.policy:
            pictures = min(pictures, 1)  # room for the others is made when they come
        return 0 if pictures == 0 else (pictures - 1) * self.kept + self.peak

    def _held(self, request: Request, limit: int, policy: CachePolicy) -> int:
        """Most positions that a document can come to hold under a policy."""
        texts = [part.text_ids for part in request.parts if part.text_ids is not None]
        num_given = request.num_given
        pages_texts = map(len, request.page_texts or ())
        longest = max([0, *map(len, texts), *pages_texts])
        if self.write_on or not request.page_texts:
            longest += self.max_text_tokens
        whole = min(policy.window_pages + policy.first_pages, num_given + max(limit, 1))
        evicted = max(0, num_given + limit - whole)
        pages = whole * (longest + self.kept) + self.peak - self.kept
        return 1 + policy.first_positions + pages + evicted * policy.sinks_per_page
