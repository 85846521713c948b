"""Run a script of this repository in this process: what a person starts, without a new Python."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_script(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> str:
    """Run ``eval/x.py`` from the repository's root with a command line.

    Returns:
        What it said when it stopped with an error; empty if all went well.
    """
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as stop:
        return str(stop.code or "")
    return ""
