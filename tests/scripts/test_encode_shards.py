"""A mixture of broken corpora in every format, from files through shards to a resumed training."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from corpora import tiny_data, tiny_run, tiny_tokenizers
from formats import CORRUPTIONS, RULE, SIZE, broken_at
from run_script import ROOT, run_script

from unimm.config import config_to_dict
from unimm.data.formats import FORMATS, FormatConfig
from unimm.data.loader import TrainBatches
from unimm.data.mixture import write_mixture
from unimm.data.shards import ShardFolder
from unimm.training.config import LoggingConfig
from unimm.training.loop import train

SCRIPT = "tokenizers/encode_shards.py"
ROWS = 8  # of a step


class Broken(Exception):
    """The run is broken off here."""


def write_corpora(folder: Path, *, num: int, num_broken: int) -> dict[str, dict[str, int]]:
    """Write all formats and the YAML that mixes them.

    Returns:
        Format -> cause -> documents that must be skipped.
    """
    sources, expected = {}, {}
    for place, (name, (write, causes)) in enumerate(CORRUPTIONS.items()):
        # Odd and even ones differ, so that eight of them sum up to round numbers.
        count = num // 8 + (place % 2 if num % 8 else 0)
        bad = max(num_broken // 8 + (place % 2 if num_broken % 8 else 0), len(causes) + 1)
        broken = broken_at(name, count, bad)
        sources[name] = write(folder / "corpora" / name, count, broken)
        expected[name] = dict(Counter(broken.values()))
    values = {
        "output": str(folder / "shards"),
        "image_tokenizer": str(folder / "image_tokenizer"),
        "sources": {
            name: {"name": name} | config_to_dict(config, choices={FormatConfig: FORMATS})
            for name, config in sources.items()
        },
        "image_size": SIZE,
        "max_pixels": RULE.max_pixels,
        "max_pictures": RULE.max_pictures,
        "max_characters": RULE.max_characters,
        "with_latents": True,
        "documents_per_shard": 16,
        "device": "cpu",
    }
    (folder / "mixture.yaml").write_text(yaml.safe_dump(values))
    return expected


def record_documents(monkeypatch, *, break_at: int = -1) -> dict[int, list[int]]:
    """Note which visits each micro-batch trains on; break the run off before one of them."""
    seen: dict[int, list[int]] = {}
    real = TrainBatches.__getitem__

    def note(self: TrainBatches, number: int):
        if number == break_at:
            raise Broken
        batch = real(self, number)
        seen[number] = [visit for row in batch.document_indices for visit in row]
        return batch

    monkeypatch.setattr(TrainBatches, "__getitem__", note)
    return seen


def run_through(folder: Path, monkeypatch, *, num: int, num_broken: int) -> None:
    """Encode with a break, check the counts, train an epoch with a break, check the documents."""
    tiny_tokenizers(folder)
    expected = write_corpora(folder, num=num, num_broken=num_broken)
    yaml_path = folder / "mixture.yaml"
    first = run_script(monkeypatch, SCRIPT, yaml_path, "--part", "1/2")  # a process that ran alone
    assert not first
    shards = folder / "shards"
    assert not list(shards.rglob("index.json"))
    assert not run_script(monkeypatch, SCRIPT, yaml_path)  # the rest

    mixture = ShardFolder(shards)
    for name, causes in expected.items():
        totals = json.loads((shards / name / "index.json").read_text())["totals"]
        assert totals["skipped"] == dict(sorted(causes.items())), name
        assert totals["documents"] + sum(causes.values()) == totals["read"]
    num_bad = sum(sum(causes.values()) for causes in expected.values())
    assert mixture.totals.read == num and mixture.num_documents == num - num_bad

    config = tiny_run(
        folder,
        data=tiny_data(
            folder, train=str(shards), validation="", row_length=224, rows_per_step=ROWS
        ),
        logging=LoggingConfig(
            log_every=1, evaluate_every=0, sample_every=0, save_every=3, keep_checkpoints=1
        ),
        max_steps=100_000,
    )
    num_steps = _steps_of_an_epoch(config)
    config = tiny_run(
        folder, data=config.data, logging=config.logging, max_steps=num_steps
    )  # the tail of the last step belongs to the next epoch
    nothing = lambda model, parts, path: None  # noqa: E731
    with monkeypatch.context() as patch, pytest.raises(Broken):
        before = record_documents(patch, break_at=num_steps * 2 // 3)
        train(config, draw=nothing, save=nothing)
    done = 3 * ((num_steps * 2 // 3) // 3)  # steps of the last checkpoint
    with monkeypatch.context() as patch:
        after = record_documents(patch)
        train(config, draw=nothing, save=nothing)
    assert min(after) == done, "it goes on after the last checkpoint"
    visits = [x for step, found in before.items() if step < done for x in found]
    visits += [x for step, found in after.items() if step < num_steps for x in found]
    write_mixture(shards, {"jsonl": 1.0})
    with pytest.raises(ValueError, match="began with other shards or mixture weights"):
        train(config, draw=nothing, save=nothing)
    epoch = [visit for visit in visits if visit < mixture.num_documents]
    assert sorted(epoch) == list(range(mixture.num_documents)), "each document once"


def _steps_of_an_epoch(config) -> int:
    import torch

    from unimm.training.prepare import prepare

    stream = prepare(config, micro_rows=ROWS, device=torch.device("cpu")).stream
    return -(-len(stream.rows_of(0)) // ROWS)


def test_a_small_mixture(tmp_path, monkeypatch, caplog):
    run_through(tmp_path, monkeypatch, num=300, num_broken=9)
    assert "skipped 1 documents: truncated tar" in caplog.text


@pytest.mark.long
def test_ten_thousand_documents_three_percent_of_them_broken(tmp_path, monkeypatch):
    run_through(tmp_path, monkeypatch, num=10_000, num_broken=300)


def test_a_source_of_nothing_but_urls_says_what_to_do(tmp_path, monkeypatch):
    tiny_tokenizers(tmp_path)
    lines = '{"parts": [{"text": "x"}, {"image": "https://example.org/x.png"}]}\n' * 3
    (tmp_path / "urls.jsonl").write_text(lines)
    with pytest.raises(ValueError, match="none of the 3 documents.*URL only.*img2dataset"):
        run_script(
            monkeypatch,
            SCRIPT,
            *("tokenizers/configs/shards_own.yaml", "--documents", tmp_path / "urls.jsonl"),
            *("--image_tokenizer", tmp_path / "image_tokenizer", "--image_size", SIZE),
            *("--output", tmp_path / "shards", "--device", "cpu"),
        )


@pytest.mark.long  # two Pythons
def test_torchrun_shares_the_shards_out(tmp_path):
    tiny_tokenizers(tmp_path)
    expected = write_corpora(tmp_path, num=300, num_broken=9)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, SCRIPT, str(tmp_path / "mixture.yaml")],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = ShardFolder(tmp_path / "shards")
    num_bad = sum(sum(causes.values()) for causes in expected.values())
    assert folder.totals.read == 300 and folder.num_documents == 300 - num_bad
