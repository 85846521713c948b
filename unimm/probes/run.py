"""Run one probe: load, probe, and write its table, figures and plots."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unimm.data.labelled.sets import LabelledConfig
from unimm.probes.cache import FeatureCache, FeaturesInMemory
from unimm.probes.features import load_feature_model
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult


@dataclass(frozen=True, kw_only=True)
class ProbeRunConfig:
    """A run of ``eval/run_probe.py``.

    Attributes:
        probe: which, and how.
        data: what it is probed with.
        model: shipped name, model folder, Hub id, or a ``diffusers`` folder.
        objective: that is looked at; empty is the first that suits the probe, or else the first.
        output: folder of ``results.json`` and the plots.
        cache: folder that keeps features for later runs; empty makes them anew, in memory.
        ledger: folder of the ledger; empty writes none.
        ledger_name: of its file.
        batch_size: pictures that a network sees at once.
        seed: of heads, controls and noise.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    probe: ProbeConfig
    data: LabelledConfig
    model: str = "storyworld"
    objective: str = ""
    output: str = "runs/probe"
    cache: str = "runs/features"
    ledger: str = ""
    ledger_name: str = "probe"
    batch_size: int = 256
    seed: int = 0
    device: str = ""


def run_probe(config: ProbeRunConfig, *, tell: Callable[[str], None] = print) -> ProbeResult:
    """Run a probe and write ``results.json`` and PNG plots into ``config.output``.

    Raises:
        ValueError: if model or data are not there, or do not suit the probe.
    """
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = load_feature_model(
        config.model, device=device, objective=config.objective, kinds=config.probe.objectives
    )
    data = config.data.read(device)
    sizes = [len(x) for x in (data.train, data.validation, data.test)]
    tell(f"{model.name} on {data.name}: {' / '.join(map(str, sizes))} pictures")
    size = config.batch_size
    cache = FeaturesInMemory(batch_size=size)
    if config.cache:
        cache = FeatureCache(config.cache, batch_size=size)
    result = config.probe.run(
        Bench(model=model, data=data, cache=cache, seed=config.seed, tell=tell)
    )
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    for name, picture in result.pictures.items():
        picture.save(output / f"{name}.png")
    facts = facts_of(config, model.name, data.name)
    figures = {"beaten": result.beaten(), **result.figures}
    content = {"facts": facts, "table": result.table, "figures": figures}
    (output / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return result


def facts_of(config: ProbeRunConfig, model: str, data: str) -> dict[str, Any]:
    """What a reader of the figures must know."""
    return {"probe": config.probe.name, "model": model, "data": data, "seed": config.seed}
