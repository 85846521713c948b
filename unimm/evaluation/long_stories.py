"""Stories longer than training's: what does each cache policy remember of the first page?

One character, introduced in words and picture on page 1; every later page names it only. A policy
is judged by how much less often it is right on pages beyond the training length than within it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unimm.data.world.splits import Split
from unimm.evaluation.intervals import Tally
from unimm.evaluation.picture_judge import SightingJudge
from unimm.evaluation.stories import JudgedStory
from unimm.evaluation.story_config import StorySampling
from unimm.evaluation.story_drawing import draw_tasks
from unimm.evaluation.story_judging import judge_stories, num_failed
from unimm.evaluation.story_sets import story_tasks
from unimm.generation.cache_policy import CachePolicy
from unimm.pipeline import Pipeline

_WINDOW: dict[str, Any] = {"first_pages": 0, "first_positions": 0, "boundary": -1}
POLICIES: dict[str, dict[str, Any] | None] = {
    "everything": None,
    "plain window": _WINDOW,
    "plain window, re-indexed": {**_WINDOW, "is_reindexed": True},
    "sinks": {"first_pages": 0},
    "sinks and first page": {},
    "sinks and first page, re-indexed": {"is_reindexed": True},
}
"""What is compared: options of ``CachePolicy`` beside the window; None keeps all that fits."""


@dataclass(frozen=True, kw_only=True)
class LongStoryConfig:
    """One run of ``eval/score_long_stories.py``.

    Attributes:
        model: shipped name, folder or Hub id.
        objective: of the model that draws; empty is its first.
        detector: folder of the judge.
        ledger: folder of the ledger; empty writes none.
        policies: of ``POLICIES``.
        window_pages: newest pages that every policy keeps whole.
        trained_pages: of the longest stories of training.
        num_pages: of the stories drawn: three times as many.
        num_stories: for every policy the same ones.
        batch_size: stories at once.
        seed: of the stories' world and of the drawing.
        sampling: how pictures are drawn.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    model: str = "storyworld"
    objective: str = ""
    detector: str = "unimm/assets/models/detector"
    ledger: str = ""
    policies: tuple[str, ...] = tuple(POLICIES)
    window_pages: int = 3
    trained_pages: int = 6
    num_pages: int = 18
    num_stories: int = 64
    batch_size: int = 64
    seed: int = 9191
    sampling: StorySampling = field(default_factory=StorySampling)
    device: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.policies if name not in POLICIES]
        if unknown:
            raise ValueError(f"unknown policies {unknown}; known: {[*POLICIES]}")
        if not 2 <= self.trained_pages < self.num_pages:
            raise ValueError(
                f"num_pages {self.num_pages} must be more than trained_pages {self.trained_pages}, "
                "which is 2 or more"
            )


def score_long_stories(
    pipeline: Pipeline,
    judge: SightingJudge,
    config: LongStoryConfig,
    *,
    tell: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Draw the same stories under every policy and judge them.

    Returns:
        A row for each policy: share of pages whose character is all right ``within`` and ``beyond``
        the training length, the ``drop`` in points, and pages that could not be drawn.
    """
    tasks = story_tasks(
        "words",
        Split.VALIDATION,
        num=config.num_stories,
        seed=config.seed,
        num_pages=config.num_pages,
    )
    table: dict[str, dict[str, Any]] = {}
    for name in config.policies:
        options = POLICIES[name]
        policy = None
        if options is not None:
            policy = CachePolicy(window_pages=config.window_pages, **options)
        pictures = draw_tasks(
            pipeline,
            tasks,
            config.sampling,
            seed=config.seed,
            batch_size=config.batch_size,
            cache_policy=policy,
        )
        table[name] = _row(judge_stories(tasks, pictures, judge.look), config.trained_pages)
        tell(f"{name}: {table[name]}")
    return table


def _row(stories: list[JudgedStory], trained_pages: int) -> dict[str, Any]:
    failed = num_failed(stories)
    if failed == sum(len(story.pictures) for story in stories):
        return {"within": "does not fit the context", "pages not drawn": failed}
    tallies = {"within": Tally(), "beyond": Tally()}
    for story in stories:
        for page in story.scores:
            where = "within" if page.page < trained_pages else "beyond"
            for character in page.characters:
                if character.when != "introduction":
                    tallies[where].add(story.number, character.right["all"], 1)
    rates = {name: tally.rate() for name, tally in tallies.items()}
    row: dict[str, Any] = {
        name: f"{rate.value:.3f} [{rate.low:.2f}, {rate.high:.2f}]" for name, rate in rates.items()
    }
    drop = 100 * (rates["within"].value - rates["beyond"].value)
    return row | {"drop, points": round(drop, 1), "pages not drawn": failed}
