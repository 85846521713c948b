"""Let a judge that is asked in words score a folder of pictures, or compare two folders."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from unimm.data.world.render import Renderer
from unimm.evaluation.asked_page import asked_page, pairs_page
from unimm.evaluation.asked_summary import summarise_asked
from unimm.evaluation.asking_judge import (
    faithfulness_judge,
    question_judge,
    rating_judge,
    read_known,
)
from unimm.evaluation.judged_pairs import judge_pairs, summarise_pairs
from unimm.evaluation.picture_folder import (
    PictureFolder,
    Sample,
    read_geneval_folder,
    write_text,
)
from unimm.evaluation.picture_references import CEILING, RANDOM, other_prompts, true_scenes
from unimm.evaluation.picture_requests import PictureRequest, hash_text, read_requests
from unimm.evaluation.picture_results import judge_samples
from unimm.evaluation.pictures import render_pictures
from unimm.judges import pairwise
from unimm.judges.http import HttpJudgeConfig
from unimm.judges.judge import Judge, JudgeConfig

Rows = list[list[Sample]]
_PROTOCOLS = {
    "drawbench": faithfulness_judge,
    "rating": rating_judge,
    "questions": question_judge,
}


@dataclass(frozen=True, kw_only=True)
class AskedRunConfig:
    """One run of a judge that is asked in words.

    Attributes:
        protocol: ``drawbench`` asks whether a picture is faithful to its prompt; ``rating`` how
            far, from 0 to 10; ``questions`` asks the questions of WorldEval's requests one by one;
            ``pairwise`` asks which picture of two folders is the better one, in both orders.
        judge: who is asked: an ``http`` endpoint, the ``oracle``, or a ``replay``.
        samples: a folder that ``eval/score_images.py`` wrote, or one of GenEval's layout:
            ``00000/metadata.jsonl`` with tag, prompt and include (which may be empty), and
            ``00000/samples/00000.png``.
        against: the other folder of ``pairwise``.
        num_samples: pictures of each prompt.
        output: folder of ``results.jsonl``, ``summary.json`` and ``report.html``.
        device: "cpu" or "cuda", draws the true pictures; empty takes the GPU where there is one.
    """

    protocol: Literal["drawbench", "rating", "questions", "pairwise"] = "drawbench"
    judge: JudgeConfig = field(default_factory=HttpJudgeConfig)
    samples: str = "runs/worldeval"
    against: str = ""
    num_samples: int = 1
    output: str = "runs/judged"
    device: str = ""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be 1 or more, got {self.num_samples}")
        if (self.protocol == "pairwise") != bool(self.against):
            raise ValueError(
                f"protocol {self.protocol} with against {self.against!r}: pairwise needs two "
                "folders, the others take one"
            )


def run_asked(
    judge: Judge, config: AskedRunConfig, *, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Judge, and write results, summary and report; replies that a cache holds are not asked again.

    Args:
        judge: who is asked.
        config: the run; its own ``judge`` is not looked at.
        tell: called with a line for each thing done.

    Returns:
        The summary.

    Raises:
        ValueError: a folder holds no pictures, or the output belongs to another run.
        JudgeError: the judge cannot answer.
    """
    requests, rows = open_folder(config.samples, config.num_samples)
    tell(f"{config.samples}: {len(requests)} prompts, {config.num_samples} pictures each")
    run = _compare if config.protocol == "pairwise" else _score
    summary, page = run(judge, config, requests, rows)
    write_text(Path(config.output) / "summary.json", json.dumps(summary, indent=1) + "\n")
    write_text(Path(config.output) / "report.html", page)
    return summary


def open_folder(folder: str | Path, num_samples: int) -> tuple[list[PictureRequest], Rows]:
    """Read requests and pictures of a scored run, or of a folder of GenEval's layout.

    Raises:
        ValueError: there is no such folder, or it holds no requests or no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; draw pictures with eval/score_images.py first")
    files = PictureFolder(folder)
    if files.requests_path.is_file():
        requests = read_requests(files.requests_path)
    else:
        requests, files.samples = read_geneval_folder(folder), folder
    rows = files.read_samples(requests, num_samples)
    if all(sample.picture is None for row in rows for sample in row):
        raise ValueError(f"{files.samples} holds no picture that can be read")
    return requests, rows


def _score(
    answerer: Judge, config: AskedRunConfig, requests: Sequence[PictureRequest], rows: Rows
) -> tuple[dict[str, Any], str]:
    """Summary and report of a folder."""
    known = read_known(config.samples)
    judge = _PROTOCOLS[config.protocol](answerer, known=known)
    output = PictureFolder(config.output)
    output.keep_requests(requests)
    output.claim("judge", {"name": judge.name, "fingerprint": judge.fingerprint})
    results = judge_samples(judge, requests, rows, output.root / "results.jsonl")
    tables = {RANDOM: other_prompts(requests, rows)}
    if all(request.scene is not None for request in requests):
        tables[CEILING] = _true_pictures(requests, rows, config.device)
    references = {
        name: judge_samples(
            judge, requests, table, output.root / "references" / f"{name.replace(' ', '_')}.jsonl"
        )
        for name, table in tables.items()
    }
    facts = _facts(judge.name, judge.fingerprint, config)
    summary = summarise_asked(results, references, known=known, facts=facts)
    return summary, asked_page(summary, results, known=known)


def _compare(
    answerer: Judge, config: AskedRunConfig, requests: Sequence[PictureRequest], rows: Rows
) -> tuple[dict[str, Any], str]:
    """Summary and report of two folders."""
    others, theirs = open_folder(config.against, config.num_samples)
    if [x.prompt for x in others] != [x.prompt for x in requests]:
        raise ValueError(
            f"{config.samples} and {config.against} hold pictures of different prompts; "
            "draw both for one requests.jsonl"
        )
    known = {**read_known(config.against), **read_known(config.samples)}
    results = judge_pairs(answerer, requests, rows, theirs, known=known)
    path = PictureFolder(config.output).root / "results.jsonl"
    write_text(path, "".join(json.dumps(x.to_json()) + "\n" for x in results))
    fingerprint = hash_text(answerer.name + pairwise.INSTRUCTION)
    summary = summarise_pairs(results, facts=_facts(answerer.name, fingerprint, config))
    return summary, pairs_page(summary, results)


def _true_pictures(requests: Sequence[PictureRequest], rows: Rows, device: str) -> Rows:
    """Renders of what was asked for, in the size of the generator's pictures."""
    # Devices round differently, and verdicts go by pixels: draw where score_images.py would.
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    size = next(x.picture.width for row in rows for x in row if x.picture is not None)
    scenes = true_scenes(requests)
    pictures = render_pictures(scenes, Renderer(device=device), size=max(16, min(256, size)))
    return [[Sample.of(picture)] for picture in pictures]


def _facts(name: str, fingerprint: str, config: AskedRunConfig) -> dict[str, Any]:
    return {
        "protocol": config.protocol,
        "judge": {"name": name, "fingerprint": fingerprint},
        "samples": config.samples,
        **({"against": config.against} if config.against else {}),
    }
