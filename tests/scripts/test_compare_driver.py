"""The driver of the comparison, as far as it goes without training; SIZE=nano tries the rest."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the driver calls python


def drive(folder, *words):
    return subprocess.run(
        ["train/compare_h100.sh", *words],
        cwd=ROOT,
        env=os.environ | {"ROOT": str(folder), "OUT": str(folder / "packed"), "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_results_are_packed_without_what_is_too_large(tmp_path):
    kept = ["masked/log.jsonl", "masked/config.yaml", "objectives.json", "logs/trunk.log"]
    kept += ["image_shared/image_tokenizer/model.safetensors", "scores/a/b/worldeval/summary.json"]
    kept += ["scores/a/b/worldeval/samples/00100/samples/00000.png"]
    left = ["masked/checkpoints/step_1/x", "masked/model/model.safetensors", "image_shared/state.x"]
    left += ["shards_shared/train/shard_0", "scores/a/b/worldeval/samples/00101/samples/00000.png"]
    left += ["scores/a/b/stories/samples/00100/samples/00000.png", "packed/results.old"]
    for name in (*kept, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    done = drive(tmp_path, "pack", "results")
    assert done.returncode == 0, done.stderr
    [piece] = (tmp_path / "packed").glob("results.tgz.*")
    with tarfile.open(piece) as archive:
        found = {name.removeprefix("./") for name in archive.getnames() if "." in name[2:]}
    assert found >= set(kept) and not found & set(left)


def test_an_unknown_stage_and_a_failing_job_are_told(tmp_path):
    done = drive(tmp_path, "paint")
    assert done.returncode == 1 and "unknown stage paint" in done.stderr
    done = drive(tmp_path, "report")  # nothing is there to report
    assert done.returncode == 1 and "no run of train/pretrain.py" in done.stderr
