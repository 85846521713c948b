"""Does a picture, or a word, follow the name before it? Told by likelihood; nothing is drawn.

Two characters are known; a later page names one of them, and its true picture is read. The same
picture is read again under the other one's name. By how many nats is it likelier under the right
name? A model that has not learned whom a name means gives 0, however well it draws; the measure
moves before drawn pictures do. Words are asked the same: is the look of who is named likelier
in a sentence behind the page than the other one's?
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimm.data.world.render import Renderer
from unimm.data.world.splits import Split
from unimm.data.world.words import indefinite, noun_phrase
from unimm.document import Document, ImageTokens, Part, layout_document, pack
from unimm.evaluation.story_controls import figure_of, shares_pronoun
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
    return _table(pipeline, config, name=pipeline.drawing.name, gains=_picture_gains)


def score_words(pipeline: Pipeline, config: BindingConfig) -> dict[str, dict[str, Any]]:
    """Ask the text head whether ``Mia is a blue fox`` is likelier than the other one's look.

    Returns:
        Rows as of ``score_binding``.
    """
    return _table(pipeline, config, name="words", gains=_word_gains)


def _table(
    pipeline: Pipeline,
    config: BindingConfig,
    *,
    name: str,
    gains: Callable[[Pipeline, Sequence[StoryTask]], Iterator[float]],
) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for split in (Split[x.upper()] for x in config.splits):
        for kind in config.sets:
            tasks = story_tasks(kind, split, num=4 * config.num_stories + 16, seed=config.seed)
            tasks = [task for task in tasks if shares_pronoun(task.truth)][: config.num_stories]
            found = np.array([*gains(pipeline, tasks)])
            table[f"{name}, {split.name.lower()} {kind}"] = {
                "nats": round(float(found.mean()), 2),
                "standard error": round(float(found.std() / len(found) ** 0.5), 2),
                "follow the name": round(float((found > 0).mean()), 3),
                "pages": len(found),
            }
    return table


def _picture_gains(pipeline: Pipeline, tasks: Sequence[StoryTask]) -> Iterator[float]:
    for task, tokens in _seen(pipeline, tasks):
        for page, texts, exchanged in named_pages(task):
            right = picture_nats(pipeline, texts, tokens[: page + 1], task.first_page)
            yield picture_nats(pipeline, exchanged, tokens[: page + 1], task.first_page) - right


def _word_gains(pipeline: Pipeline, tasks: Sequence[StoryTask]) -> Iterator[float]:
    for task, tokens in _seen(pipeline, tasks):
        # No hats: species and tint together always tell two characters apart.
        looks = {
            who["name"]: indefinite(noun_phrase(figure_of(who))) for who in task.truth["characters"]
        }
        for page, texts, _ in named_pages(task):
            (named,) = (who["name"] for who in task.truth["pages"][page]["characters"])
            (other,) = looks.keys() - {named}
            right, wrong = (
                words_nats(pipeline, texts, f" {named} is {looks[name]}", tokens[:page])
                for name in (named, other)
            )
            yield wrong - right


def _seen(
    pipeline: Pipeline, tasks: Sequence[StoryTask]
) -> Iterator[tuple[StoryTask, list[ImageTokens]]]:
    """Stories with their true pictures as tokens."""
    rendered = render_stories([task.scenes for task in tasks], Renderer(), size=pipeline.image_size)
    for task, pictures in zip(tasks, rendered, strict=True):
        yield task, [encode_image(pipeline, x) for x in pictures if x is not None]


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
        parts += [_words(pipeline, text), Part(tokens=picture, is_drawn=page >= num_given)]
    losses = _losses(pipeline, parts)[pipeline.drawing.name]
    drawn = losses.view(len(tokens) - num_given, -1)  # (pictures, positions)
    return float(drawn[-1].double().sum())


def words_nats(
    pipeline: Pipeline, texts: Sequence[str], words: str, tokens: Sequence[ImageTokens]
) -> float:
    """Loss of words behind the last text, whose page has no picture yet, summed over tokens.

    Args:
        pipeline: the model.
        texts: of the pages.
        words: how the last text goes on.
        tokens: pictures of all pages but the last, which are given.
    """
    parts: list[Part] = []
    for text, picture in zip(texts, tokens, strict=False):
        parts += [_words(pipeline, text), Part(tokens=picture, is_drawn=False)]
    parts.append(_words(pipeline, texts[-1] + words))
    encode = pipeline.text_tokenizer.encode
    count = len(encode(texts[-1] + words)) - len(encode(texts[-1]))
    losses = _losses(pipeline, parts)["text"]
    return float(losses[len(losses) - count :].double().sum())


def _words(pipeline: Pipeline, text: str) -> Part:
    return Part(text_ids=torch.tensor(pipeline.text_tokenizer.encode(text)))


def _losses(pipeline: Pipeline, parts: Sequence[Part]) -> dict[str, Tensor]:
    """Loss of every position of one document, by head."""
    special, objective = pipeline.model.special, pipeline.drawing
    layout = layout_document(Document(parts=tuple(parts), is_open=True), objective, special)
    heads = pipeline.model.config.heads
    batch = pack([[layout]], row_length=len(layout), heads=heads, pad_id=special.pad)
    with torch.inference_mode():
        return pipeline.model.head_losses(batch.to(pipeline.device), backend="dense")
