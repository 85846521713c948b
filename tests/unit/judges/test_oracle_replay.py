"""The two judges that need no network: one knows the truth, one repeats a recording."""

import pytest
from judge_server import completion, serving
from PIL import Image

from unimm.judges.cache import ReplyCache
from unimm.judges.drawbench import faithfulness_query
from unimm.judges.http import HttpJudgeConfig
from unimm.judges.judge import JudgeError, ask_all
from unimm.judges.oracle import OracleConfig
from unimm.judges.replay import ReplayConfig

RED = Image.new("RGB", (8, 8), "red")


@pytest.mark.parametrize(("is_faithful", "answer"), [(True, "correct"), (False, "incorrect")])
def test_the_oracle_tells_the_truth(is_faithful, answer):
    query = faithfulness_query("1", "a red square", RED, is_faithful=is_faithful)
    assert OracleConfig().build().ask(query).answer == answer


def test_the_oracle_does_not_guess():
    query = faithfulness_query("00012/0003", "a red square", RED)
    with pytest.raises(JudgeError, match="query 00012/0003: the oracle needs the truth"):
        list(ask_all(OracleConfig().build(), [query]))


def test_the_truth_is_not_shown_to_judges():
    known = faithfulness_query("1", "a red square", RED, is_faithful=False)
    unknown = faithfulness_query("2", "a red square", RED)
    assert known.messages() == unknown.messages() and known.key() == unknown.key()


@pytest.fixture
def recording(tmp_path):
    """Five queries, the middle one never answered; the judge's file and its name."""
    queries = [faithfulness_query(str(i), f"{i} squares", RED) for i in range(5)]
    path = tmp_path / "replies.jsonl"
    says = [completion(text) for text in ("Correct", "No. Incorrect", "Yes. Correct", "Incorrect")]
    with serving(says) as server:
        config = HttpJudgeConfig(
            base_url=server.base_url, model="m", api_key_env="", cache=str(path), concurrency=1
        )
        judge = config.build()
        replies = dict(ask_all(judge, [q for q in queries if q.name != "2"]))
    return path, judge.name, queries, replies


def test_a_replay_says_what_was_said(recording):
    path, name, queries, replies = recording
    judge = ReplayConfig(file=str(path)).build()
    again = dict(ask_all(judge, [q for q in queries if q.name != "2"]))
    assert [x.text for _, x in sorted(again.items())] == [
        x.text for _, x in sorted(replies.items())
    ]
    assert all(reply.is_cached for reply in again.values())
    assert judge.name == f"replay of {name}"


def test_a_replay_names_the_missing_question(recording):
    path, _, queries, _ = recording
    judge = ReplayConfig(file=str(path)).build()
    with pytest.raises(JudgeError, match="query 2: .*no reply to 'Caption: 2 squares'"):
        list(ask_all(judge, queries))


def test_a_replay_of_another_picture_is_missing(recording):
    path, *_ = recording
    judge = ReplayConfig(file=str(path)).build()
    same = faithfulness_query("0", "0 squares", Image.new("RGB", (8, 8), (254, 0, 0)))
    with pytest.raises(JudgeError, match="no reply"):
        judge.ask(same)


def test_a_recording_of_two_judges_needs_a_name(recording):
    path, name, queries, _ = recording
    ReplyCache(path).put("another", queries[0], queries[0].key(), "Incorrect")
    with pytest.raises(ValueError, match="replies of 2 judges.*another.*'recorded'"):
        ReplayConfig(file=str(path)).build()
    with pytest.raises(ValueError, match="no replies of 'nobody'"):
        ReplayConfig(file=str(path), recorded="nobody").build()
    answers = [
        ReplayConfig(file=str(path), recorded=who).build().ask(queries[0]).answer
        for who in (name, "another")
    ]
    assert answers == ["correct", "incorrect"]


def test_a_recording_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no recording at"):
        ReplayConfig(file=str(tmp_path / "none.jsonl")).build()


def test_a_recording_whose_words_hold_no_verdict(recording):
    path, name, queries, _ = recording
    query = queries[2]
    ReplyCache(path).put(name, query, query.key(), "Well, who knows")
    reply = ReplayConfig(file=str(path)).build().ask(query)
    assert reply.failure is not None and reply.failure.kind == "unreadable"
