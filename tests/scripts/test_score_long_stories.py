"""``eval/score_long_stories.py`` on a tiny model whose context is shorter than the stories."""

import json

import pytest
from pipelines import tiny_pipeline
from run_script import run_script

from unimm.evaluation.long_stories import LongStoryConfig


def test_policies_go_beyond_the_context_and_everything_does_not(tmp_path, monkeypatch):
    tiny_pipeline(max_seq_len=300).save_pretrained(tmp_path / "model", precision="int8")
    said = run_script(
        monkeypatch,
        "eval/score_long_stories.py",
        *("--model", tmp_path / "model", "--num_stories", 2, "--device", "cpu"),
        *("--num_pages", 6, "--trained_pages", 3, "--window_pages", 1),
        *("--policies", "everything", "plain window", "sinks and first page"),
        *("--ledger", tmp_path / "ledger"),
    )
    assert said == ""
    ledger = json.loads((tmp_path / "ledger/long_stories.json").read_text())
    table = ledger["figures"]["policies"]
    assert table["everything"]["pages not drawn"] == 12
    for name in ("plain window", "sinks and first page"):
        assert table[name]["pages not drawn"] == 0 and "[" in table[name]["beyond"]


def test_unknown_policies_are_named():
    with pytest.raises(ValueError, match="unknown policies .'all'"):
        LongStoryConfig(policies=("all",))
