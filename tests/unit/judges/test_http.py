"""The HTTP judge against a real server on the loopback that answers well, badly, or not at all."""

import base64
import io
import json
import threading
import time
from email.utils import formatdate

import pytest
from judge_server import Response, as_json, completion, serving
from PIL import Image

from unimm.judges.answers import AnswerForm, Choice, Score
from unimm.judges.http import HttpJudgeConfig
from unimm.judges.judge import JudgeError, ask_all
from unimm.judges.query import Query

KEY = "sk-secret-7d3f"
RED = Image.new("RGB", (8, 8), (200, 20, 20))
BLUE = Image.new("RGB", (8, 8), (20, 20, 200))
JSON = {"Content-Type": "application/json"}


VERDICT = Choice(("correct", "incorrect"))


def query(name="0", *, picture=RED, form: AnswerForm = VERDICT, text="a red square"):
    parts = (picture, f"Caption: {text}")
    return Query(name=name, instruction="Judge.", parts=parts, form=form)


def judge_of(server, tmp_path, **options):
    fast = {"first_wait": 0.01, "timeout": 2.0, "num_retries": 2, "api_key_env": ""}
    defaults = {"cache": str(tmp_path / "replies.jsonl"), "model": "stub", **fast}
    return HttpJudgeConfig(base_url=server.base_url, **(defaults | options)).build()


def test_what_is_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with serving([completion("Correct")]) as server:
        judge = judge_of(server, tmp_path, api_key_env="MY_KEY", max_tokens=77)
        assert judge.ask(query()).answer == "correct"
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("stub", 0.0, 77)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Judge."}
    assert user["content"][1] == {"type": "text", "text": "Caption: a red square"}
    head, data = user["content"][0]["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sent.tobytes() == RED.tobytes()


def test_settings_of_models_with_other_names(tmp_path):
    with serving([completion("Correct")]) as server:
        options = {"temperature": None, "token_limit_name": "max_completion_tokens"}
        judge_of(server, tmp_path, **options).ask(query())
    assert server.bodies[0]["max_completion_tokens"] == 300
    assert not {"temperature", "max_tokens", "Authorization"} & {*server.bodies[0]}
    assert "Authorization" not in server.headers[0]


def test_content_in_parts_is_joined(tmp_path):
    parts = [{"type": "text", "text": "Fine. "}, {"type": "text", "text": "Correct"}]
    with serving([completion(parts)]) as server:
        assert judge_of(server, tmp_path).ask(query()).answer == "correct"


# What a server may send instead of a verdict -> the kind that is counted, how many calls it takes.
MALFORMED = {
    "not JSON": (Response(body=b"{'choices'", headers=JSON), "malformed", 3),
    "HTML page": (
        Response(body=b"<html>Correct</html>", headers={"Content-Type": "text/html"}),
        "malformed",
        3,
    ),
    "wrong content type": (
        Response(body=completion("Correct").body, headers={"Content-Type": "text/plain"}),
        "malformed",
        3,
    ),
    "empty body": (Response(headers=JSON), "malformed", 3),
    "not UTF-8": (Response(body=b'{"choices": "\xff\xfe"}', headers=JSON), "malformed", 3),
    "a list": (as_json(["Correct"]), "malformed", 3),
    "null": (as_json(None), "malformed", 3),
    "no choices": (as_json({"error": {"message": "overloaded"}}), "malformed", 3),
    "empty choices": (as_json({"choices": []}), "malformed", 3),
    "choice of text": (as_json({"choices": ["Correct"]}), "malformed", 3),
    "null message": (as_json({"choices": [{"message": None}]}), "malformed", 3),
    "null content": (completion(None), "malformed", 3),
    "empty content": (completion("  "), "malformed", 3),
    "content of numbers": (completion([1, 2]), "malformed", 3),
    "truncated body": (
        Response(body=completion("Correct").body, headers=JSON, missing_bytes=9),
        "malformed",
        3,
    ),
    "endless body": (Response(body=b" " * (9 << 20), headers=JSON), "malformed", 1),
    "refusal": (completion(None, refusal="I can't help with that"), "refused", 1),
    "content filter": (completion("Correct", finish="content_filter"), "refused", 1),
    "cut off": (completion("The colour is. Correct", finish="length"), "cut off", 1),
    "picture refused": (as_json({"error": "bad image"}, status=400), "rejected", 1),
    "too large": (as_json({"error": "too large"}, status=413), "rejected", 1),
    "server error": (Response(status=500, body=b"Correct"), "server error", 3),
    "gateway's HTML": (Response(status=502, body=b"<h1>Bad gateway</h1>"), "server error", 3),
    "rate limit": (Response(status=429), "rate limit", 3),
    "connection reset": (Response(is_reset=True), "connection", 3),
    "buried in prose": (completion("It is correct that the ball is red."), "unreadable", 3),
    "outside the choices": (completion("Partly correct"), "unreadable", 3),
    "two verdicts": (completion("Correct\nIncorrect"), "unreadable", 3),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_reply_is_a_counted_failure(case, tmp_path):
    response, kind, num_calls = MALFORMED[case]
    with serving([response]) as server:
        judge = judge_of(server, tmp_path)
        ((_, reply),) = ask_all(judge, [query()])
    assert reply.answer is None and reply.failure is not None
    assert reply.failure.kind == kind, reply.failure
    assert len(server.bodies) == num_calls
    assert not (tmp_path / "replies.jsonl").exists()  # asked again by the next run


@pytest.mark.parametrize("case", [x for x, (_, _, calls) in MALFORMED.items() if calls > 1])
def test_a_judge_that_recovers_is_heard(case, tmp_path):
    with serving([MALFORMED[case][0], completion("It fits. Correct")]) as server:
        reply = judge_of(server, tmp_path).ask(query())
    assert (reply.answer, len(server.bodies)) == ("correct", 2)


def test_a_score_out_of_range_is_a_counted_failure(tmp_path):
    with serving([completion("Lovely. [[11]]")]) as server:
        reply = judge_of(server, tmp_path).ask(query(form=Score(0, 10)))
    assert reply.failure is not None and reply.failure.kind == "unreadable"
    assert "11" in reply.failure.detail and reply.text == "Lovely. [[11]]"


def test_a_judge_is_reminded_of_the_form(tmp_path):
    with serving([completion("Hard to say."), completion("incorrect")]) as server:
        assert judge_of(server, tmp_path).ask(query()).answer == "incorrect"
    assert server.bodies[1]["messages"][:2] == server.bodies[0]["messages"]
    said, reminder = server.bodies[1]["messages"][2:]
    assert said == {"role": "assistant", "content": "Hard to say."}
    assert reminder["role"] == "user" and "'correct' or 'incorrect'" in reminder["content"]


@pytest.mark.parametrize(
    ("response", "remedy"),
    [
        (as_json({"error": "bad key"}, status=401), "api_key_env"),
        (as_json({"error": "no credit"}, status=402), "no credit"),
        (as_json({"error": "not yours"}, status=403), "may not use this model"),
        (Response(status=404, body=b"not found"), "base_url"),
        (as_json({"error": {"code": "insufficient_quota"}}, status=429), "no credit"),
        (Response(status=301, headers={"Location": "https://elsewhere.example/v1"}), "elsewhere"),
        (Response(status=307, headers={"Location": "https://elsewhere.example/v1"}), "elsewhere"),
    ],
)
def test_what_no_retry_can_help_stops_the_run(response, remedy, tmp_path):
    with serving([response]) as server:
        judge = judge_of(server, tmp_path, concurrency=1)
        with pytest.raises(JudgeError, match=remedy):
            list(ask_all(judge, [query(str(i), text=str(i)) for i in range(50)]))
    assert len(server.bodies) < 5  # 50 queries are not 50 wrong calls


def test_a_redirect_never_carries_the_key_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with serving([completion("Correct")]) as other:
        moved = Response(status=302, headers={"Location": other.base_url + "/chat/completions"})
        with serving([moved]) as server, pytest.raises(JudgeError, match="points to"):
            judge_of(server, tmp_path, api_key_env="MY_KEY").ask(query())
    assert other.headers == []


@pytest.mark.parametrize("is_date", [False, True])
def test_retry_after_is_kept(is_date, tmp_path):
    # Dates count whole seconds: two from now is more than one away.
    wait = formatdate(time.time() + 2, usegmt=True) if is_date else "0.5"
    busy = Response(status=429, headers={"Retry-After": wait})
    with serving([busy, completion("Correct")]) as server:
        assert judge_of(server, tmp_path).ask(query()).answer == "correct"
    assert server.times[1] - server.times[0] >= (0.9 if is_date else 0.5)


def test_retry_after_holds_all_threads(tmp_path):
    first = threading.Event()

    def answer(body):
        if not first.is_set():
            first.set()
            return Response(status=429, headers={"Retry-After": "0.6"})
        return completion("Correct")

    with serving(answer) as server:
        judge = judge_of(server, tmp_path, concurrency=2)
        queries = [query(str(i), text=str(i)) for i in range(6)]
        assert all(reply.answer for _, reply in ask_all(judge, queries))
    # One call may be under way when the server asks for silence; the rest keeps it.
    assert sum(time - server.times[0] < 0.55 for time in server.times) <= 3


def test_a_server_that_asks_for_an_hour_is_not_waited_for(tmp_path):
    with serving([Response(status=503, headers={"Retry-After": "3600"})]) as server:
        reply = judge_of(server, tmp_path).ask(query())
    assert reply.failure is not None and reply.failure.kind == "server error"
    assert len(server.bodies) == 1


def test_waits_grow(tmp_path):
    with serving([Response(status=500)]) as server:
        judge_of(server, tmp_path, first_wait=0.1, num_retries=3).ask(query())
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert [low <= gap for low, gap in zip((0.05, 0.1, 0.2), gaps, strict=True)] == [True] * 3


@pytest.mark.parametrize("slow", [{"delay": 1.0}, {"drip": 0.05}])
def test_a_slow_server_times_out(slow, tmp_path):
    # A dripping server sends something all the time, but never comes to an end.
    late = Response(body=completion("Correct").body, headers=JSON, **slow)
    with serving([late]) as server:
        start = time.monotonic()
        reply = judge_of(server, tmp_path, timeout=0.3, num_retries=0).ask(query())
    assert reply.failure is not None and reply.failure.kind == "timeout"
    assert time.monotonic() - start < 1.5


def test_no_server_at_all_stops_the_run(tmp_path):
    with serving([completion("Correct")]) as server:
        pass
    judge = judge_of(server, tmp_path, num_retries=0)
    with pytest.raises(JudgeError, match="last 20 queries failed.*connection"):
        list(ask_all(judge, [query(str(i)) for i in range(50)]))


def test_the_key_is_told_to_nobody(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("MY_KEY", KEY)
    echo = as_json({"error": f"wrong key {KEY}"}, status=401)
    noise = as_json({"choices": [], "key": KEY})
    said = completion(f"Your key is {KEY}.\nCorrect")
    with serving([noise, said, echo]) as server:
        judge = judge_of(server, tmp_path, api_key_env="MY_KEY")
        reply = judge.ask(query("1"))
        with pytest.raises(JudgeError) as error:
            list(ask_all(judge, [query("2", text="other")]))
    with serving([noise]) as server:
        failed = judge_of(server, tmp_path, api_key_env="MY_KEY").ask(query("3", text="third"))
    told = [repr(reply), repr(failed), str(error.value), repr(judge.config), judge.name]
    told += [(tmp_path / "replies.jsonl").read_text(), caplog.text, *capfd.readouterr()]
    assert reply.answer == "correct" and "[key]" in told[0] and "[key]" in told[2]
    assert not [text for text in told if KEY in text]


def test_questions_are_asked_at_once_up_to_the_limit(tmp_path):
    slow = Response(body=completion("Correct").body, headers=JSON, delay=0.15)
    with serving([slow]) as server:
        judge = judge_of(server, tmp_path, concurrency=4)
        queries = [query(str(i), text=str(i)) for i in range(12)]
        replies = dict(ask_all(judge, queries))
    assert sorted(replies) == list(range(12)) and server.most_open == 4


def test_replies_are_kept_and_a_stopped_run_goes_on(tmp_path):
    queries = [query(str(i), text=str(i)) for i in range(6)]
    with serving([completion("Correct")] * 3 + [Response(status=401)]) as server:
        judge = judge_of(server, tmp_path, concurrency=1)
        with pytest.raises(JudgeError):
            list(ask_all(judge, queries))
    url = judge.config.base_url
    with serving([completion("Incorrect")]) as server:
        # Another address is another judge: the stub comes back at a new port, so name the old one.
        again = judge_of(server, tmp_path)
        object.__setattr__(again.config, "base_url", url)
        replies = [reply for _, reply in sorted(ask_all(again, queries))]
    assert [reply.answer for reply in replies] == ["correct"] * 3 + ["incorrect"] * 3
    assert [reply.is_cached for reply in replies] == [True] * 3 + [False] * 3
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"picture": BLUE},
        {"text": "a blue square"},
        {"form": Choice(("correct", "incorrect", "unsure"))},
    ],
)
def test_the_cache_goes_by_content(change, tmp_path):
    with serving([completion("Correct"), completion("Incorrect")]) as server:
        judge = judge_of(server, tmp_path)
        assert judge.ask(query("1")).answer == "correct"
        assert judge.ask(query("another name")).answer == "correct"  # the same content
        assert len(server.bodies) == 1
        assert judge.ask(query("1", **change)).answer == "incorrect"
        assert judge_of(server, tmp_path, model="other").ask(query("1")).is_cached is False


def test_a_broken_picture_is_a_counted_failure(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    with serving([completion("Correct")]) as server:
        judge = judge_of(server, tmp_path)
        replies = dict(ask_all(judge, [query("1", picture=path), query("2")]))
    assert replies[0].failure is not None and replies[0].failure.kind == "picture"
    assert "broken.png" in replies[0].failure.detail
    assert replies[1].answer == "correct" and len(server.bodies) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "127.0.0.1:8000/v1"}, "must start with http"),
        ({"base_url": "https://user:pw@host/v1"}, "holds a user"),
        ({"base_url": "https://host/v1?key=sk-1"}, "holds a user"),
        ({"base_url": "https://host/v1/chat/completions"}, "must end before"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"timeout": 0.0}, "timeout is 0"),
        ({"num_retries": -1}, "num_retries is -1"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message) as error:
        HttpJudgeConfig(**options)
    assert "pw" not in str(error.value) and "sk-1" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"), [(None, "not set"), (" ", "not set"), ("sk-\u00e9", "characters")]
)
def test_a_key_that_cannot_be_one(value, message, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match=f"MY_KEY.*{message}|{message}.*MY_KEY|{message}"):
        HttpJudgeConfig(model="m", api_key_env="MY_KEY").build()


def test_a_judge_without_a_model():
    with pytest.raises(ValueError, match="needs a 'model'"):
        HttpJudgeConfig(api_key_env="").build()


def test_what_a_killed_run_leaves_is_asked_again(tmp_path):
    path = tmp_path / "replies.jsonl"
    with serving([completion("Correct")]) as server:
        judge = judge_of(server, tmp_path)
        judge.ask(query("1"))
        judge.ask(query("2", text="second"))
        path.write_bytes(path.read_bytes()[:-40])
        again = judge_of(server, tmp_path)
        assert again.cache.num_torn == 1
        assert again.ask(query("1")).is_cached
        assert not again.ask(query("2", text="second")).is_cached
        third = judge_of(server, tmp_path)
        assert third.ask(query("2", text="second")).is_cached and third.cache.num_torn == 1
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert len([json.loads(line) for line in whole]) == 2


def test_a_file_that_is_no_cache_is_left_alone(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text("notes of mine\n")
    with (
        serving([completion("Correct")]) as server,
        pytest.raises(ValueError, match="line 1 is no recorded"),
    ):
        judge_of(server, tmp_path)
    assert path.read_text() == "notes of mine\n"
