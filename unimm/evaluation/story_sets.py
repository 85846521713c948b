"""The sets of stories that are judged, and what is asked of the model for each.

Each is sampled for validation (looks seen in training) and held-out (looks and names never seen).

- ``words``: page 1 says the look and shows it, everything is drawn; one character.
- ``picture``: page 1 says the name only; its true picture is given. One character.
- ``pair``: two characters, each introduced in words; most later pages name one of them.
- ``picture pair``: two characters on page 1, whose picture is given; its text says who is on the
  left. Looks and names must be bound by place.
- ``change``: six pages; on the way the look changes, by words, and must stay changed.
- ``written``: ``words``, but the model writes the later pages, too (``story_written``).

Controls, each of a set with one thing changed (``story_controls``):

- ``first pages exchanged``: ``words`` under another story's page 1.
- ``names exchanged``: ``pair``, whose later pages name the other one.
- ``pictures exchanged``: ``picture``, whose given picture shows another look.
- ``places exchanged``: ``picture pair``, whose two have changed places in the given picture.
"""

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from unimm.data.world.scene import Scene, sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.stories import StoryRecord, sample_story
from unimm.data.world.tasks import story_truth

WRITTEN = "written"
SETS: tuple[str, ...] = ("words", "picture", "pair", "picture pair", "change", WRITTEN)
CONTROLS: dict[str, str] = {
    "first pages exchanged": "words",
    "names exchanged": "pair",
    "pictures exchanged": "picture",
    "places exchanged": "picture pair",
}
"""Control -> the set it changes."""

_NUM_PAGES = {"change": 6}


@dataclass(frozen=True, kw_only=True)
class StoryTask:
    """One story to be drawn and judged.

    Attributes:
        number: its place in the set.
        page_texts: what each page says.
        given: the scene of page 1 where its picture is given, else None.
        scenes: what each page should show.
        truth: the same as plain data.
        other: of a control, what the other truth is called.
        other_truth: of a control, what its pages would show under the other explanation.
        is_alone: every page is drawn on its own, without the pages before it.
        is_written: the model reads page 1's text only and writes the others itself.
        prompts: what the model reads for each page, if not ``page_texts``.
    """

    number: int
    page_texts: tuple[str, ...]
    given: Scene | None
    scenes: tuple[Scene, ...]
    truth: dict[str, Any]
    other: str = ""
    other_truth: dict[str, Any] | None = None
    is_alone: bool = False
    is_written: bool = False
    prompts: tuple[str, ...] = ()

    @property
    def first_page(self) -> int:
        """The first page that the model draws."""
        return 0 if self.given is None else 1

    @property
    def read_texts(self) -> tuple[str, ...]:
        """What the model reads, page by page."""
        texts = self.prompts or self.page_texts
        return texts[:1] if self.is_written else texts


def story_tasks(
    name: str, split: Split, *, num: int, seed: int, num_pages: int | None = None
) -> list[StoryTask]:
    """Sample a set.

    Args:
        name: one of ``SETS``.
        split: validation (seen combinations) or held-out.
        num: how many stories.
        seed: of the world; another one than training's.
        num_pages: of each story; four, or six where a look changes, when left out.

    Raises:
        ValueError: an unknown set.
    """
    if name not in SETS:
        raise ValueError(f"unknown set of stories {name!r}; known: {SETS}")
    is_given, is_pair = name.startswith("picture"), name.endswith("pair")
    tasks: list[StoryTask] = []
    for index in count():
        if len(tasks) == num:
            break
        story = sample_story(
            sample_rng(seed, int(split), index),
            split,
            num_pages=num_pages or _NUM_PAGES.get(name, 4),
            introduction="picture" if is_given else "both",
            num_characters=2 if is_pair else 1,
            has_change=name == "change",
        )
        # A given picture must introduce everybody; half of the pairs meet on page 2 only.
        if not is_given or len(story.pages[0].shown) == len(story.characters):
            tasks.append(story_task(len(tasks), story, is_given=is_given))
    return [replace(task, is_written=True) for task in tasks] if name == WRITTEN else tasks


def story_task(number: int, story: StoryRecord, *, is_given: bool = False) -> StoryTask:
    """A sampled story as a task; ``is_given`` if its first picture is."""
    return StoryTask(
        number=number,
        page_texts=tuple(page.text for page in story.pages),
        given=story.pages[0].scene if is_given else None,
        scenes=tuple(page.scene for page in story.pages),
        truth=story_truth(story),
    )
