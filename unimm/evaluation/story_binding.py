"""Does a picture follow the name in its text? Told by likelihood, without drawing anything.

Two characters are known; a later page names one of them, and its true picture is read. The same
picture is read again under the other one's name. By how many nats is it likelier under the right
name? A model that has not learned whom a name means gives 0, however well it draws; the measure
moves before drawn pictures do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unimm.data.world.render import Renderer
from unimm.data.world.splits import Split
from unimm.document import Document, ImageTokens, Part, layout_document, pack
from unimm.evaluation.story_controls import shares_pronoun
from unimm.evaluation.story_judging import render_stories
from unimm.evaluation.story_sets import StoryTask, story_tasks
from unimm.pictures import encode_image
from unimm.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class BindingConfig:
    """One run of ``eval/score_binding.py``.

    Attributes:
        model: shipped name, folder or Hub id; each of its objectives is asked.
        ledger: folder of the ledger; empty writes none.
        sets: of ``story_sets``, with two characters.
        splits: validation (seen combinations) and held-out.
        num_stories: of each set and split; both characters are ``she``, or both ``he``, so that
            only the name tells them apart.
        seed: of the stories.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    model: str = "storyworld"
    ledger: str = ""
    sets: tuple[str, ...] = ("pair", "picture pair")
    splits: tuple[str, ...] = ("validation", "heldout")
    num_stories: int = 64
    seed: int = 7777
    device: str = ""

    def __post_init__(self) -> None:
        if wrong := [name for name in self.sets if not name.endswith("pair")]:
            raise ValueError(f"sets {wrong} have one character; choose from pair, picture pair")


def score_binding(pipeline: Pipeline, config: BindingConfig) -> dict[str, dict[str, Any]]:
    """Ask a model, by the objective that draws, of every later page that names one of two.

    Returns:
        A row for each set and split: ``nats`` by which pictures are likelier under the right name,
        with their standard error; how many ``follow the name`` (half by chance); ``pages``.
    """
    table: dict[str, dict[str, Any]] = {}
    for split in (Split[name.upper()] for name in config.splits):
        for name in config.sets:
            tasks = story_tasks(name, split, num=4 * config.num_stories + 16, seed=config.seed)
            tasks = [task for task in tasks if shares_pronoun(task.truth)][: config.num_stories]
            gains = np.array([*_gains(pipeline, tasks)])
            key = f"{pipeline.drawing.name}, {split.name.lower()} {name}"
            table[key] = {
                "nats": round(float(gains.mean()), 2),
                "standard error": round(float(gains.std() / len(gains) ** 0.5), 2),
                "follow the name": round(float((gains > 0).mean()), 3),
                "pages": len(gains),
            }
    return table


def _gains(pipeline: Pipeline, tasks: Sequence[StoryTask]) -> Iterator[float]:
    rendered = render_stories([task.scenes for task in tasks], Renderer(), size=pipeline.image_size)
    for task, pictures in zip(tasks, rendered, strict=True):
        tokens = [encode_image(pipeline, picture) for picture in pictures if picture is not None]
        for page, texts, exchanged in named_pages(task):
            right = picture_nats(pipeline, texts, tokens[: page + 1], task.first_page)
            yield picture_nats(pipeline, exchanged, tokens[: page + 1], task.first_page) - right


def named_pages(task: StoryTask) -> Iterator[tuple[int, list[str], list[str]]]:
    """The later pages that name one of two characters whom the story knows.

    Yields:
        Number of the page; the texts up to it; the same with the other one's name on it.
    """
    names = [character["name"] for character in task.truth["characters"]]
    for page, truth in enumerate(task.truth["pages"]):
        known = {subject for subject, attribute, *_ in truth["carried"] if attribute == "species"}
        named = [character["name"] for character in truth["characters"]]
        if len(named) == 1 and named[0] in known and len(names) == 2:
            (other,) = (name for name in names if name != named[0])
            texts = list(task.page_texts[: page + 1])
            yield page, texts, [*texts[:-1], texts[-1].replace(named[0], other)]


def picture_nats(
    pipeline: Pipeline, texts: Sequence[str], tokens: Sequence[ImageTokens], num_given: int
) -> float:
    """Loss of the last picture behind its story, summed over its positions.

    Args:
        pipeline: the model; randomness of its objective is the same in every call.
        texts: of the pages.
        tokens: their pictures.
        num_given: first pictures that are given, not drawn.
    """
    parts: list[Part] = []
    for page, (text, picture) in enumerate(zip(texts, tokens, strict=True)):
        ids = torch.tensor(pipeline.text_tokenizer.encode(text))
        parts += [Part(text_ids=ids), Part(tokens=picture, is_drawn=page >= num_given)]
    special, objective = pipeline.model.special, pipeline.drawing
    layout = layout_document(Document(parts=tuple(parts), is_open=True), objective, special)
    heads = pipeline.model.config.heads
    batch = pack([[layout]], row_length=len(layout), heads=heads, pad_id=special.pad)
    with torch.inference_mode():
        losses = pipeline.model.head_losses(batch.to(pipeline.device), backend="dense")
    drawn = losses[objective.name].view(len(tokens) - num_given, -1)  # (pictures, positions)
    return float(drawn[-1].double().sum())
