"""Score a model on sets of stories, each beside its ceilings and its chance."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unimm.data.world.render import Renderer
from unimm.data.world.splits import Split
from unimm.evaluation.chance import chance_of_agreement
from unimm.evaluation.stories import SCORES
from unimm.evaluation.story_config import StoryRunConfig, StorySampling
from unimm.evaluation.story_drawing import draw_tasks
from unimm.evaluation.story_runs import (
    SetResult,
    render_tasks,
    save_set,
    score_as_shown,
    score_set,
)
from unimm.evaluation.story_sets import StoryTask, story_tasks
from unimm.judges.detector import Detector
from unimm.pipeline import Pipeline

SWEEP_SEED_OFFSET = 1_000_003  # settings are chosen on other stories than they are scored on

Tell = Callable[[str], None]


def score_stories(
    pipeline: Pipeline, detector: Detector, config: StoryRunConfig, *, tell: Tell
) -> dict[str, Any]:
    """Choose the sampling if asked to, then score every set of every split.

    Args:
        pipeline: the model.
        detector: the judge, on any device.
        config: the run.
        tell: called with a line for each thing done.

    Returns:
        Plain data for the ledger: ``sampling``, ``sweep``, and for each ``SPLIT SET`` the scores
        with ``ceiling``, ``ceiling after the tokenizer``, ``chance`` and failures.
    """
    sampling, sweep = choose_sampling(pipeline, detector, config, tell=tell)
    figures: dict[str, Any] = {
        "sampling": {
            "name": sampling.name,
            "first page": vars(sampling.first_page),
            "later pages": vars(sampling.later_pages),
        },
        "sweep": sweep,
    }
    headline: dict[str, dict[str, Any]] = {}
    for split in (Split[name.upper()] for name in config.splits):
        for name in config.sets:
            tasks = story_tasks(name, split, num=config.num_stories, seed=config.seed)
            result = _draw_and_score(pipeline, detector, tasks, sampling, config)
            key = f"{split.name.lower()} {name}"
            save_set(result, Path(config.output), key.replace(" ", "_"))
            figures[key] = _figures(pipeline, detector, split, name, result)
            for when in ("introduction", "alone", "together"):
                if when in figures[key]["scores"]:
                    headline[f"{key} {when}"] = _headline(figures[key], when)
            tell(f"{key}: {_line(figures[key])}")
    return {"headline": headline} | figures


def choose_sampling(
    pipeline: Pipeline, detector: Detector, config: StoryRunConfig, *, tell: Tell
) -> tuple[StorySampling, dict[str, Any]]:
    """Compare the settings of the sweep on validation stories of their own.

    Returns:
        The setting with the most later pages all right, and each setting's scores.
    """
    scores: dict[str, Any] = {}
    best, best_share = config.sampling, -1.0
    for setting in config.sweep:
        row: dict[str, float] = {}
        right = total = 0
        for name in config.sweep_sets:
            seed = config.seed + SWEEP_SEED_OFFSET
            tasks = story_tasks(name, Split.VALIDATION, num=config.sweep_stories, seed=seed)
            result = _draw_and_score(pipeline, detector, tasks, setting, config)
            for when, rates in result.tables().items():
                if when in ("introduction", "alone", "together"):
                    row |= {f"{name} {when} {x}": rates[x]["value"] for x in ("species", "all")}
            later = [
                character.right["all"]
                for page in result.scores
                for character in page.characters
                if character.when != "introduction"
            ]
            right, total = right + sum(later), total + len(later)
        scores[setting.name] = row | {"later all": round(right / max(1, total), 4)}
        if right / max(1, total) > best_share:
            best, best_share = setting, right / max(1, total)
        tell(f"sweep {setting.name}: {scores[setting.name]}")
    return best, scores


def _draw_and_score(
    pipeline: Pipeline,
    detector: Detector,
    tasks: Sequence[StoryTask],
    sampling: StorySampling,
    config: StoryRunConfig,
) -> SetResult:
    pictures = draw_tasks(pipeline, tasks, sampling, seed=config.seed, batch_size=config.batch_size)
    return score_set(tasks, pictures, detector)


def _figures(
    pipeline: Pipeline, detector: Detector, split: Split, name: str, result: SetResult
) -> dict[str, Any]:
    """Scores of a set with all that they must be seen beside."""
    tokenizer, size = pipeline.image_tokenizer, pipeline.image_size
    renderer = Renderer(device=pipeline.device)

    def ceiling(view) -> dict[str, Any]:
        pictures = render_tasks(result.tasks, renderer, size=size, view=view)
        return score_set(result.tasks, pictures, detector).tables()

    figures = {
        "stories": len(result.tasks),
        "failed pictures": result.num_failed,
        "scores": result.tables(),
        "ceiling": ceiling(None),
        "ceiling after the tokenizer": ceiling(tokenizer.reconstruct),
    }
    if name != "pair":  # two characters of one story do not look alike by accident only
        chance = chance_of_agreement(split)
        figures["chance"] = {score: round(value, 4) for score, value in chance.items()}
    if name == "swapped":
        figures["as shown"] = score_as_shown(result)
    return figures


def _headline(figures: dict[str, Any], when: str) -> dict[str, Any]:
    """One row of the table: each score with its interval, then the ceiling and chance of all."""
    rates = figures["scores"][when]
    row: dict[str, Any] = {
        name: f"{rates[name]['value']:.2f} [{rates[name]['low']:.2f}, {rates[name]['high']:.2f}]"
        for name in SCORES
    }
    row["ceiling"] = figures["ceiling"][when]["all"]["value"]
    row["after the tokenizer"] = figures["ceiling after the tokenizer"][when]["all"]["value"]
    if "chance" in figures and when != "introduction":
        row["chance"] = figures["chance"]["all"]
    if "as shown" in figures and when != "introduction":
        row["as shown"] = figures["as shown"][when]["all"]["value"]
    return row | {"stories": rates["all"]["units"], "characters": rates["all"]["total"]}


def _line(figures: dict[str, Any]) -> str:
    parts = [
        f"{when} "
        + " ".join(f"{x} {figures['scores'][when][x]['value']:.2f}" for x in SCORES)
        + f" (ceiling {figures['ceiling after the tokenizer'][when]['all']['value']:.2f})"
        for when in ("introduction", "alone", "together")
        if when in figures["scores"]
    ]
    return "; ".join(parts) + f"; failed {figures['failed pictures']}"
