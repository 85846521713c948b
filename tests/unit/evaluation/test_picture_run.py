"""All stages in one: a model's pictures, a run that was broken, other people's pictures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pipelines import tiny_pipeline
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from unimm.assets import __file__ as ASSETS
from unimm.evaluation import picture_drawing
from unimm.evaluation.picture_config import NamedSampling, PictureRunConfig
from unimm.evaluation.picture_folder import Sample
from unimm.evaluation.picture_judge import Verdict, detector_judge
from unimm.evaluation.picture_run import make_requests, score_pictures
from unimm.evaluation.picture_sweep import sweep_requests
from unimm.generation.image import generate_image
from unimm.judges.extractors import Extractor
from unimm.nn.sampling import SamplingConfig


@pytest.fixture(scope="module")
def judge():
    return detector_judge(ASSETS.replace("__init__.py", "models/detector"))


def config(output: Path, **changes) -> PictureRunConfig:
    small: dict[str, Any] = {"num_prompts": 2, "num_training_documents": 50, "batch_size": 3}
    return PictureRunConfig(output=str(output), **(small | changes))


class Told(list[str]):
    """Lines that a run told."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def has(self, words: str) -> bool:
        return any(words in line for line in self)


def test_a_model_is_scored_and_a_broken_run_goes_on(judge, tmp_path):
    pipeline = tiny_pipeline()
    run = config(tmp_path, tasks=("colors", "descriptive"), splits=("heldout",))
    told = Told()
    summary = score_pictures(pipeline, judge, run, tell=told)
    assert summary is not None and told.has("drew 4 of 4 pictures")
    row = summary["splits"]["heldout"]["colors"]
    assert (row["prompts"], row["pictures"], row["failed"]) == (2, 2, 0)
    assert row["ceiling"]["value"] == 1 and row["nearest neighbour"]["value"] == 0
    assert (tmp_path / "report.html").read_text().count("<img") == 3 * 4
    assert json.loads((tmp_path / "summary.json").read_text()) == summary

    kept, lost = (tmp_path / f"samples/0000{i}/samples/00000.png" for i in (0, 1))
    before, again = kept.read_bytes(), lost.read_bytes()
    lost.unlink()
    told = Told()
    assert score_pictures(pipeline, judge, run, tell=told) == summary
    assert told.has("drew 1 of 1 pictures")
    assert (kept.read_bytes(), lost.read_bytes()) == (before, again)

    more = score_pictures(pipeline, judge, dataclasses.replace(run, num_samples=2), tell=Told())
    assert more is not None and more["splits"]["heldout"]["colors"]["pictures"] == 4
    assert kept.read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(judge, tmp_path):
    pipeline = tiny_pipeline()
    run = config(tmp_path, tasks=("colors",), splits=("seen",))
    score_pictures(pipeline, judge, run, tell=Told())
    cold = dataclasses.replace(run, sampling=SamplingConfig(temperature=0.5))
    with pytest.raises(ValueError, match="belongs to generator"):
        score_pictures(pipeline, judge, cold, tell=Told())
    with pytest.raises(ValueError, match="holds requests .* this run asks"):
        score_pictures(pipeline, judge, dataclasses.replace(run, seed=1), tell=Told())
    other = dataclasses.replace(judge, fingerprint="other")
    with pytest.raises(ValueError, match=f"{judge.fingerprint}.*other"):
        score_pictures(pipeline, other, run, tell=Told())


def test_pictures_of_any_generator_are_scored(judge, tmp_path):
    run = config(tmp_path / "mine", model="none", tasks=("colors", "position"))
    told = Told()
    assert score_pictures(None, judge, run, tell=told) is None and told.has("no pictures yet")
    assert not (tmp_path / "mine/summary.json").exists()
    prompts = [json.loads(x)["prompt"] for x in (tmp_path / "mine/requests.jsonl").open()]
    folders = sorted((tmp_path / "mine/samples").iterdir())
    asked = [json.loads((x / "metadata.jsonl").read_text())["prompt"] for x in folders]
    assert asked == prompts and len(prompts) == 8
    red = Image.new("RGB", (64, 64), "red")
    red.save(folders[0] / "samples/00000.png")
    red.save(folders[0] / "samples/grid.png")
    cut_off = (folders[0] / "samples/00000.png").read_bytes()[:60]
    (folders[1] / "samples/00000.png").write_bytes(cut_off)
    summary = score_pictures(None, judge, run, tell=Told())
    assert summary is not None and summary["failed"] == 7
    assert summary["facts"]["pictures not asked for"] == 1
    row = summary["splits"]["seen"]["colors"]
    assert row["failed"] == 1 and "ceiling after the tokenizer" not in row
    page = (tmp_path / "mine/report.html").read_text()
    assert "7 failed" in page and "damaged" in page and "missing" in page


def test_a_prompt_that_cannot_be_drawn_fails_alone(judge, tmp_path, monkeypatch):
    draw = picture_drawing.generate_image

    def draw_all_but_one(pipeline, prompts, **options):
        if any("red" in prompt for prompt in prompts):
            raise ValueError("the prompt takes 9000 positions")
        return draw(pipeline, prompts, **options)

    monkeypatch.setattr(picture_drawing, "generate_image", draw_all_but_one)
    told = Told()
    run = config(tmp_path, tasks=("colors",), splits=("seen",), num_prompts=12, batch_size=12)
    summary = score_pictures(tiny_pipeline(), judge, run, tell=told)
    prompts = [json.loads(x)["prompt"] for x in (tmp_path / "requests.jsonl").open()]
    num_red = sum("red" in prompt for prompt in prompts)
    assert summary is not None and 0 < summary["failed"] == num_red < 12
    assert sum("does not fit the context" in line for line in told) == num_red


def test_the_best_setting_of_a_sweep_is_scored_and_kept(tmp_path):
    """The judge likes what was drawn greedily: that setting must win and draw the run."""
    greedy, wild = SamplingConfig(temperature=0.0), SamplingConfig(temperature=5.0)
    pipeline = tiny_pipeline()

    class LikesRepetition:
        name, fingerprint = "likes repetition", "1"

        def __init__(self) -> None:
            self.accuracy: dict[str, float] = {}
            self.best = ""

        def judge(self, requests, pictures):
            rights = [float(Sample.of(x).digest == self.best) for x in pictures]
            return [Verdict(score=x, correct=x == 1, is_exact=x == 1) for x in rights]

    sweep = (NamedSampling(name="wild", sampling=wild), NamedSampling(sampling=greedy))
    run = config(tmp_path, tasks=("colors",), splits=("seen",), sweep=sweep, sweep_prompts=2)
    judge = LikesRepetition()
    prompts = [x.prompt for x in [*sweep_requests(run), *make_requests(run)]]
    assert len(set(prompts)) == 4, "settings are chosen on other prompts"
    judge.best = Sample.of(generate_image(pipeline, prompts[0], **vars(greedy))).digest
    told = Told()
    summary = score_pictures(pipeline, judge, run, tell=told)
    assert summary is not None and told.has("sweep: default is best")
    assert summary["facts"]["sweep"]["default"]["mean"] > summary["facts"]["sweep"]["wild"]["mean"]
    assert summary["facts"]["generator"]["sampling"]["temperature"] == 0
    kept = (tmp_path / "sweep.json").read_text()
    assert score_pictures(pipeline, judge, run, tell=Told()) == summary
    assert (tmp_path / "sweep.json").read_text() == kept
    with pytest.raises(ValueError, match="belongs to sweep"):
        again = dataclasses.replace(run, sweep_prompts=3)
        score_pictures(pipeline, judge, again, tell=Told())


def colours_of_quarters() -> Extractor:
    """Twelve features, so that few pictures make a distribution."""

    def network(pixels: Tensor) -> Tensor:
        return adaptive_avg_pool2d(pixels, 2).flatten(1)

    return Extractor(name="quarters", size=None, mean=(0.5,) * 3, std=(0.5,) * 3, network=network)


def test_quality_stands_beside_fidelity(judge, tmp_path):
    """Noise is far from real pictures, true renders are near: the floor is not the score."""
    run = config(tmp_path, tasks=("colors", "two_object"), splits=("seen",), num_prompts=12)
    extractor = colours_of_quarters()
    summary = score_pictures(tiny_pipeline(), judge, run, extractor=extractor, tell=Told())
    assert summary is not None
    table = summary["distribution"]
    assert [name.split(",")[0] for name in table] == [
        "generated", "ceiling", "ceiling after the tokenizer", "nearest neighbour"
    ]  # fmt: skip
    assert all(row["pictures"] == 24 for row in table.values())
    drawn, real = (table[f"{x}, seen"]["frechet_quarters"] for x in ("generated", "ceiling"))
    assert drawn > 3 * real
    assert "Pictures as a set" in (tmp_path / "report.html").read_text()


def test_too_few_pictures_have_no_distribution(judge, tmp_path):
    run = config(tmp_path, tasks=("colors",), splits=("seen",))
    extractor = colours_of_quarters()
    told = Told()
    summary = score_pictures(tiny_pipeline(), judge, run, extractor=extractor, tell=told)
    assert summary is not None and summary["distribution"] == {}
    assert told.has("no distribution of generated, seen")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("colours",)}, "unknown \\['colours'\\]"),
        ({"splits": ()}, "splits"),
        ({"styles": ("oil",)}, "unknown \\['oil'\\]"),
        ({"num_prompts": 1}, "another prompt's picture"),
        ({"sweep": (NamedSampling(), NamedSampling())}, "two settings of the sweep"),
        ({"num_samples": 0}, "num_samples must be 1 or more"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **changes)
