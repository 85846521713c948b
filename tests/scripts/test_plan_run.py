"""The planner's command on a shipped configuration."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_plan_of_a_shipped_configuration():
    done = subprocess.run(
        [sys.executable, "train/plan_run.py", "train/configs/nano.yaml", "--gpus", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "M parameters, 2 GPUs of 80 GB" in done.stdout
    assert "This run fits." in done.stdout and "days for 300 steps" in done.stdout
    assert done.stdout.count("  fits") == 8
