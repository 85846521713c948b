"""Score a picture generator: requests, samples, results, references, then summary and report."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unimm.data.world.render import Renderer
from unimm.evaluation.nearest_scenes import NearestScenes, training_scenes
from unimm.evaluation.picture_config import PictureRunConfig
from unimm.evaluation.picture_distribution import compare_run
from unimm.evaluation.picture_drawing import draw_missing
from unimm.evaluation.picture_folder import PictureFolder, Sample, write_text
from unimm.evaluation.picture_judge import PictureJudge
from unimm.evaluation.picture_page import picture_page
from unimm.evaluation.picture_references import CEILING, NEAREST, Rows, make_references
from unimm.evaluation.picture_requests import PictureRequest
from unimm.evaluation.picture_results import Result, judge_samples
from unimm.evaluation.picture_summary import summarise_pictures
from unimm.evaluation.picture_sweep import choose_sampling
from unimm.evaluation.worldeval import sample_requests
from unimm.judges.extractors import Extractor
from unimm.pipeline import Pipeline

Tell = Callable[[str], None]


def score_pictures(
    pipeline: Pipeline | None,
    judge: PictureJudge,
    config: PictureRunConfig,
    *,
    extractor: Extractor | None = None,
    device: torch.device | str = "cpu",
    tell: Tell,
) -> dict[str, Any] | None:
    """Run all stages; what is on disk already is not done again.

    Args:
        pipeline: the generator; None judges what lies in ``samples/``.
        judge: the judge.
        config: the run.
        extractor: whose features tell how near the pictures are to real ones; None leaves that
            out.
        device: of renderer and extractor.
        tell: called with a line for each thing done.

    Returns:
        The summary. None where there is no generator and no sample yet: the requests are written
        and wait for their pictures.

    Raises:
        ValueError: the folder belongs to other requests, another generator or another judge.
    """
    folder = PictureFolder(config.output)
    requests = make_requests(config)
    digest = folder.keep_requests(requests)
    tell(f"requests {digest}: {len(requests)} prompts in {folder.requests_path}")
    generator = _draw(pipeline, judge, folder, requests, config, tell)
    if pipeline is None and not any(folder.samples.glob("*/samples/*.png")):
        tell(f"no pictures yet: fill {folder.samples}/NUMBER/samples/00000.png and run again")
        return None
    folder.claim("judge", {"name": judge.name, "fingerprint": judge.fingerprint})
    rows = folder.read_samples(requests, config.num_samples)
    results = judge_samples(judge, requests, rows, folder.root / "results.jsonl")
    num_failed = sum(bool(x.verdict.problem) for x in results)
    num_beyond = folder.num_beyond(len(requests), config.num_samples)
    tell(f"judged {len(results)} pictures: {num_failed} failed, {num_beyond} more not asked for")
    size = pipeline.image_size if pipeline is not None else _size(rows)
    tables = _reference_rows(pipeline, requests, rows, config, size, device)
    references = _judge_references(judge, requests, tables, folder.root / "references")
    tell("judged the references")
    facts = {
        "requests": {"hash": digest, "seed": config.seed},
        **generator,
        "pictures not asked for": num_beyond,
        "judge": _judge_facts(judge),
        "training documents": {
            "number": config.num_training_documents,
            "seed": config.training_seed,
        },
    }
    summary = summarise_pictures(results, references, facts=facts)
    if extractor is not None:
        summary["distribution"] = compare_run(
            extractor, requests, rows, tables, config, size=size, device=device, tell=tell
        )
    write_text(folder.root / "summary.json", json.dumps(summary, indent=1) + "\n")
    truth, nearest = (_first(requests, tables[name]) for name in (CEILING, NEAREST))
    page = picture_page(summary, results, truth=truth, nearest=nearest, max_cards=config.max_cards)
    write_text(folder.root / "report.html", page)
    return summary


def make_requests(config: PictureRunConfig) -> list[PictureRequest]:
    """The prompts of all tasks and splits of a run."""
    return [
        request
        for split in config.splits
        for tag in config.tasks
        for request in sample_requests(
            tag, split, num=config.num_prompts, seed=config.seed, styles=config.styles
        )
    ]


def _draw(
    pipeline: Pipeline | None,
    judge: PictureJudge,
    folder: PictureFolder,
    requests: Sequence[PictureRequest],
    config: PictureRunConfig,
    tell: Tell,
) -> dict[str, Any]:
    """Draw what is missing; gives all that makes the same pictures again."""
    folder.write_metadata(requests)
    if pipeline is None:
        generator: dict[str, Any] = {"model": f"pictures in {folder.root.name}"}
        folder.claim("generator", generator)
        return {"generator": generator}
    sampling, sweep = choose_sampling(pipeline, judge, config, folder, tell=tell)
    generator = {
        "model": config.model,
        **({"objective": config.objective} if config.objective else {}),
        "sampling": asdict(sampling),
        "seed": config.seed,
        "image size": pipeline.image_size,
        **pipeline.hashes,
    }
    folder.claim("generator", generator)
    draw_missing(
        pipeline,
        folder,
        requests,
        sampling,
        num_samples=config.num_samples,
        seed=config.seed,
        batch_size=config.batch_size,
        tell=tell,
    )
    return {"generator": generator, "sweep": sweep} if sweep else {"generator": generator}


def _judge_facts(judge: PictureJudge) -> dict[str, Any]:
    accuracy = dict(judge.accuracy)
    return {"name": judge.name, "fingerprint": judge.fingerprint, "accuracy": accuracy}


def _reference_rows(
    pipeline: Pipeline | None,
    requests: Sequence[PictureRequest],
    rows: Rows,
    config: PictureRunConfig,
    size: int,
    device: torch.device | str,
) -> dict[str, Rows | None]:
    pool = NearestScenes(training_scenes(config.num_training_documents, seed=config.training_seed))
    return make_references(
        requests,
        rows,
        Renderer(device=device),
        size=size,
        pool=pool,
        reconstruct=None if pipeline is None else pipeline.reconstruct,
    )


def _judge_references(
    judge: PictureJudge,
    requests: Sequence[PictureRequest],
    tables: Mapping[str, Rows | None],
    folder: Path,
) -> dict[str, list[Result] | None]:
    return {
        name: None
        if rows is None
        else judge_samples(judge, requests, rows, folder / f"{name.replace(' ', '_')}.jsonl")
        for name, rows in tables.items()
    }


def _size(rows: Rows) -> int:
    """Side of the pictures of others, within what the renderer draws."""
    sides = [x.picture.width for row in rows for x in row if x.picture is not None]
    return max(16, min(256, sides[0])) if sides else 128


def _first(requests: Sequence[PictureRequest], rows: Rows | None) -> dict[str, Image.Image]:
    """The first picture of each request."""
    firsts: list[Sample] = [row[0] for row in rows or []]
    return {
        request.id: sample.picture
        for request, sample in zip(requests, firsts, strict=True)
        if sample.picture is not None
    }
