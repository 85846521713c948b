"""The measures of stories, in one list: each counts what is right in a judged story."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from unimm.evaluation.intervals import Rate, Tally
from unimm.evaluation.stories import LOOKS, Count, JudgedStory
from unimm.evaluation.story_carried import count_carried
from unimm.evaluation.story_consistency import count_consistency, count_copies
from unimm.evaluation.story_text import count_text_atoms, is_place_told

Tables = dict[str, dict[str, Rate]]
"""Group -> row -> its rate."""


def count_identity(story: JudgedStory) -> Iterator[Count]:
    """Every character that a judged page must show, attribute by attribute.

    Yields:
        Groups ``introduction``, ``alone`` and ``together``: species, tint, headwear, all. Group
        ``by page``: all of it on later pages, by page number from 1.
    """
    for page in story.scores:
        for character in page.characters:
            for name, is_right in character.right.items():
                yield Count(group=character.when, name=name, right=is_right)
            if character.when != "introduction":
                name = f"page {page.page + 1}"
                yield Count(group="by page", name=name, right=character.right["all"])


def count_pages(story: JudgedStory) -> Iterator[Count]:
    """Pages as a whole, as story visualisation counts them (StoryDALL-E's character F1 and frames).

    Yields:
        Group ``pages``: ``frame`` (every character right and none too many), ``story`` (all frames
        of it), ``character F1``, ``number of characters``, ``background``, ``objects``.
    """
    frames = []
    for page in story.scores:
        if page.characters:
            is_frame = page.has_right_number and all(x.right["all"] for x in page.characters)
            frames.append(is_frame)
            yield Count(group="pages", name="frame", right=is_frame)
        # F1 = 2 TP / (2 TP + FP + FN), over all pages together.
        num_faces = len(page.characters) + page.num_found
        if num_faces:
            yield Count(
                group="pages", name="character F1", right=2 * page.num_matched, total=num_faces
            )
        yield Count(group="pages", name="number of characters", right=page.has_right_number)
        if is_place_told(story, page.page):
            yield Count(group="pages", name="background", right=page.background)
        for is_right in page.objects:
            yield Count(group="pages", name="objects", right=is_right)
    if frames:
        yield Count(group="pages", name="story", right=all(frames))


def count_explanations(story: JudgedStory) -> Iterator[Count]:
    """Of a control: which of its two truths do the looks of later pages follow?

    Only attributes that the two tell apart are counted, on pages of one character.

    Yields:
        Group ``explanations``: ``species, as asked``, ``species, otherwise``, and likewise.
    """
    if story.other_truth is None:
        return
    for page in story.scores:
        if [x.when for x in page.characters] != ["alone"]:
            continue
        (asked,) = story.truth["pages"][page.page]["characters"]
        (other,) = story.other_truth["pages"][page.page]["characters"]
        seen = page.characters[0].seen
        apart = [name for name in LOOKS if asked[name] != other[name]]
        for says, truth in (("as asked", asked), ("otherwise", other)):
            rights = {name: seen.get(name) == truth[name] for name in LOOKS}
            for name in apart:
                yield Count(group="explanations", name=f"{name}, {says}", right=rights[name])
            if apart:
                is_right = all(rights.values())
                yield Count(group="explanations", name=f"all, {says}", right=is_right)


MEASURES: tuple[Callable[[JudgedStory], Iterator[Count]], ...] = (
    count_identity,
    count_pages,
    count_carried,
    count_text_atoms,
    count_consistency,
    count_copies,
    count_explanations,
)


def measure_stories(stories: Iterable[JudgedStory]) -> Tables:
    """All measures of many stories, each a rate with its interval over stories.

    Rows come in the order in which they are first met, distances and pages in ascending order.
    """
    tallies: dict[str, dict[str, Tally]] = defaultdict(lambda: defaultdict(Tally))
    for story in stories:
        for measure in MEASURES:
            for count in measure(story):
                tallies[count.group][count.name].add(story.number, count.right, count.total)
    return {
        group: {name: rows[name].rate() for name in _ordered(rows)}
        for group, rows in tallies.items()
    }


def _ordered(names: Iterable[str]) -> list[str]:
    """Names that end in numbers after their text; a stable order for the others."""
    numbered = {name: [int(x) for x in name.split() if x.isdigit()] for name in names}
    heads = list(dict.fromkeys(name.split(",")[0] for name in numbered))
    return sorted(
        numbered,
        key=lambda name: (
            (heads.index(name.split(",")[0]), numbered[name])
            if "," in name
            else (0, numbered[name])
        ),
    )


def to_json(tables: Tables) -> dict[str, dict[str, Any]]:
    """Tables as plain data."""
    return {
        group: {name: rate.to_json() for name, rate in rows.items()}
        for group, rows in tables.items()
    }
