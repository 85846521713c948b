"""Let a model describe renders, and score what it says beside its ceiling and its baselines."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from unimm.data.world.captions import CaptionedScene, sample_caption_scene
from unimm.data.world.compose import heldout_facts
from unimm.data.world.render import Renderer
from unimm.data.world.scene import sample_rng
from unimm.evaluation.caption_scores import CaptionScore, score_caption, summarise_captions
from unimm.evaluation.picture_folder import write_text
from unimm.evaluation.pictures import render_pictures
from unimm.evaluation.report_parts import caption_cards, table_page
from unimm.evaluation.worldeval import SPLITS
from unimm.generation.story import generate_story
from unimm.pipeline import Pipeline

CEILING = "world's own caption"
OTHER = "caption of another picture"
BLIND = "caption without the picture"
REFERENCES: tuple[str, ...] = (CEILING, OTHER, BLIND)
_COLUMNS = ("precision", "recall", "things invented", "captions that invent", "all right")


@dataclass(frozen=True, kw_only=True)
class CaptionRunConfig:
    """One run of the caption scores.

    Attributes:
        model: shipped name, folder or Hub id.
        output: folder of ``captions.jsonl``, ``summary.json`` and ``report.html``.
        ledger: folder of the ledger; empty writes none.
        splits: ``seen`` and ``heldout``.
        num_pictures: of each split, at least 2.
        batch_size: pictures described at once.
        opening: how every caption begins, so that the model describes and does not ask; it states
            nothing.
        temperature: of the text; 0 is greedy.
        seed: of the scenes and of the text.
        max_cards: pictures of each split in the report.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    model: str = "storyworld"
    output: str = "runs/captions"
    ledger: str = ""
    splits: tuple[str, ...] = tuple(SPLITS)
    num_pictures: int = 500
    batch_size: int = 128
    opening: str = "The picture shows"
    temperature: float = 0.0
    seed: int = 7002
    max_cards: int = 24
    device: str = ""

    def __post_init__(self) -> None:
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits:
            raise ValueError(f"splits {self.splits}: unknown {unknown}; choose from {[*SPLITS]}")
        if self.num_pictures < 2 or self.batch_size < 1:
            raise ValueError(
                f"num_pictures {self.num_pictures}, batch_size {self.batch_size}: a baseline takes "
                "another picture's caption, so describe 2 or more, 1 or more at once"
            )


def score_captions(
    pipeline: Pipeline,
    config: CaptionRunConfig,
    *,
    device: torch.device | str = "cpu",
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Describe and score; writes all files of ``config.output``.

    Args:
        pipeline: the model.
        config: the run.
        device: of the renderer.
        tell: called with a line for each thing done.

    Returns:
        The summary: ``facts``, ``splits`` and ``table``.
    """
    renderer = Renderer(device=device)
    described: list[_Described] = []
    for split in config.splits:
        drawn = caption_scenes(split, num=config.num_pictures, seed=config.seed)
        scenes = [x.scene for x in drawn]
        pictures = render_pictures(scenes, renderer, size=pipeline.image_size)
        captions = describe(pipeline, pictures, config)
        blind = describe(pipeline, [None] * len(pictures), config)
        described.append(_Described(split, drawn, pictures, captions, blind))
        tell(f"{split}: {len(captions)} captions")
    splits = {x.split: _rates(x) for x in described}
    facts = {"model": pipeline.name, **pipeline.hashes, "opening": config.opening}
    facts |= {"temperature": config.temperature, "seed": config.seed}
    summary = {"facts": facts, "splits": splits, "table": _table(splits)}
    _write(Path(config.output), summary, described, config.max_cards)
    return summary


class _Described(NamedTuple):
    """A split's pictures and what the model says of them, and without them."""

    split: str
    drawn: list[CaptionedScene]
    pictures: list[Image.Image]
    captions: list[str]
    blind: list[str]


def _rates(x: _Described) -> dict[str, Any]:
    references = {
        CEILING: [drawn.caption for drawn in x.drawn],
        OTHER: [x.captions[i - 1] for i in range(len(x.captions))],
        BLIND: x.blind,
    }
    rates = summarise_captions(_scores(x.drawn, x.captions))
    return rates | {
        name: summarise_captions(_scores(x.drawn, texts)) for name, texts in references.items()
    }


def _write(
    root: Path, summary: Mapping[str, Any], described: Sequence[_Described], max_cards: int
) -> None:
    """``captions.jsonl``, ``summary.json`` and ``report.html``, where failures come first."""
    root.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    sections: list[tuple[str, str]] = []
    for x in described:
        scores = _scores(x.drawn, x.captions)
        for drawn, text, score in zip(x.drawn, x.captions, scores, strict=True):
            entry = {"split": x.split, "caption": text, "truth": drawn.caption, **_plain(score)}
            lines.append(json.dumps(entry) + "\n")
        order = sorted(range(len(scores)), key=lambda i: _share_right(scores[i]))[:max_cards]
        cards = [
            (x.pictures[i], x.captions[i], x.drawn[i].caption, scores[i].is_right) for i in order
        ]
        sections.append((x.split, caption_cards(cards)))
    write_text(root / "captions.jsonl", "".join(lines))
    write_text(root / "summary.json", json.dumps(summary, indent=1) + "\n")
    title = f"Captions: {summary['facts']['model']}"
    page = table_page(title, summary["table"], sections, summary["facts"])
    write_text(root / "report.html", page)


def caption_scenes(split: str, *, num: int, seed: int) -> list[CaptionedScene]:
    """Scenes with the world's own descriptive captions, from another stream than training's.

    Held-out pictures show something that training never does.
    """
    drawn = [
        sample_caption_scene(
            sample_rng(seed, int(SPLITS[split]), index), SPLITS[split], level="descriptive"
        )
        for index in range(num)
    ]
    assert all(bool(heldout_facts(x.scene)) == (split == "heldout") for x in drawn)
    return drawn


def describe(
    pipeline: Pipeline, pictures: Sequence[Image.Image | None], config: CaptionRunConfig
) -> list[str]:
    """The model's captions; None asks for one without a picture."""
    captions: list[str] = []
    for start in range(0, len(pictures), config.batch_size):
        chunk = pictures[start : start + config.batch_size]
        stories = generate_story(
            pipeline,
            [[config.opening] if x is None else [x, config.opening] for x in chunk],
            num_images=0,
            seed=[config.seed + start + i for i in range(len(chunk))],
            text_temperature=config.temperature,
        )
        captions += [" ".join(story.texts) for story in stories]
    return captions


def _scores(drawn: Sequence[CaptionedScene], captions: Sequence[str]) -> list[CaptionScore]:
    return [score_caption(text, x.scene) for x, text in zip(drawn, captions, strict=True)]


def _share_right(score: CaptionScore) -> float:
    asked = sum(score.stated.values()) + sum(score.wanted.values())
    return (sum(score.true.values()) + sum(score.said.values())) / max(1, asked)


def _plain(score: CaptionScore) -> dict[str, Any]:
    return {
        "stated": sum(score.stated.values()),
        "true": sum(score.true.values()),
        "wanted": sum(score.wanted.values()),
        "said": sum(score.said.values()),
        "invented": list(score.invented),
    }


def _table(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row a split, then what it must be seen beside."""
    table: dict[str, dict[str, Any]] = {}
    for split, rows in splits.items():
        for name, row in ((split, rows), *((f"{split}, {x}", rows[x]) for x in REFERENCES)):
            table[name] = {x: _say(row[x], is_bare=name == split) for x in _COLUMNS}
            table[name] |= {"captions": row["captions"], "silent": row["silent"]}
    return table


def _say(rate: Mapping[str, float] | None, *, is_bare: bool) -> str | float:
    if rate is None:
        return "nothing said"
    if not is_bare:
        return round(rate["value"], 3)
    return f"{rate['value']:.3f} [{rate['low']:.2f}, {rate['high']:.2f}]"
