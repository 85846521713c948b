import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import tiny_pipeline as tiny

from unimm.data.world.render import Renderer
from unimm.data.world.splits import Split
from unimm.document import mix_seed
from unimm.evaluation import story_drawing
from unimm.evaluation.picture_judge import SightingJudge
from unimm.evaluation.pictures import describe_pictures, render_pictures
from unimm.evaluation.story_config import StoryRunConfig, StorySampling
from unimm.evaluation.story_controls import described, without_context
from unimm.evaluation.story_drawing import draw_tasks
from unimm.evaluation.story_grid import GridPage, story_grid
from unimm.evaluation.story_judging import Pictures, judge_stories, num_failed
from unimm.evaluation.story_measures import measure_stories
from unimm.evaluation.story_references import DESCRIBED, NO_CONTEXT, REFERENCES
from unimm.evaluation.story_run import score_stories
from unimm.evaluation.story_sets import story_tasks
from unimm.evaluation.story_summary import SetResult, summarise_stories
from unimm.generation import generate_story
from unimm.judges.detector import Detector, DetectorConfig
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline

PLAIN = StorySampling(first_page=SamplingConfig(), later_pages=SamplingConfig())


def tiny_pipeline() -> Pipeline:
    return tiny(max_seq_len=2048)


def blind_judge() -> SightingJudge:
    """An untrained detector: it sees something, but nothing that is there."""
    torch.manual_seed(0)
    detector = Detector(DetectorConfig(image_size=32, channels=(8, 8, 8, 8), hidden=8)).eval()
    return SightingJudge(
        look=partial(describe_pictures, detector),
        name="blind",
        fingerprint="0",
        accuracy={"clean": {"kind": 0.0}},
    )


@pytest.mark.parametrize("name", ["words", "picture"])
def test_every_page_is_drawn_and_batches_change_nothing(name: str) -> None:
    pipeline = tiny_pipeline()
    tasks = story_tasks(name, Split.VALIDATION, num=3, seed=1, num_pages=2)
    together = draw_tasks(pipeline, tasks, PLAIN, seed=0, batch_size=3)
    apart = draw_tasks(pipeline, tasks, PLAIN, seed=0, batch_size=1)
    assert [len(story) for story in together] == [2, 2, 2]
    for a, b in zip(together, apart, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    if name == "picture":
        (truth,) = render_pictures(tasks[0].scenes[:1], Renderer(), size=16)
        np.testing.assert_array_equal(np.asarray(together[0][0]), np.asarray(truth))


def test_pages_drawn_alone_do_not_know_the_pages_before() -> None:
    pipeline = tiny_pipeline()
    (task,) = story_tasks("words", Split.VALIDATION, num=1, seed=1, num_pages=3)
    alone = without_context(task)
    other = replace(alone, page_texts=("Who is there?", *alone.page_texts[1:]))
    first, second, whole = draw_tasks(pipeline, [alone, other, task], PLAIN, seed=0, batch_size=2)
    pixels = [[np.asarray(x) for x in story] for story in (first, second, whole)]
    assert not np.array_equal(pixels[0][0], pixels[1][0])
    np.testing.assert_array_equal(pixels[0][1], pixels[1][1])
    np.testing.assert_array_equal(pixels[0][0], pixels[2][0])  # page 1 knows no page before
    assert not np.array_equal(pixels[0][1], pixels[2][1])
    (told,) = draw_tasks(pipeline, [described(task)], PLAIN, seed=0, batch_size=1)
    assert not np.array_equal(np.asarray(told[2]), pixels[0][2])


def test_a_model_that_writes_is_given_page_one_only(tmp_path) -> None:
    pipeline, judge = tiny_pipeline(), blind_judge()
    config = tiny_run(tmp_path, sets=("written",), controls=())
    summary = score_stories(pipeline, judge, config, tell=lambda _: None)
    row = summary["headline"]["heldout written alone"]
    assert {"ceiling", "ceiling after the tokenizer", "random image", "chance"} <= set(row)
    assert "heldout written, exists" in summary["text_atoms"] and "pages" not in summary
    request = json.loads((tmp_path / "requests.jsonl").read_text().splitlines()[1])
    result = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[1])
    texts = [x.read_text() for x in sorted((tmp_path / "samples/00001/samples").glob("*.txt"))]
    assert len(request["pages"]) == 1 and len(texts) == request["num_pages"] == 4
    assert texts == result["page_texts"] and texts[0].startswith(request["pages"][0].strip())
    told = generate_story(
        pipeline,
        request["pages"][0],
        num_images=4,
        seed=mix_seed(config.seed, 1, 0),
        **vars(SamplingConfig()),  # as PLAIN
    )
    pictures = [part for part in told.parts if not isinstance(part, str)]
    stored = sorted((tmp_path / "samples/00001/samples").glob("*.png"))
    for picture, path in zip(pictures, stored, strict=True):
        with Image.open(path) as opened:
            np.testing.assert_array_equal(np.asarray(opened), np.asarray(picture))


def test_a_story_that_does_not_fit_fails_alone(monkeypatch) -> None:
    tasks = story_tasks("words", Split.VALIDATION, num=3, seed=1, num_pages=2)
    draw = story_drawing._draw

    def draw_all_but_one(pipeline, jobs, *rest):
        if any(job.task.number == 1 for job in jobs):
            raise ValueError("too long")
        return draw(pipeline, jobs, *rest)

    monkeypatch.setattr(story_drawing, "_draw", draw_all_but_one)
    drawn = draw_tasks(tiny_pipeline(), tasks, PLAIN, seed=0, batch_size=3)
    assert drawn[1] == [None, None]
    assert None not in drawn[0] + drawn[2]
    stories = judge_stories(tasks, drawn, blind_judge().look)
    assert num_failed(stories) == 2
    assert not any(score.background for score in stories[1].scores)


def tiny_run(folder, **changes) -> StoryRunConfig:
    settings = dict(
        output=str(folder),
        splits=("heldout",),
        sets=("words", "picture"),
        controls=("first pages exchanged", "pictures exchanged"),
        num_stories=2,
        num_training_documents=30,
        sampling=PLAIN,
    )
    return StoryRunConfig(**(settings | changes))  # type: ignore[arg-type]


def test_a_run_goes_from_requests_to_report_and_goes_on_where_it_broke(tmp_path) -> None:
    config = tiny_run(tmp_path)
    pipeline, judge = tiny_pipeline(), blind_judge()
    summary = score_stories(pipeline, judge, config, tell=lambda _: None)
    json.dumps(summary, allow_nan=False)
    words = summary["sets"]["heldout words"]
    assert {*REFERENCES, NO_CONTEXT, DESCRIBED} <= set(words)
    assert words["scores"]["alone"]["all"]["total"] == 6 and words["chance"]["all"] == 0.0
    row = summary["headline"]["heldout words alone"]
    assert {"all", "chance", "stories", *REFERENCES, NO_CONTEXT, DESCRIBED} <= set(row)
    row = summary["controls"]["heldout pictures exchanged, all"]
    assert {"as asked", "otherwise", "otherwise is", *REFERENCES} <= set(row)
    row = summary["context"]["heldout words alone, tint"]
    assert {"with context", NO_CONTEXT, DESCRIBED, "chance"} == set(row)
    assert summary["failed"] == 0
    assert summary["facts"]["judge"]["accuracy"] == {"clean": {"kind": 0.0}}
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    requests = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert len(lines) == len(requests) == 2 * (2 * 3 + 2)
    assert json.loads(requests[0])["id"] == json.loads(lines[0])["id"] == "heldout words/00000"
    report = (tmp_path / "report.html").read_text()
    assert report.count("data:image/webp;base64,") == 4 and "http" not in report

    drawn = sorted((tmp_path / "samples").glob("*/samples/*.png"))
    assert len(drawn) == 2 * (2 * 3 + 2) * 4
    before = drawn[5].read_bytes()
    drawn[5].unlink()
    times = {path: path.stat().st_mtime_ns for path in drawn if path.parent != drawn[5].parent}
    again = score_stories(pipeline, judge, config, tell=lambda _: None)
    assert again == summary and drawn[5].read_bytes() == before
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_held_out_looks_stand_beside_seen_ones(tmp_path) -> None:
    splits = ("validation", "heldout")
    config = tiny_run(tmp_path, splits=splits, sets=("words",), controls=())
    summary = score_stories(tiny_pipeline(), blind_judge(), config, tell=lambda _: None)
    row = summary["heldout"]["words alone"]
    seen, held = (summary["sets"][f"{split} words"]["scores"] for split in splits)
    gap = seen["alone"]["all"]["value"] - held["alone"]["all"]["value"]
    assert row["lower by"] == round(gap, 3) and set(summary["heldout"]) >= {"words introduction"}
    assert "held out" in (tmp_path / "report.html").read_text()


def test_other_settings_and_other_models_are_refused_in_the_same_folder(tmp_path) -> None:
    small = dict(sets=("words",), controls=())
    pipeline, judge = tiny_pipeline(), blind_judge()
    score_stories(pipeline, judge, tiny_run(tmp_path, **small), tell=lambda _: None)
    with pytest.raises(ValueError, match="another output folder"):
        score_stories(pipeline, judge, tiny_run(tmp_path, **small, seed=1), tell=lambda _: None)
    cold = StorySampling(first_page=SamplingConfig(temperature=0.0), later_pages=SamplingConfig())
    with pytest.raises(ValueError, match="generator"):
        score_stories(
            pipeline, judge, tiny_run(tmp_path, **small, sampling=cold), tell=lambda _: None
        )


def test_damaged_pictures_are_counted_and_shown(tmp_path) -> None:
    config = tiny_run(tmp_path, sets=("words",), controls=())
    pipeline, judge = tiny_pipeline(), blind_judge()
    score_stories(pipeline, judge, config, tell=lambda _: None)
    (tmp_path / "samples/00001/samples/00002.png").write_bytes(b"no picture")
    summary = score_stories(pipeline, judge, config, tell=lambda _: None)
    assert summary["failed"] == 1
    assert summary["headline"]["heldout words alone"]["failed"] == 1
    assert "1 pictures failed" in (tmp_path / "report.html").read_text()


def test_the_best_setting_of_a_sweep_is_used(tmp_path) -> None:
    cold = StorySampling(name="cold", first_page=SamplingConfig(temperature=0.0))
    config = tiny_run(
        tmp_path,
        sets=("words",),
        controls=(),
        sweep=(PLAIN, cold),
        sweep_stories=2,
        sweep_sets=("words",),
    )
    lines: list[str] = []
    summary = score_stories(tiny_pipeline(), blind_judge(), config, tell=lines.append)
    assert set(summary["sweep"]) == {"default", "cold"}
    best = max(summary["sweep"], key=lambda name: summary["sweep"][name]["later all"])
    assert summary["facts"]["generator"]["sampling"]["name"] == best
    assert any("sweep cold" in line for line in lines)


def test_without_baselines_there_is_no_summary() -> None:
    tasks = story_tasks("words", Split.VALIDATION, num=2, seed=1, num_pages=2)
    nothing: list[Pictures] = [[None, None], [None, None]]
    stories = judge_stories(tasks, nothing, blind_judge().look)
    tables = dict.fromkeys((*REFERENCES, DESCRIBED), measure_stories(stories))
    result = SetResult(split=Split.VALIDATION, name="words", stories=stories, references=tables)
    with pytest.raises(ValueError, match=NO_CONTEXT):
        summarise_stories([result], facts={})


def test_failures_come_first_in_the_grid() -> None:
    tasks = story_tasks("pair", Split.VALIDATION, num=2, seed=1)
    stories = judge_stories(tasks, [[None] * 4, [None] * 4], blind_judge().look)
    verdicts = {score.page: score for score in stories[0].scores}
    bright, missing = np.full((8, 8, 3), 255, np.uint8), None
    fine = [GridPage(pixels=bright, text="fine", score=None)] * 2
    bad = [GridPage(pixels=missing, text="bad", score=verdicts[page]) for page in range(2)]
    grid = np.asarray(story_grid([fine, bad], max_stories=1))
    assert grid[80, 80].tolist() == [225, 225, 225]


def test_bad_sets_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures"):
        StoryRunConfig(sets=("pictures",))
    with pytest.raises(ValueError, match="written"):
        StoryRunConfig(sweep_sets=("written",))
    with pytest.raises(ValueError, match="hats"):
        StoryRunConfig(controls=("hats",))
    with pytest.raises(ValueError, match="test"):
        StoryRunConfig(splits=("test",))
    with pytest.raises(ValueError, match="2 stories"):
        StoryRunConfig(num_stories=1)
