"""The driver of the comparison, as far as it goes without training; SIZE=nano tries the rest."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the driver calls python


def drive(folder, *words, timeout=60, **settings):
    return subprocess.run(
        ["train/compare_h100.sh", *words],
        cwd=ROOT,
        env=os.environ
        | {"ROOT": str(folder), "OUT": str(folder / "packed"), "PATH": PATH}
        | settings,
        capture_output=True,
        text=True,
        timeout=timeout,
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
    done = drive(tmp_path, "trunks", SIZE="nano", RUNS="0:masked@tiny")
    assert done.returncode == 1 and "unknown run masked@tiny" in done.stdout
    done = drive(tmp_path, "report")  # nothing is there to report
    assert done.returncode == 1 and "no run of train/pretrain.py" in done.stderr


def test_no_run_is_begun_shortly_before_the_end_of_a_call(tmp_path):
    runs = "0:masked 0:masked@large 0:masked@large-s1"
    done = drive(tmp_path, "trunks", SIZE="nano", RUNS=runs, CALL_MINUTES="1")
    told = [line for line in done.stdout.splitlines() if line.startswith("to be continued")]
    assert done.returncode == 1 and len(told) == 3


def test_all_jobs_run_once_however_many_at_a_time(tmp_path):
    for name in ("a", "b", "c"):
        folder = tmp_path / name / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model": {"objectives": [{"name": "masked"}]}}')
        scores = tmp_path / "scores" / name / "masked"
        for kind in ("worldeval", "stories"):
            (scores / kind).mkdir(parents=True)
            (scores / kind / "summary.json").touch()  # is not scored again
    done = drive(tmp_path, "eval", GPUS="0 1", PER_GPU="2")
    told = sorted(line.split(": ")[1] for line in done.stdout.splitlines())
    kinds = ("pictures", "stories")
    assert done.returncode == 0, done.stdout
    assert told == sorted(f"{kind} {name} masked" for kind in kinds for name in "abc")


@pytest.mark.long
def test_two_sizes_of_trunk_from_tokenizer_to_report(tmp_path):
    runs = {"RUNS": "0:masked 0:masked-s1 0:masked@small", "SIZE": "nano"}
    done = drive(tmp_path, "tokenizers+encode+trunks+eval+report", timeout=900, **runs)
    assert done.returncode == 0, done.stdout
    figures = json.loads((tmp_path / "objectives.json").read_text())["figures"]
    assert [*figures["worldeval"]] == ["masked"] and figures["worldeval"]["masked"]["runs"] == 2
    assert [*figures["scaling"]] == ["masked, 32x1", "masked, 64x2"]
    assert all("seen" in row and row["loss of pictures"] > 0 for row in figures["scaling"].values())
    assert (tmp_path / "objectives_scaling.svg").is_file()
