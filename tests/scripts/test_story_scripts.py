"""``eval/score_edits.py`` and ``eval/benchmark_stories.py`` on a tiny model."""

import json

from pipelines import tiny_pipeline
from run_script import run_script

from unimm.evaluation.edit_scores import BLIND, UNCHANGED
from unimm.evaluation.picture_references import CEILING, NEAREST, RANDOM


def test_edits_are_scored_beside_ceilings_and_baselines(tmp_path, monkeypatch):
    tiny_pipeline().save_pretrained(tmp_path / "model", precision="int8")
    said = run_script(
        monkeypatch,
        "eval/score_edits.py",
        *("--model", tmp_path / "model", "--ledger", tmp_path / "ledger", "--device", "cpu"),
        *("--num_edits", 2, "--actions", "recolour", "hat_on", "--splits", "seen"),
        *("--num_training_documents", 10),
    )
    assert said == ""
    table = json.loads((tmp_path / "ledger/edits.json").read_text())["figures"]["table"]
    assert [*table] == ["seen, recolour", "seen, hat_on", "seen, all"]
    assert table["seen, all"]["edits"] == 4
    assert {CEILING, RANDOM, NEAREST, UNCHANGED, BLIND} < {*table["seen, all"]}
    assert table["seen, all"][UNCHANGED] == 0


def test_stories_are_timed_by_each_objective(tmp_path, monkeypatch):
    tiny_pipeline("next_token", "masked").save_pretrained(tmp_path / "model", precision="int8")
    said = run_script(
        monkeypatch,
        "eval/benchmark_stories.py",
        *(tmp_path / "model", "--batch-sizes", 2, "--repeats", 1, "--pages", 1),
        *("--max-text-tokens", 8, "--device", "cpu", "--ledger", tmp_path / "ledger"),
    )
    assert said == ""
    table = json.loads((tmp_path / "ledger/stories_speed.json").read_text())["figures"]["stories"]
    assert len(table) == 2
    for key, row in table.items():
        assert key.startswith(("next_token, ", "masked, "))
        assert row["stories/s"] > 0 and row["pictures/s"] >= row["stories/s"]
