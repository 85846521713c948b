"""Choose how pictures are drawn, on prompts that are not scored afterwards."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from unimm.document import mix_seed
from unimm.evaluation.picture_config import PictureRunConfig
from unimm.evaluation.picture_drawing import draw_prompts
from unimm.evaluation.picture_folder import PictureFolder, write_text
from unimm.evaluation.picture_judge import PictureJudge
from unimm.evaluation.picture_requests import DESCRIPTIVE, PictureRequest
from unimm.evaluation.worldeval import sample_requests
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline

SWEEP_SEED_OFFSET = 1_000_003  # other prompts than the scored ones


def choose_sampling(
    pipeline: Pipeline,
    judge: PictureJudge,
    config: PictureRunConfig,
    folder: PictureFolder,
    *,
    tell: Callable[[str], None],
) -> tuple[SamplingConfig, dict[str, dict[str, float]]]:
    """Draw the prompts of the sweep with every setting, and take the best.

    Args:
        pipeline: the generator.
        judge: the judge.
        config: the run; without a sweep its sampling is taken.
        folder: of the run; ``sweep.json`` keeps the scores, so that a broken run goes on alike.
        tell: called with a line for each setting.

    Returns:
        The setting with the best mean over the tasks, and of each setting its score by task and
        ``mean``, without the descriptive prompts.

    Raises:
        ValueError: the folder holds another sweep.
    """
    if not config.sweep:
        return config.sampling, {}
    settings = {setting.name: asdict(setting.sampling) for setting in config.sweep}
    folder.claim("sweep", {"settings": settings, "prompts": config.sweep_prompts})
    path = folder.root / "sweep.json"
    scores: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}
    requests = sweep_requests(config)
    for setting in config.sweep:
        if setting.name not in scores:
            scores[setting.name] = _score(pipeline, judge, requests, setting.sampling, config)
            write_text(path, json.dumps(scores, indent=1) + "\n")
        tell(f"sweep, {setting.name}: {scores[setting.name]}")
    best = max(config.sweep, key=lambda setting: scores[setting.name]["mean"])
    tell(f"sweep: {best.name} is best")
    return best.sampling, scores


def sweep_requests(config: PictureRunConfig) -> list[PictureRequest]:
    """Seen prompts of another seed; settings are not chosen on what is held out."""
    return [
        request
        for tag in config.tasks
        if tag != DESCRIPTIVE or config.tasks == (DESCRIPTIVE,)
        for request in sample_requests(
            tag,
            "seen",
            num=config.sweep_prompts,
            seed=config.seed + SWEEP_SEED_OFFSET,
            styles=config.styles,
        )
    ]


def _score(
    pipeline: Pipeline,
    judge: PictureJudge,
    requests: list[PictureRequest],
    sampling: SamplingConfig,
    config: PictureRunConfig,
) -> dict[str, float]:
    seed = config.seed + SWEEP_SEED_OFFSET
    rights: dict[str, list[float]] = {request.tag: [] for request in requests}
    for start in range(0, len(requests), config.batch_size):
        chunk = requests[start : start + config.batch_size]
        seeds = [mix_seed(seed, start + i, 0) for i in range(len(chunk))]
        pictures = draw_prompts(pipeline, [x.prompt for x in chunk], seeds, sampling)
        drawn = [(x, y) for x, y in zip(chunk, pictures, strict=True) if y is not None]
        verdicts = judge.judge([x for x, _ in drawn], [y for _, y in drawn])
        scores = {x.id: verdict.score for (x, _), verdict in zip(drawn, verdicts, strict=True)}
        for request in chunk:
            rights[request.tag].append(scores.get(request.id, 0.0))
    row: dict[str, Any] = {tag: round(sum(x) / len(x), 4) for tag, x in rights.items()}
    return row | {"mean": round(sum(row.values()) / len(row), 4)}
