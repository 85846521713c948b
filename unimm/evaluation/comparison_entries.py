"""Runs that are compared: what their folders say of training, scores and the cost of drawing.

A *way* to draw is an objective of a model that has no other, or ``joint, NAME`` for one of several;
a *trunk* is named by its width and depth, ``448x8``. Legend of the folder: ``ROOT/RUN`` holds
``config.yaml`` and ``log.jsonl`` of training, ``ROOT/scores/RUN/NAME`` what was measured of it:
``worldeval/``, ``stories/``; and ``ROOT/scores/RUN/drawing.json`` what drawing costs.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unimm.config import read_yaml
from unimm.evaluation.comparison_log import (
    Curve,
    Row,
    last_losses,
    learning_curve,
    read_log,
    training_row,
)

SCORES = "scores"
JOINT = "joint, "


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One objective of one run.

    Attributes:
        way: how it draws, see above.
        objective: its name.
        run: name of the run.
        trunk: its width and depth.
        seed: of the training.
        folder: of its scores.
        training: what training took.
        losses: of the finished model on validation documents; empty before its end.
        curve: how the objective's loss fell.
        worldeval: summary of WorldEval; empty where it was not measured.
        stories: summary of StoryEval, likewise.
        drawing: what drawing costs, likewise.
        timed_by: commit of the code that measured ``drawing``.
    """

    way: str
    objective: str
    run: str
    trunk: str
    seed: int
    folder: Path
    training: Row
    losses: Row = field(default_factory=dict[str, Any])
    curve: Curve = field(default_factory=Curve, repr=False)
    worldeval: Row = field(default_factory=dict[str, Any], repr=False)
    stories: Row = field(default_factory=dict[str, Any], repr=False)
    drawing: Row = field(default_factory=dict[str, Any])
    timed_by: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether its training has come to the end."""
        return self.training["progress"] >= 1


def read_entries(root: str | Path) -> list[Entry]:
    """Read every run below a folder that has begun to train, in the order of names.

    Raises:
        ValueError: there is none.
    """
    root = Path(root)
    folders = sorted(path.parent for path in root.glob("*/config.yaml"))
    runs = [x for x in folders if (x / "log.jsonl").is_file() and "model" in _config(x)]
    entries = [entry for run in runs for entry in _entries_of(root, run)]
    if not entries:
        raise ValueError(f"no run of train/pretrain.py in {root}: give the folder of the runs")
    return entries


def _config(run: Path) -> dict[str, Any]:
    return read_yaml(run / "config.yaml")


def _entries_of(root: Path, run: Path) -> list[Entry]:
    config, scores = _config(run), root / SCORES / run.name
    names = [str(x["name"]) for x in config["model"].get("objectives", [{"name": "next_token"}])]
    log, trunk = read_log(run), config["model"]["backbone"]
    training = training_row(log, config)
    if not training:
        return []
    costs = _read(scores / "drawing.json")
    return [
        Entry(
            way=name if len(names) == 1 else f"{JOINT}{name}",
            objective=name,
            run=run.name,
            trunk=f"{trunk['dim']}x{trunk['depth']}",
            seed=int(config["seed"]),
            folder=scores / name,
            training=training,
            losses=last_losses(log, name),
            curve=learning_curve(log, name),
            worldeval=_read(scores / name / "worldeval" / "summary.json"),
            stories=_read(scores / name / "stories" / "summary.json"),
            drawing=costs.get("figures", {}).get("drawing", {}).get(name, {}),
            timed_by=costs.get("commit", ""),
        )
        for name in names
    ]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
