"""A detector as a folder: ``config.json`` and ``model.safetensors``."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unimm.judges.detector import Detector, DetectorConfig
from unimm.judges.labels import VOCABULARY

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


def save_detector(detector: Detector, folder: str | Path) -> Path:
    """Write ``config.json`` and ``model.safetensors`` (parameters in bfloat16)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {name: list(words) for name, words in VOCABULARY.items()}
    config = dataclasses.asdict(detector.config) | {"vocabulary": vocabulary}
    (folder / _CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    trained = {name for name, _ in detector.named_parameters()}
    state = {
        name: (x.bfloat16() if name in trained else x).cpu().contiguous()
        for name, x in detector.state_dict().items()
    }
    save_file(state, str(folder / _WEIGHTS))
    return folder


def load_detector(folder: str | Path, *, device: torch.device | str = "cpu") -> Detector:
    """Read a detector, ready to judge, in float32.

    Raises:
        ValueError: the folder holds none, or one of another vocabulary.
    """
    folder = Path(folder)
    if not (folder / _CONFIG).is_file() or not (folder / _WEIGHTS).is_file():
        raise ValueError(
            f"no detector in {folder}: it needs {_CONFIG} and {_WEIGHTS}; "
            "run eval/train_detector.py"
        )
    config = json.loads((folder / _CONFIG).read_text())
    vocabulary = config.pop("vocabulary")
    for name in {**VOCABULARY, **vocabulary}:
        own, words = vocabulary.get(name, []), VOCABULARY.get(name, ())
        if own != list(words):
            raise ValueError(
                f"the detector in {folder} knows other words for {name!r} than this world: "
                f"{sorted(set(own) ^ set(words))}; train it again"
            )
    detector = Detector(DetectorConfig(**(config | {"channels": tuple(config["channels"])})))
    detector.load_state_dict(load_file(str(folder / _WEIGHTS)))
    return detector.eval().requires_grad_(False).to(device)
