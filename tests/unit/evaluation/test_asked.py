"""Judges that are asked in words score folders; the truth comes back through a real server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judge_server import Response, completion, serving
from judged_folders import drawn_folder, read_query, scored_folder, some_requests, truthful

from unimm.evaluation.asked_run import AskedRunConfig, run_asked
from unimm.evaluation.asked_summary import agreement, summarise_asked
from unimm.evaluation.asking_judge import read_known
from unimm.evaluation.picture_folder import PictureFolder
from unimm.judges.http import HttpJudgeConfig
from unimm.judges.judge import JudgeError
from unimm.judges.oracle import OracleConfig
from unimm.judges.replay import ReplayConfig

REQUESTS = some_requests()
WRONG = (1, 2, 6)  # of eight


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with three wrong pictures, and one with a missing and a broken one."""
    root = tmp_path_factory.mktemp("scored")
    scored_folder(root / "a", REQUESTS, wrong=WRONG)
    other = scored_folder(root / "b", REQUESTS, wrong=(2, 5))
    other.path_of(0, 0).unlink()
    other.path_of(7, 0).write_bytes(b"no picture")
    return root


def judge_of(server, tmp_path, **options):
    fast = {"first_wait": 0.01, "timeout": 5.0, "num_retries": 1, "num_reminders": 1}
    cache = str(tmp_path / "replies.jsonl")
    settings = {"model": "stub", "api_key_env": "", "cache": cache, **fast, **options}
    return HttpJudgeConfig(base_url=server.base_url, **settings).build()


def run(judge, config):
    lines: list[str] = []
    summary = run_asked(judge, config, tell=lines.append)
    json.dumps(summary, allow_nan=False)
    assert lines and summary == json.loads(Path(config.output, "summary.json").read_text())
    return summary


def config_of(scored, tmp_path, protocol: Any = "drawbench", **options):
    folders = {"samples": str(scored / "a"), "output": str(tmp_path / "out")}
    if protocol == "pairwise":
        folders["against"] = str(scored / "b")
    return AskedRunConfig(protocol=protocol, **{**folders, **options})


def results(config):
    return [json.loads(x) for x in Path(config.output, "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("protocol", ["drawbench", "rating", "questions"])
def test_the_truth_survives_oracle_server_and_replay(scored, tmp_path, protocol):
    known = read_known(scored / "a")
    summaries = []
    config = config_of(scored, tmp_path, protocol, output=str(tmp_path / "oracle"))
    summaries.append(run(OracleConfig().build(), config))
    with serving(truthful(REQUESTS, known)) as server:
        judge = judge_of(server, tmp_path)
        summaries.append(run(judge, config_of(scored, tmp_path, protocol)))
    replay = ReplayConfig(file=str(tmp_path / "replies.jsonl")).build()
    config = config_of(scored, tmp_path, protocol, output=str(tmp_path / "replay"))
    summaries.append(run(replay, config))
    for summary in summaries:
        row = summary["tasks"]["all"]
        truth = [known[x["id"], x["digest"]] for x in results(config)]
        assert row["score"]["value"] == sum(x.correct for x in truth) / 8
        assert row["score"]["units"] == 8 and row["score"]["low"] < row["score"]["value"]
        assert row["ceiling"]["value"] > row["score"]["value"] > row["random image"]["value"]
        assert row["unanswered"] == 0 and row["if unanswered were wrong"] == row["score"]["value"]
        assert (summary["agreement"]["accuracy"], summary["agreement"]["kappa"]) == (1.0, 1.0)
        assert summary["agreement"]["pictures"] == 3 * 8
        assert set(summary["tasks"]) == {"all", "colors, seen", "position, seen"}
    names = [summary["facts"]["judge"]["name"] for summary in summaries]
    assert names[0].startswith("oracle, ") and names[2].startswith("replay of stub at http://")
    wrong = {i for i, x in enumerate(results(config)) if not x["correct"]}
    assert set(WRONG) <= wrong


def test_failed_replies_are_left_out_and_counted(scored, tmp_path):
    truth = truthful(REQUESTS, read_known(scored / "a"))
    prompts = [f"Caption: {request.prompt}" for request in REQUESTS]
    bad = {
        prompts[0]: completion(None, refusal="no"),
        prompts[4]: completion("It is rather correct, I would say"),
        prompts[5]: Response(status=500),
    }

    def answer(body):
        return bad.get(read_query(body)[0][0]) or truth(body)

    with serving(answer) as server:
        config = config_of(scored, tmp_path)
        row = run(judge_of(server, tmp_path), config)["tasks"]["all"]
        assert row["failures"] == {"refused": 1, "server error": 1, "unreadable": 1}
        assert (row["pictures"], row["unanswered"], row["score"]["total"]) == (8, 3, 5)
        right = row["score"]["value"] * 5
        assert row["if unanswered were wrong"] == pytest.approx(right / 8)
        assert row["if unanswered were right"] == pytest.approx((right + 3) / 8)
        failed = [x for x in results(config) if x["problem"]]
        assert [x["score"] for x in failed] == [0.0] * 3
        assert failed[0]["problem"].startswith("judge: refused: ")

        num_asked = len(server.bodies)
        bad.clear()  # the judge has recovered: only what failed is asked again
        again = run(judge_of(server, tmp_path), config)["tasks"]["all"]
        assert again["unanswered"] == 0 and again["score"]["total"] == 8
        # Each prompt's own picture is here also its ceiling; then the random image.
        assert len(server.bodies) - num_asked == 3 * 2


def test_the_report_shows_pictures_words_and_where_the_truth_differs(scored, tmp_path):
    says = [completion(text) for text in (None, "Correct", "I see <b>. Incorrect", "Correct")]
    with serving(says[:1] + says) as server:
        judge = judge_of(server, tmp_path, concurrency=1)
        run(judge, config_of(scored, tmp_path, samples=str(scored / "b")))
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<img") == 6  # of eight, one is missing and one is broken
    assert "missing" in page and "not a picture" in page
    assert page.index("judge: malformed") < page.index("judged incorrect")
    assert "I see &lt;b&gt;. Incorrect" in page and "<b>." not in page
    assert "the truth is known: right" in page and "the truth is known: wrong" in page
    assert "malformed 1" in page and "http://127.0.0.1" in page


def test_the_report_of_pairs_shows_both_pictures(scored, tmp_path):
    with serving([completion("Same to me.\nfirst")]) as server:
        run(judge_of(server, tmp_path), config_of(scored, tmp_path, "pairwise"))
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<img") == 2 * 8 - 2 and page.count('class="none"') == 2
    assert page.index("the answer changed with the order") < page.index("ours is better")
    assert "theirs: missing" in page and "Same to me." in page


def test_a_task_without_any_answer_has_no_score(scored, tmp_path):
    with serving([completion("Who knows?")]) as server:
        summary = run(judge_of(server, tmp_path), config_of(scored, tmp_path))
    row = summary["tasks"]["all"]
    assert row["score"] is None and row["unanswered"] == 8 and row["random image"] is None
    assert summary["agreement"] is None


def test_a_judge_that_always_agrees_is_seen_through(scored, tmp_path):
    with serving([completion("Lovely. Correct")]) as server:
        summary = run(judge_of(server, tmp_path), config_of(scored, tmp_path))
    row = summary["tasks"]["all"]
    assert row["score"]["value"] == row["random image"]["value"] == 1.0
    assert summary["agreement"]["kappa"] == 0.0 and summary["agreement"]["accuracy"] < 0.8


def test_a_missing_picture_is_wrong_and_not_asked(scored, tmp_path):
    config = config_of(scored, tmp_path, samples=str(scored / "b"))
    row = run(OracleConfig().build(), config)["tasks"]["all"]
    assert (row["missing"], row["unanswered"], row["score"]["total"]) == (2, 0, 8)
    assert results(config)[0]["problem"] == "missing"
    assert row["score"]["value"] <= 4 / 8


def test_geneval_folders_of_any_generator_are_judged(scored, tmp_path):
    folder = tmp_path / "geneval"
    for number, request in enumerate(REQUESTS[:3]):
        (folder / f"{number:05}" / "samples").mkdir(parents=True)
        entry = {"tag": "Colors", "prompt": request.prompt, "include": []}
        (folder / f"{number:05}" / "metadata.jsonl").write_text(json.dumps(entry))
        picture = (scored / "a" / "samples" / f"{number:05}" / "samples/00000.png").read_bytes()
        (folder / f"{number:05}" / "samples/00000.png").write_bytes(picture)
    with serving([completion("Correct"), completion("Incorrect")]) as server:
        config = config_of(scored, tmp_path, samples=str(folder))
        summary = run(judge_of(server, tmp_path, concurrency=1), config)
    row = summary["tasks"]["Colors, given"]
    assert row["score"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert "random image" in row and "ceiling" not in row and summary["agreement"] is None


def test_pairs_are_won_by_the_better_picture(scored, tmp_path):
    known = {**read_known(scored / "b"), **read_known(scored / "a")}
    summaries = [run(OracleConfig().build(), config_of(scored, tmp_path, "pairwise"))]
    with serving(truthful(REQUESTS, known)) as server:
        config = config_of(scored, tmp_path, "pairwise", output=str(tmp_path / "http"))
        summaries.append(run(judge_of(server, tmp_path), config))
    assert len(server.bodies) == 2 * 3
    rows = results(config)
    assert [x["winner"] for x in rows] == [
        *("first", "second", "tie", "tie", "tie", "first", "second", "first"),
    ]
    assert rows[0]["note"] == "theirs: missing" and rows[7]["note"] == "theirs: not a picture"
    assert [x["note"] for x in rows[1:7]] == ["", *["the same picture"] * 3, "", ""]
    for summary in summaries:
        assert summary["score"]["value"] == (3 + 3 / 2) / 8 and summary["not asked"] == 5
        assert summary["wins"]["value"] == 3 / 8 and summary["losses"]["value"] == 2 / 8
        assert summary["contradictions"]["value"] == 0 and summary["first place"]["value"] == 0.5


def test_a_picture_that_is_missing_here_loses(scored, tmp_path):
    config = config_of(scored, tmp_path, "pairwise")
    turned = replace(config, samples=config.against, against=config.samples)
    summary = run(OracleConfig().build(), turned)
    rows = results(config)
    assert (rows[0]["winner"], rows[0]["note"]) == ("second", "ours: missing")
    assert summary["losses"]["value"] == 3 / 8 and summary["wins"]["value"] == 2 / 8


def test_ratings_are_shares_and_off_the_scale_is_no_rating(scored, tmp_path):
    says = [completion(f"[[{n}]]") for n in (10, 7, 0, 11, 11, 5)]
    with serving(says) as server:
        judge = judge_of(server, tmp_path, concurrency=1)
        row = run(judge, config_of(scored, tmp_path, "rating"))["tasks"]["all"]
        rows = results(config_of(scored, tmp_path))
    assert [x["score"] for x in rows[:5]] == [1.0, 0.7, 0.0, 0.0, 0.5]
    assert [x["correct"] for x in rows[:3]] == [True, False, False]
    assert rows[3]["problem"].startswith("judge: unreadable: score 11 is none of 0 to 10")
    assert row["unanswered"] == 1 and row["score"]["total"] == 7
    assert row["score"]["value"] == pytest.approx((1.7 + 4 * 0.5) / 7, abs=1e-4)


def test_a_judge_that_loves_a_place_wins_nothing(scored, tmp_path):
    with serving([completion("first")]) as server:
        summary = run(judge_of(server, tmp_path), config_of(scored, tmp_path, "pairwise"))
    assert summary["contradictions"]["value"] == 1.0 and summary["first place"]["value"] == 1.0
    assert summary["ties"]["total"] == 8 and summary["ties"]["value"] == 6 / 8
    assert summary["wins"]["value"] == 2 / 8  # the two that theirs did not draw


def test_half_a_pair_is_counted_and_not_scored(scored, tmp_path):
    truth = truthful(REQUESTS, {**read_known(scored / "b"), **read_known(scored / "a")})
    seen = set()

    def answer(body):
        caption = read_query(body)[0][0]
        is_second = caption in seen and caption.endswith(REQUESTS[1].prompt)
        seen.add(caption)
        return completion(None, refusal="no") if is_second else truth(body)

    with serving(answer) as server:
        config = config_of(scored, tmp_path, "pairwise")
        summary = run(judge_of(server, tmp_path, concurrency=1), config)
    assert (summary["failed"], summary["failures"]) == (1, {"refused": 1})
    assert summary["score"]["total"] == 7 and results(config)[1]["winner"] is None


def test_no_verdict_at_all_is_an_error(scored, tmp_path):
    drawn_folder(tmp_path / "other", REQUESTS, wrong=(0, 3, 4, 5, 7))  # never as in the first
    with serving([completion("hm")]) as server:
        config = config_of(scored, tmp_path, "pairwise", against=str(tmp_path / "other"))
        with pytest.raises(ValueError, match="none of 8 pairs has a verdict"):
            run_asked(judge_of(server, tmp_path), config, tell=print)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": "nowhere"}, "no folder nowhere"),
        ({"against": "x"}, "pairwise needs two"),
        ({"protocol": "pairwise"}, "pairwise needs two"),
        ({"num_samples": 0}, "num_samples must be 1"),
    ],
)
def test_bad_settings_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        settings = {"output": str(tmp_path), **options}
        run_asked(OracleConfig().build(), AskedRunConfig(**settings), tell=print)


def test_an_empty_folder_is_refused(tmp_path):
    PictureFolder(tmp_path / "empty").keep_requests(REQUESTS)
    config = AskedRunConfig(samples=str(tmp_path / "empty"), output=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="holds no picture"):
        run_asked(OracleConfig().build(), config, tell=print)


def test_pairs_of_different_prompts_are_refused(scored, tmp_path):
    drawn_folder(tmp_path / "other", REQUESTS[:4])
    config = config_of(scored, tmp_path, "pairwise", against=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="different prompts"):
        run_asked(OracleConfig().build(), config, tell=print)


def test_results_of_two_judges_are_not_mixed(scored, tmp_path):
    run(OracleConfig().build(), config_of(scored, tmp_path))
    with (
        serving([completion("Correct")]) as server,
        pytest.raises(ValueError, match="belongs to judge"),
    ):
        run_asked(judge_of(server, tmp_path), config_of(scored, tmp_path), tell=print)


def test_the_oracle_needs_a_scored_folder(scored, tmp_path):
    drawn_folder(tmp_path / "new", REQUESTS)
    config = config_of(scored, tmp_path, samples=str(tmp_path / "new"))
    with pytest.raises(JudgeError, match="score_images.py"):
        run_asked(OracleConfig().build(), config, tell=print)


def test_requests_without_questions_cannot_be_asked_them(scored, tmp_path):
    bare = [replace(request, questions=()) for request in REQUESTS]
    folder = tmp_path / "bare"
    drawn_folder(folder, bare)
    config = config_of(scored, tmp_path, "questions", samples=str(folder))
    with pytest.raises(ValueError, match="has no questions"):
        run_asked(OracleConfig().build(), config, tell=print)


def test_no_summary_without_references_and_no_agreement_without_truth():
    with pytest.raises(ValueError, match="means nothing alone"):
        summarise_asked([], {}, known={}, facts={})
    assert agreement([], {}) is None
