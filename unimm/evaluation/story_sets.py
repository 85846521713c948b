"""The sets of stories that are judged, and what is asked of the model for each.

- ``words``: page 1 says the look and shows it, everything is drawn; one character.
- ``picture``: page 1 says the name only; its true picture is given. One character.
- ``pair``: two characters, each introduced in words; most later pages name one of them.
- ``swapped``: the stories of ``words``, but page 1 (text, and the picture drawn from it) is another
  story's. The named character's look is then nowhere, so accuracy must fall to chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unimm.data.world.scene import Scene, sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.stories import StoryRecord, sample_story
from unimm.data.world.tasks import story_truth

SETS: tuple[str, ...] = ("words", "swapped", "picture", "pair")


@dataclass(frozen=True, kw_only=True)
class StoryTask:
    """One story to be drawn and judged.

    Attributes:
        number: its place in the set.
        page_texts: what each page says.
        given: the scene of page 1 where its picture is given, else None.
        scenes: what each page should show.
        truth: the same as plain data.
        shown: number of the story whose page 1 was put in, else its own number.
    """

    number: int
    page_texts: tuple[str, ...]
    given: Scene | None
    scenes: tuple[Scene, ...]
    truth: dict[str, Any]
    shown: int

    @property
    def first_page(self) -> int:
        """The first page that the model draws."""
        return 0 if self.given is None else 1


def story_tasks(
    name: str, split: Split, *, num: int, seed: int, num_pages: int = 4
) -> list[StoryTask]:
    """Sample a set.

    Args:
        name: one of ``SETS``.
        split: validation (seen combinations) or held-out.
        num: how many stories; ``swapped`` needs two.
        seed: of the world; another one than training's.
        num_pages: of each story; looks do not change in them.

    Raises:
        ValueError: an unknown set, or too few stories to swap.
    """
    if name not in SETS:
        raise ValueError(f"unknown set of stories {name!r}; known: {SETS}")
    if name == "swapped" and num < 2:
        raise ValueError(f"{num} story has no other to swap its first page with; ask for 2 or more")
    stories = [
        sample_story(
            sample_rng(seed, int(split), index),
            split,
            num_pages=num_pages,
            introduction="picture" if name == "picture" else "both",
            num_characters=2 if name == "pair" else 1,
            has_change=False,
        )
        for index in range(num)
    ]
    tasks = [
        _task(number, story, is_given=name == "picture") for number, story in enumerate(stories)
    ]
    return swap_first_pages(tasks) if name == "swapped" else tasks


def _task(number: int, story: StoryRecord, *, is_given: bool) -> StoryTask:
    return StoryTask(
        number=number,
        page_texts=tuple(page.text for page in story.pages),
        given=story.pages[0].scene if is_given else None,
        scenes=tuple(page.scene for page in story.pages),
        truth=story_truth(story),
        shown=number,
    )


def swap_first_pages(tasks: Sequence[StoryTask]) -> list[StoryTask]:
    """Give every story the first page of the one before it, and the first that of the last."""
    swapped = []
    for number, task in enumerate(tasks):
        other = tasks[number - 1]
        swapped.append(
            StoryTask(
                number=task.number,
                page_texts=(other.page_texts[0], *task.page_texts[1:]),
                given=other.given,
                scenes=(other.scenes[0], *task.scenes[1:]),
                truth={
                    **task.truth,
                    "pages": [other.truth["pages"][0], *task.truth["pages"][1:]],
                },
                shown=other.number,
            )
        )
    return swapped
