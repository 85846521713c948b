"""A run goes on with the data that it began with, or says that they have changed."""

import json
from pathlib import Path

from unimm.distributed import is_main

_FILE = "data.json"


def pin_data(run_dir: Path, fingerprint: str) -> None:
    """Note what a run trains on, or check that it is still the same.

    Args:
        run_dir: of the run.
        fingerprint: of the training documents and their weights.

    Raises:
        ValueError: the data are others: batches would no longer follow on those already seen.
    """
    path = run_dir / _FILE
    if not path.is_file():
        if is_main():  # at once, as another rank may be looking
            temporary = path.with_suffix(".partial")
            temporary.write_text(json.dumps({"train": fingerprint}) + "\n", encoding="utf-8")
            temporary.replace(path)
        return
    known = json.loads(path.read_text(encoding="utf-8"))["train"]
    if known != fingerprint:
        raise ValueError(
            f"the run in {run_dir} began with other shards or mixture weights ({known} then, "
            f"{fingerprint} now): restore them, or take another run_dir and start from this run's "
            "weights (initial_model)"
        )
