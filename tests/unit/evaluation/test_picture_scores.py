"""Pictures, judges, references and the summary, with the shipped detector."""

import dataclasses
import json
from collections.abc import Sequence

import pytest
from PIL import Image

from unimm.assets import __file__ as ASSETS
from unimm.data.world.atoms import Atom, scene_atoms
from unimm.data.world.render import Renderer
from unimm.evaluation.nearest_scenes import NearestScenes, training_scenes
from unimm.evaluation.picture_folder import Sample
from unimm.evaluation.picture_judge import QuestionJudge, Verdict, detector_judge
from unimm.evaluation.picture_page import picture_page
from unimm.evaluation.picture_references import (
    CEILING,
    CEILING_AFTER,
    NEAREST,
    RANDOM,
    REFERENCES,
    make_references,
    other_prompts,
    true_scenes,
)
from unimm.evaluation.picture_requests import PictureRequest
from unimm.evaluation.picture_results import Result, judge_samples
from unimm.evaluation.picture_summary import summarise_pictures
from unimm.evaluation.pictures import render_pictures
from unimm.evaluation.worldeval import TASKS, sample_requests

DETECTOR = ASSETS.replace("__init__.py", "models/detector")
NUM = 6


@pytest.fixture(scope="module")
def judge():
    return detector_judge(DETECTOR)


@pytest.fixture(scope="module")
def pool():
    return NearestScenes(training_scenes(2500))


def ask(*tags: str, split: str = "seen", num: int = NUM) -> list[PictureRequest]:
    return [x for tag in tags for x in sample_requests(tag, split, num=num, seed=5)]


def renders(requests) -> list[list[Sample]]:
    pictures = render_pictures(true_scenes(requests), Renderer(), size=128)
    return [[Sample.of(picture)] for picture in pictures]


def results_of(requests, scores: Sequence[float], *, problem: str = "") -> list[Result]:
    return [
        Result(
            request=request,
            number=0,
            sample=Sample(),
            verdict=Verdict(score=score, correct=score == 1, is_exact=score == 1, problem=problem),
        )
        for request, score in zip(requests, scores, strict=True)
    ]


def references_of(requests) -> dict:
    values = {CEILING: 1.0, CEILING_AFTER: 1.0, RANDOM: 0.0, NEAREST: 0.0}
    return {name: results_of(requests, [x] * len(requests)) for name, x in values.items()}


def mean_score(results: list[Result]) -> float:
    return sum(x.verdict.score for x in results) / len(results)


def test_the_judge_brings_its_own_accuracy(judge):
    assert judge.accuracy["3d, clean"]["kind"] > 0.99
    assert "noto, after the image tokenizer" in judge.accuracy


def test_true_renders_score_and_pictures_of_other_prompts_do_not(judge, tmp_path):
    requests = ask(*TASKS, "descriptive", num=NUM)
    rows = renders(requests)
    right = judge_samples(judge, requests, rows, tmp_path / "a.jsonl")
    assert mean_score(right) >= 0.95
    wrong = judge_samples(judge, requests, other_prompts(requests, rows), tmp_path / "b.jsonl")
    assert mean_score([x for x in wrong if x.request.tag in TASKS]) <= 0.1


def test_the_nearest_training_scene_scores_on_seen_and_not_on_heldout(judge, pool, tmp_path):
    def look_up(split: str, *tags: str) -> float:
        requests = ask(*tags, split=split, num=24)
        tables = make_references(requests, renders(requests), Renderer(), size=128, pool=pool)
        rows = tables[NEAREST]
        assert rows is not None and tables[CEILING_AFTER] is None
        return mean_score(judge_samples(judge, requests, rows, tmp_path / f"{split}.jsonl"))

    assert look_up("seen", "single_object", "colors", "style") >= 0.85
    assert look_up("heldout", *TASKS) <= 0.02


def test_nearest_is_what_most_of_the_caption_is_true_of(pool):
    scene = pool.scenes[17]
    atoms = scene_atoms(scene)
    found = pool.nearest(atoms, num_figures=len(scene.placed))
    assert atoms <= scene_atoms(found)
    with pytest.raises(ValueError, match="no scenes to look among"):
        NearestScenes([])
    nowhere = pool.nearest([Atom("exists", "unicorn")], num_figures=1)
    assert len(nowhere.placed) == 1


def test_verdicts_are_kept_while_the_picture_is_the_same(judge, tmp_path):
    requests = ask("colors", num=3)
    rows = renders(requests)
    path = tmp_path / "results.jsonl"
    first = judge_samples(judge, requests, rows, path)

    class Counting:
        name, fingerprint = "counting", "x"

        def __init__(self) -> None:
            self.accuracy: dict[str, float] = {}
            self.asked: list[str] = []

        def judge(self, requests, pictures):
            self.asked += [request.id for request in requests]
            return judge.judge(requests, pictures)

    counting = Counting()
    text = path.read_text()
    assert [x.verdict for x in judge_samples(counting, requests, rows, path)] == [
        x.verdict for x in first
    ]
    assert counting.asked == [] and path.read_text() == text
    path.write_text(text[:-40])  # killed while writing the last line
    rows[0] = [Sample.of(Image.new("RGB", (128, 128)))]
    again = judge_samples(counting, requests, rows, path)
    assert counting.asked == [requests[0].id, requests[2].id]
    assert [x.verdict.correct for x in again] == [False, True, True]


def test_failed_samples_score_zero_and_are_counted_and_shown(judge, tmp_path):
    requests = ask("colors", num=4)
    rows = renders(requests)
    rows[1] = [Sample(problem="damaged: <cut off>")]
    results = judge_samples(judge, requests, rows, tmp_path / "r.jsonl")
    summary = summarise_pictures(results, references_of(requests), facts={})
    row = summary["splits"]["seen"]["colors"]
    assert summary["failed"] == row["failed"] == 1 and row["score"]["value"] == 0.75
    page = picture_page(summary, results, truth={}, nearest={}, max_cards=2)
    assert "damaged: &lt;cut off&gt;" in page and "1 failed" in page
    assert page.index("cut off") < page.index("right</p>")  # failures first
    assert "2 more not shown" in page


def test_without_baselines_there_is_no_summary():
    requests = ask("colors", num=3)
    results, references = results_of(requests, [1, 1, 0]), references_of(requests)
    for name in REFERENCES:
        fewer = {key: x for key, x in references.items() if key != name}
        with pytest.raises(ValueError, match=f"no summary without {name}"):
            summarise_pictures(results, fewer, facts={})
    with pytest.raises(ValueError, match="no summary without random image"):
        summarise_pictures(results, references | {RANDOM: []}, facts={})
    with pytest.raises(ValueError, match="other requests"):
        summarise_pictures(results, references | {NEAREST: references[NEAREST][:2]}, facts={})
    summarise_pictures(results, references | {CEILING_AFTER: None}, facts={})


def test_the_mean_weighs_tasks_equally_and_leaves_the_descriptive_out():
    requests = ask("colors", num=2) + ask("counting", num=6) + ask("descriptive", num=4)
    results = results_of(requests, [1, 1] + [0] * 6 + [0.3] * 4)
    rows = summarise_pictures(results, references_of(requests), facts={})["splits"]["seen"]
    assert rows["mean"]["score"]["value"] == 0.5
    assert rows["mean"]["prompts"] == 8
    assert rows["descriptive"]["score"]["value"] == pytest.approx(0.3)
    half = results_of(requests, [1, 0] + [1, 0] * 3 + [0] * 4)
    mean = summarise_pictures(half, references_of(requests), facts={})["splits"]["seen"]["mean"]
    assert mean["score"]["low"] < 0.5 < mean["score"]["high"]
    assert mean["share of the way"] == 0.5


def test_partial_credit_and_how_it_falls_with_the_length_of_a_prompt(judge, tmp_path):
    requests = ask("colors", "color_attr", num=4)
    rows = renders(requests)
    rows[0] = rows[1]  # another thing in another colour: none of its two questions passes
    results = judge_samples(judge, requests, rows, tmp_path / "r.jsonl")
    summary = summarise_pictures(results, references_of(requests), facts={})
    splits = summary["splits"]["seen"]
    assert splits["colors"]["questions"]["value"] == 0.75
    assert splits["color_attr"]["questions"]["value"] == 1
    by_length = {name: rate["value"] for name, rate in summary["by questions"]["seen"].items()}
    assert by_length == {"2": 0.75, "4": 1.0}


def test_several_pictures_of_a_prompt_are_one_unit(judge):
    requests = ask("colors", num=2)
    results = [
        Result(request=request, number=n, sample=Sample(), verdict=verdict)
        for request, rights in zip(requests, ([1, 0, 0, 0], [0, 0, 0, 0]), strict=True)
        for n, right in enumerate(rights)
        for verdict in [Verdict(score=right, correct=right == 1, is_exact=right == 1)]
    ]
    summary = summarise_pictures(results, references_of(requests), facts={})
    row = summary["splits"]["seen"]["colors"]
    assert (row["score"]["value"], row["score"]["units"], row["pictures"]) == (0.125, 2, 8)
    assert row["any picture"]["value"] == 0.5


def test_prompts_that_demand_the_same_are_one_unit():
    (request, other) = ask("colors", num=2)
    again = dataclasses.replace(request, id="again")
    requests = [request, again, other]
    summary = summarise_pictures(results_of(requests, [1, 1, 0]), references_of(requests), facts={})
    row = summary["splits"]["seen"]["colors"]
    assert (row["prompts"], row["score"]["units"]) == (3, 2)


def test_a_judge_that_answers_questions_plugs_in(tmp_path):
    requests = ask("color_attr", "descriptive", num=3)
    truths = {
        sample[0].digest: scene_atoms(scene)
        for sample, scene in zip(renders(requests), true_scenes(requests), strict=True)
    }
    atom_of = {x.text: x.atom for request in requests for x in request.questions}

    def ask_oracle(asked) -> list[bool | None]:
        known = [(truths.get(Sample.of(picture).digest), atom_of[text]) for picture, text in asked]
        return [None if atoms is None else atom in atoms for atoms, atom in known]

    oracle = QuestionJudge(ask=ask_oracle, name="oracle", fingerprint="1")
    results = judge_samples(oracle, requests, renders(requests), tmp_path / "r.jsonl")
    assert [x.verdict.score for x in results] == [1.0] * 6
    swapped = other_prompts(requests, renders(requests))
    wrong = judge_samples(oracle, requests, swapped, tmp_path / "w.jsonl")
    assert max(x.verdict.score for x in wrong[:3]) == 0
    assert any("no: Is there" in x.verdict.reason for x in wrong)
    unknown = [[Sample.of(Image.new("RGB", (8, 8)))] for _ in requests]
    silent = judge_samples(oracle, requests, unknown, tmp_path / "s.jsonl")
    assert all("gave no answer" in x.verdict.problem for x in silent)


def test_a_request_without_a_scene_has_no_ceiling(pool):
    (request,) = ask("colors", num=1)
    entry = {key: x for key, x in request.to_json().items() if key != "scene"}
    blind = PictureRequest.from_json(entry)
    with pytest.raises(ValueError, match="its ceiling is not known"):
        make_references([blind], [[Sample()]], Renderer(), size=64, pool=pool)
    with pytest.raises(ValueError, match="one prompt of colors"):
        other_prompts([request], [[Sample()]])


def test_the_page_is_self_contained_and_escapes(judge, tmp_path):
    requests = ask("colors", "descriptive", num=2)
    rows = renders(requests)
    results = judge_samples(judge, requests, rows, tmp_path / "r.jsonl")
    facts = {"generator": {"model": "<me>"}}
    summary = summarise_pictures(results, references_of(requests), facts=facts)
    truth = {request.id: Image.new("RGB", (300, 300)) for request in requests}
    page = picture_page(summary, results, truth=truth, nearest=truth)
    assert "WorldEval: &lt;me&gt;" in page and "<me>" not in page
    assert page.count("<img") == 3 * 4 and "http" not in page
    json.dumps(summary, allow_nan=False)
