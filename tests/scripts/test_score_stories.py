"""``eval/score_stories.py`` as a person starts it, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

from pipelines import tiny_pipeline

ROOT = Path(__file__).parents[2]


def test_scores_of_a_tiny_model(tmp_path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model", precision="int8")
    command = [
        *(sys.executable, str(ROOT / "eval/score_stories.py")),
        str(ROOT / "eval/configs/stories.yaml"),
        *("--model", str(tmp_path / "model"), "--output", str(tmp_path / "run")),
        *("--num_stories", "2", "--splits", "validation", "--sets", "words"),
        *("--controls", "pictures exchanged", "--num_training_documents", "20"),
        *("--ledger", str(tmp_path / "ledger"), "--device", "cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "validation words alone" in done.stdout
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    ledger = json.loads((tmp_path / "ledger/stories.json").read_text())
    assert ledger["figures"]["headline"] == summary["headline"]
    assert "sets" not in ledger["figures"]  # the ledger has tables, the summary everything
    assert "StoryEval" in (tmp_path / "run/report.html").read_text()
