"""``eval/judge_images.py`` as a person starts it: a server, its recording, and a wrong key."""

import json
from pathlib import Path

import pytest
from judge_server import as_json, completion, serving
from judged_folders import drawn_folder, scored_folder, some_requests, truthful
from run_script import run_script

from unimm.evaluation.asking_judge import read_known

KEY = "sk-secret-51ab"
REQUESTS = some_requests(2)


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs the script; gives what it said, or its error."""

    def run(*arguments: object, is_bad: bool = False) -> str:
        monkeypatch.setenv("MY_KEY", KEY)
        error = run_script(monkeypatch, "eval/judge_images.py", *arguments)
        told = "".join(capfd.readouterr())
        assert bool(error) == is_bad, told + error
        assert KEY not in told + error
        return error or told

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("judged") / "run"
    scored_folder(root, REQUESTS, wrong=(1,))
    return root


def test_a_server_is_asked_once_and_can_be_replayed(run, folder, tmp_path):
    cache = tmp_path / "replies.jsonl"
    files = ("--samples", folder, "--output", tmp_path / "out")
    with serving(truthful(REQUESTS, read_known(folder))) as server:
        flags = ("--judge.base_url", server.base_url, "--judge.model", "stub")
        flags += ("--judge.api_key_env", "MY_KEY", "--judge.cache", cache)
        told = run("eval/configs/judge_drawbench.yaml", *files, *flags)
        assert "agreement with the truth" in told and "'accuracy': 1.0" in told
        num_asked = len(server.bodies)
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    run("eval/configs/judge_drawbench.yaml", *files, *flags)  # the server is gone, its words stay
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["tasks"]["all"]["score"]["total"] == 4 and num_asked > 4

    replay = tmp_path / "replay.yaml"
    replay.write_text(f"judge: {{name: replay, file: {cache}}}\n")
    run(replay, "--samples", folder, "--output", tmp_path / "again")
    again = json.loads((tmp_path / "again/summary.json").read_text())
    assert again["tasks"] == summary["tasks"]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY not in path.read_text()


def test_two_folders_in_both_orders(run, folder, tmp_path):
    drawn_folder(tmp_path / "other", REQUESTS, wrong=(0, 2, 3))
    files = ("--samples", folder, "--against", tmp_path / "other", "--output", tmp_path / "pairs")
    with serving([completion("I would say\nTie")]) as server:
        flags = ("--judge.base_url", server.base_url, "--judge.model", "stub")
        flags += ("--judge.api_key_env", "MY_KEY", "--judge.cache", tmp_path / "r.jsonl")
        told = run("eval/configs/judge_pairs.yaml", *files, *flags)
    assert "score 0.50 [0.50, 0.50]" in told and "ties 1.00" in told
    assert len(server.bodies) == 2 * 4
    assert "a tie" in (tmp_path / "pairs/report.html").read_text()


def test_a_wrong_key_is_said_once_and_plainly(run, folder, tmp_path):
    files = ("--samples", folder, "--output", tmp_path / "out")
    with serving([as_json({"error": f"wrong key {KEY}"}, status=401)]) as server:
        flags = ("--judge.base_url", server.base_url, "--judge.model", "stub")
        flags += ("--judge.api_key_env", "MY_KEY", "--judge.cache", tmp_path / "r.jsonl")
        told = run("eval/configs/judge_drawbench.yaml", *files, *flags, is_bad=True)
    assert "HTTP 401" in told and "api_key_env" in told


def test_a_missing_key_names_its_variable(run, folder, tmp_path):
    flags = ("--judge.model", "stub", "--judge.api_key_env", "NO_SUCH_KEY")
    told = run("eval/configs/judge_drawbench.yaml", *flags, is_bad=True)
    assert "NO_SUCH_KEY is not set" in told
