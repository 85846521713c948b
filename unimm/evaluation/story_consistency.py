"""Does a story agree with itself: style, place, looks, and is no page a copy of an earlier one?

These ask about the pictures alone: a story may be consistent about a wrong look. A page that
repeats an earlier picture is perfectly consistent, so the share of copies stands beside.

Shapes: H, W height and width of a picture.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from unimm.evaluation.stories import LOOKS, Count, JudgedStory

PIXEL_TOLERANCE = 24
"""Levels (of 255) within which two pixels are the same: what the image tokenizer may change."""
COPY_SHARE = 0.95
"""Share of equal pixels from which a picture counts as a copy. Pages of one place share most of
their background, yet stay below this when a figure has moved (see the ceiling's own copies)."""


def count_consistency(story: JudgedStory) -> Iterator[Count]:
    """Agreement of pages with each other.

    Yields:
        Group ``consistency``: ``style``: figures of later pages drawn in the commonest style of the
        first page that has figures; ``background``: pages whose place did not change and that look
        like the same place as the page before; ``looks``: characters that look as they did on the
        first page that drew them.
    """
    yield from _count_style(story)
    yield from _count_background(story)
    yield from _count_looks(story)


def _count_style(story: JudgedStory) -> Iterator[Count]:
    style = None
    for page, sighting in enumerate(story.sightings):
        if sighting is None or not sighting.detections:
            continue
        styles = Counter(x.style for x in sighting.detections)
        if style is None:
            style = styles.most_common(1)[0][0]
        elif page >= story.first_page:
            yield Count(
                group="consistency", name="style", right=styles[style], total=styles.total()
            )


def _count_background(story: JudgedStory) -> Iterator[Count]:
    places = [page["background"] for page in story.truth["pages"]]
    for page in range(max(1, story.first_page), len(places)):
        if places[page] != places[page - 1]:
            continue
        now, before = story.sightings[page], story.sightings[page - 1]
        is_same = now is not None and before is not None and now.background == before.background
        yield Count(group="consistency", name="background", right=is_same)


def _count_looks(story: JudgedStory) -> Iterator[Count]:
    drawn: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for score in story.scores:
        truths = {x["name"]: x for x in story.truth["pages"][score.page]["characters"]}
        for character in score.characters:
            meant = {name: truths[character.name][name] for name in LOOKS}
            if character.name in drawn:
                before, meant_before = drawn[character.name]
                if meant == meant_before:  # else the story changed the look
                    is_same = bool(character.seen) and character.seen == before
                    yield Count(group="consistency", name="looks", right=is_same)
                    continue
            if character.seen:
                drawn[character.name] = (character.seen, meant)


def pixel_likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Share of pixels that are equal up to ``PIXEL_TOLERANCE`` in every channel.

    Args:
        a: ``(H, W, 3)`` uint8.
        b: the same.
    """
    assert a.shape == b.shape, (a.shape, b.shape)
    is_near = np.maximum(a, b) - np.minimum(a, b) <= PIXEL_TOLERANCE  # (H, W, 3)
    return float((is_near[..., 0] & is_near[..., 1] & is_near[..., 2]).mean())


def copied_page(story: JudgedStory, page: int) -> tuple[float, int]:
    """How like its likest earlier page a page is.

    Returns:
        The likeness and the number of that page; (0, -1) if there is nothing to compare.
    """
    picture = story.pictures[page]
    if picture is None:
        return 0.0, -1
    likeness = [
        (pixel_likeness(picture, other), earlier)
        for earlier, other in enumerate(story.pictures[:page])
        if other is not None
    ]
    return max(likeness, default=(0.0, -1))


def count_copies(story: JudgedStory) -> Iterator[Count]:
    """Later pages that are near copies of an earlier page of their story. Less is better.

    Yields:
        Group ``copies``: ``copied pages``, and ``likeness`` to the likest earlier page.
    """
    for page in range(max(1, story.first_page), len(story.pictures)):
        if story.pictures[page] is None:
            continue
        likeness, earlier = copied_page(story, page)
        if earlier >= 0:
            yield Count(group="copies", name="copied pages", right=likeness >= COPY_SHARE)
            yield Count(group="copies", name="likeness", right=likeness)
