"""Carried state: how right is a look, a thing or a place pages after it was last told?

A page's truth lists the facts that its own text leaves to memory. How far back the memory must
reach is told in two ways: pages since the text last said the fact (or a picture introduced it), and
pages since its subject was last shown, when the picture just before is no help.
"""

from collections.abc import Iterator
from typing import Any

from unimm.evaluation.stories import Count, JudgedStory, PageScore
from unimm.evaluation.story_text import is_place_told
from unimm.judges.sightings import Sighting

BACKGROUND = "background"


def count_carried(story: JudgedStory) -> Iterator[Count]:
    """Every carried fact of every judged page, by its distance.

    Yields:
        Group ``carried since said``: rows ``species, 1 page``, ``species, 2 pages`` ..., likewise
        ``tint``, ``headwear``, ``thing`` (kind or tint of a thing) and ``background``, and ``any``.
        Group ``carried since shown``: the same by the last page that showed the subject.
    """
    pages = story.truth["pages"]
    for score in story.scores:
        sighting = story.sightings[score.page]
        for subject, attribute, value, since in pages[score.page]["carried"]:
            if subject == BACKGROUND and not is_place_told(story, score.page):
                continue  # page 1 may be anywhere if its text does not say
            is_right = _is_right(score, sighting, subject, attribute, value)
            kind = _kind_of(story.truth, subject, attribute)
            said = last_said(story.truth, score.page, subject, attribute, since)
            shown = last_shown(story.truth, score.page, subject, since)
            for group, page in (("carried since said", said), ("carried since shown", shown)):
                distance = score.page - page
                unit = "page" if distance == 1 else "pages"
                for name in (kind, "any"):
                    yield Count(group=group, name=f"{name}, {distance} {unit}", right=is_right)


def last_said(truth: Any, page: int, subject: str, attribute: str, since: int) -> int:
    """The last page before ``page`` that told a fact: it was introduced there, changed, or said.

    A page that shows the subject and does not list the fact as carried told it.
    """
    for earlier in range(page - 1, since, -1):
        carried = {(s, a) for s, a, *_ in truth["pages"][earlier]["carried"]}
        is_told = (subject, attribute) not in carried
        if _is_shown(truth["pages"][earlier], subject) and is_told:
            return earlier
    return since


def last_shown(truth: Any, page: int, subject: str, since: int) -> int:
    """The last page before ``page`` that showed the subject; ``since`` if none after it did."""
    for earlier in range(page - 1, since, -1):
        if _is_shown(truth["pages"][earlier], subject):
            return earlier
    return since


def _is_shown(page: Any, subject: str) -> bool:
    if subject == BACKGROUND:
        return True
    names = {x["name"] for x in page["characters"]} | {x["kind"] for x in page["objects"]}
    return subject in names


def _kind_of(truth: Any, subject: str, attribute: str) -> str:
    if subject == BACKGROUND:
        return BACKGROUND
    return attribute if subject in {x["name"] for x in truth["characters"]} else "thing"


def _is_right(
    score: PageScore, sighting: Sighting | None, subject: str, attribute: str, value: str
) -> bool:
    if sighting is None:
        return False
    if subject == BACKGROUND:
        return sighting.background == value
    for character in score.characters:
        if character.name == subject:
            return character.right[attribute]
    things = [x for x in sighting.detections if x.kind == subject]
    return any(attribute == "kind" or getattr(x, attribute) == value for x in things)
