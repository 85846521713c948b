"""Choose how pictures are drawn: compare settings on validation stories of their own."""

from collections.abc import Callable
from typing import Any

from unimm.data.world.splits import Split
from unimm.evaluation.picture_judge import SightingJudge
from unimm.evaluation.story_config import StoryRunConfig, StorySampling
from unimm.evaluation.story_drawing import draw_tasks
from unimm.evaluation.story_judging import judge_stories
from unimm.evaluation.story_measures import measure_stories
from unimm.evaluation.story_sets import story_tasks
from unimm.pipeline import Pipeline

_SEED_OFFSET = 1_000_003  # settings are chosen on other stories than they are scored on


def choose_sampling(
    pipeline: Pipeline,
    judge: SightingJudge,
    config: StoryRunConfig,
    *,
    tell: Callable[[str], None],
) -> tuple[StorySampling, dict[str, Any]]:
    """Compare the settings of ``config.sweep``.

    Returns:
        The setting with the most later pages all right, and each setting's scores; without a sweep
        ``config.sampling``.
    """
    scores: dict[str, Any] = {}
    best, best_share = config.sampling, -1.0
    seed = config.seed + _SEED_OFFSET
    for setting in config.sweep:
        row: dict[str, float] = {}
        right = total = 0
        for name in config.sweep_sets:
            tasks = story_tasks(name, Split.VALIDATION, num=config.sweep_stories, seed=seed)
            pictures = draw_tasks(pipeline, tasks, setting, seed=seed, batch_size=config.batch_size)
            stories = judge_stories(tasks, pictures, judge.look)
            for when, rates in measure_stories(stories).items():
                if when in ("introduction", "alone", "together"):
                    row |= {f"{name} {when} {x}": rates[x].value for x in ("species", "all")}
            later = [
                character.right["all"]
                for story in stories
                for page in story.scores
                for character in page.characters
                if character.when != "introduction"
            ]
            right, total = right + sum(later), total + len(later)
        share = right / max(1, total)
        scores[setting.name] = {x: round(v, 4) for x, v in (row | {"later all": share}).items()}
        if share > best_share:
            best, best_share = setting, share
        tell(f"sweep {setting.name}: {scores[setting.name]}")
    return best, scores
