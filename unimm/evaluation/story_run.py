"""Score a model on stories: requests, samples, results, references, then summary and report."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from unimm.data.world.render import Renderer
from unimm.data.world.splits import Split
from unimm.evaluation.nearest_scenes import training_scenes
from unimm.evaluation.picture_folder import write_text
from unimm.evaluation.picture_judge import SightingJudge
from unimm.evaluation.picture_references import CEILING, CEILING_AFTER, NEAREST, RANDOM
from unimm.evaluation.stories import JudgedStory
from unimm.evaluation.story_config import StoryRunConfig, StorySampling
from unimm.evaluation.story_controls import control_tasks, described, without_context
from unimm.evaluation.story_drawing import DrawnPage, draw_tasks
from unimm.evaluation.story_folder import StoryFolder, StoryRequest
from unimm.evaluation.story_judging import judge_stories, num_failed, render_stories
from unimm.evaluation.story_measures import Tables, measure_stories
from unimm.evaluation.story_page import story_page
from unimm.evaluation.story_references import (
    DESCRIBED,
    NO_CONTEXT,
    NearestPages,
    random_image_tables,
)
from unimm.evaluation.story_results import write_results
from unimm.evaluation.story_sets import WRITTEN, StoryTask, story_tasks
from unimm.evaluation.story_summary import SetResult, summarise_stories
from unimm.evaluation.story_sweep import choose_sampling
from unimm.evaluation.story_written import written_task
from unimm.pipeline import Pipeline

Tell = Callable[[str], None]


def score_stories(
    pipeline: Pipeline, judge: SightingJudge, config: StoryRunConfig, *, tell: Tell
) -> dict[str, Any]:
    """Run all stages; pictures that are on disk already are not drawn again.

    Args:
        pipeline: the model.
        judge: sees what pictures show.
        config: the run.
        tell: called with a line for each thing done.

    Returns:
        The summary, see ``summarise_stories``, with the comparison of settings in ``sweep``.

    Raises:
        ValueError: the output folder belongs to other requests, or to another generator.
    """
    sampling, sweep = choose_sampling(pipeline, judge, config, tell=tell)
    requests = make_requests(config)
    folder = StoryFolder(config.output, requests)
    generator = _generator(pipeline, config, sampling)
    folder.files.claim("generator", generator)
    tell(f"requests {folder.digest}: {len(requests)} stories in {folder.files.requests_path}")
    _draw_missing(pipeline, folder, sampling, config, tell)
    tasks = [_as_written(folder, number) for number in range(len(requests))]
    judged = judge_stories(tasks, folder.read(), judge.look)
    write_results(folder.files.root / "results.jsonl", requests, judged)
    tell(f"judged {len(judged)} stories, {num_failed(judged)} pictures failed")
    by_set: dict[str, list[tuple[StoryTask, JudgedStory]]] = {}
    for request, story in zip(requests, judged, strict=True):
        by_set.setdefault(request.set_name, []).append((request.task, story))
    references = _References(pipeline, judge, config)
    results = []
    for split in (Split[name.upper()] for name in config.splits):
        for name in (*config.sets, *config.controls):
            results.append(_set_result(by_set, references, split, name))
            tell(f"measured {results[-1].key}")
    facts = {
        "requests": {"hash": folder.digest, "seed": config.seed, "stories": config.num_stories},
        "generator": generator,
        "judge": {
            "name": judge.name,
            "fingerprint": judge.fingerprint,
            "accuracy": dict(judge.accuracy),
        },
        "training pictures": {
            "documents": config.num_training_documents,
            "seed": config.training_seed,
        },
    }
    summary = summarise_stories(results, facts=facts) | {"sweep": sweep}
    write_text(folder.files.root / "summary.json", json.dumps(summary, indent=1) + "\n")
    page = story_page(summary, results, max_rows=config.max_rows)
    write_text(folder.files.root / "report.html", page)
    return summary


def make_requests(config: StoryRunConfig) -> list[StoryRequest]:
    """All stories of a run: sets, the same without context and described, and controls."""
    requests: list[StoryRequest] = []

    def add(set_name: str, tasks: Sequence[StoryTask]) -> None:
        requests.extend(StoryRequest(set_name=set_name, task=task) for task in tasks)

    for split in (Split[name.upper()] for name in config.splits):
        where = split.name.lower()
        for name in config.sets:
            tasks = story_tasks(name, split, num=config.num_stories, seed=config.seed)
            add(f"{where} {name}", tasks)
            if name == WRITTEN:
                continue
            add(f"{where} {name}, {NO_CONTEXT}", [without_context(task) for task in tasks])
            add(f"{where} {name}, {DESCRIBED}", [described(task) for task in tasks])
        for name in config.controls:
            tasks = control_tasks(name, split, num=config.num_stories, seed=config.seed)
            add(f"{where} {name}", tasks)
    return requests


def _generator(
    pipeline: Pipeline, config: StoryRunConfig, sampling: StorySampling
) -> dict[str, Any]:
    """All that makes the same pictures again."""
    return {
        "model": config.model,
        **({"objective": config.objective} if config.objective else {}),
        "sampling": asdict(sampling),
        "seed": config.seed,
        "image size": pipeline.image_size,
        **pipeline.hashes,
    }


def _draw_missing(
    pipeline: Pipeline,
    folder: StoryFolder,
    sampling: StorySampling,
    config: StoryRunConfig,
    tell: Tell,
) -> None:
    """Draw the stories that lack a page; a story's pictures are the same whatever is left."""
    missing = folder.missing()

    def keep(story: int, page: int, drawn: DrawnPage) -> None:
        assert drawn.picture is not None
        folder.write(missing[story], page, drawn.picture, text=drawn.text)

    draw_tasks(
        pipeline,
        [folder.requests[number].task for number in missing],
        sampling,
        seed=config.seed,
        batch_size=config.batch_size,
        on_page=keep,
        tell=tell,
    )


def _as_written(folder: StoryFolder, number: int) -> StoryTask:
    """A story to judge: the world's own, or what the model made of its page 1."""
    task = folder.requests[number].task
    return written_task(task, folder.read_texts(number)) if task.is_written else task


class _References:
    """Makes and judges the pictures that no model draws."""

    def __init__(self, pipeline: Pipeline, judge: SightingJudge, config: StoryRunConfig) -> None:
        self.look, self.size = judge.look, pipeline.image_size
        self.reconstruct = pipeline.reconstruct
        self.renderer = Renderer(device=pipeline.device)
        scenes = training_scenes(config.num_training_documents, seed=config.training_seed)
        self.pool = NearestPages(scenes)

    def tables(
        self, tasks: Sequence[StoryTask], stories: Sequence[JudgedStory]
    ) -> dict[str, Tables]:
        """Both ceilings and both baselines of a set."""
        true = [task.scenes for task in tasks]

        def measure(scenes, view=None) -> Tables:
            pictures = render_stories(scenes, self.renderer, size=self.size, view=view)
            return measure_stories(judge_stories(tasks, pictures, self.look))

        tables = {
            CEILING: measure(true),
            CEILING_AFTER: measure(true, self.reconstruct),
            RANDOM: random_image_tables(stories),
        }
        if tasks[0].is_written:  # nobody knows a scene to look up
            return tables
        nearest = [[self.pool.nearest(scene) for scene in scenes] for scenes in true]
        return tables | {NEAREST: measure(nearest)}


def _set_result(
    by_set: dict[str, list[tuple[StoryTask, JudgedStory]]],
    references: _References,
    split: Split,
    name: str,
) -> SetResult:
    key = f"{split.name.lower()} {name}"
    tasks = [task for task, _ in by_set[key]]
    stories = [story for _, story in by_set[key]]
    tables = references.tables(tasks, stories)
    for reference in (NO_CONTEXT, DESCRIBED):
        if f"{key}, {reference}" in by_set:
            pairs = by_set[f"{key}, {reference}"]
            tables[reference] = measure_stories(story for _, story in pairs)
    return SetResult(
        split=split,
        name=name,
        stories=stories,
        references=tables,
        other=tasks[0].other,
    )
