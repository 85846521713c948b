"""What the writer is asked: a request for each document, and a plan common to all."""

from dataclasses import dataclass

import torch

from unimm.document import Document, Part
from unimm.generation.cache_policy import CachePolicy
from unimm.nn.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How documents shall be written.

    Attributes:
        text: how text is drawn.
        first_page: how the first picture of a document is drawn.
        later_pages: how pictures that follow another are drawn.
        num_images: pictures to draw, where a document does not say; None lets the model end it.
        max_images: bound on the pictures, when the model ends the document.
        max_text_tokens: bound on a page's text; the picture begins when it is reached.
        cache_policy: what leaves the cache of a long document; None keeps everything.
        num_previews: moments of each picture's drawing that are told with it.
        write_on: the model may write on behind a given page's text before it draws the page.
    """

    text: SamplingConfig
    first_page: SamplingConfig
    later_pages: SamplingConfig
    num_images: int | None = None
    max_images: int = 8
    max_text_tokens: int = 96
    cache_policy: CachePolicy | None = None
    num_previews: int = 0
    write_on: bool = False


@dataclass(frozen=True, kw_only=True)
class Request:
    """One document to go on with.

    Attributes:
        parts: tokenised text and pictures that stand already.
        page_texts: ids of the text before each picture to draw; None lets the model write.
        num_images: pictures to draw; None leaves it to the plan.
        seed: of all the document's randomness.
    """

    parts: tuple[Part, ...]
    page_texts: tuple[list[int], ...] | None = None
    num_images: int | None = None
    seed: int

    @property
    def num_given(self) -> int:
        """Pictures that stand already."""
        return sum(not part.is_text for part in self.parts)

    def document(self) -> Document:
        """The standing parts, an empty text if there is none."""
        empty = Part(text_ids=torch.zeros(0, dtype=torch.int64))
        return Document(parts=self.parts or (empty,))

    def wanted(self, plan: Plan) -> int | None:
        """Pictures to draw; None if the model ends the document."""
        if self.page_texts is not None:
            return len(self.page_texts)
        return plan.num_images if self.num_images is None else self.num_images
