"""Shards round-trip, and every kind of broken folder names the file and the remedy."""

import json
from dataclasses import replace

import pytest
import torch

from unimm.data.shards import INDEX, ShardFolder, ShardManifest, ShardWriter, document_line

MANIFEST = ShardManifest(
    tokenizer_hash="aaa",
    codebook_size=24,
    grid_size=(4, 4),
    split="train",
    seed=0,
    documents_per_shard=2,
)


def write(folder, manifest=MANIFEST, numbers=(0, 1), largest_code=23):
    writer = ShardWriter(folder, manifest=manifest)
    generator = torch.Generator().manual_seed(0)
    for number in numbers:
        codes = torch.randint(largest_code, (2, 4, 4), generator=generator)
        codes[0, 0, 0] = largest_code
        lines = [
            document_line([{"text": f"page {number}"}, {"image": k, "is_drawn": True}], index=k)
            for k in range(2)
        ]
        writer.write(number, documents=b"".join(lines), num_documents=2, codes=codes)
    return writer


def test_what_is_written_is_read(tmp_path):
    write(tmp_path)
    folder = ShardFolder(tmp_path, tokenizer_hash="aaa")
    documents = list(folder.documents())
    assert folder.num_documents == len(documents) == 4 and folder.num_images == 4
    shard, document = documents[2]
    assert shard == 1 and document["parts"][0] == {"text": "page 1"}
    assert folder.codes[1].shape == (2, 4, 4) and int(folder.codes[1][0, 0, 0]) == 23


def test_whole_shards_are_not_written_again(tmp_path):
    write(tmp_path, numbers=(0,))
    writer = ShardWriter(tmp_path, manifest=MANIFEST)
    assert writer.has(0) and not writer.has(1)
    (tmp_path / "shard_00000.safetensors").write_bytes(b"half")
    assert not writer.has(0)


def test_other_source_is_not_mixed_in(tmp_path):
    write(tmp_path)
    other = replace(MANIFEST, seed=1)
    with pytest.raises(ValueError, match="seed 0, this run would add 1"):
        ShardWriter(tmp_path, manifest=other)


def test_missing_shard(tmp_path):
    write(tmp_path)
    (tmp_path / "shard_00001.safetensors").unlink()
    with pytest.raises(ValueError, match=r"shard_00001\.safetensors is missing.*encode it again"):
        ShardFolder(tmp_path)


def test_truncated_shard(tmp_path):
    write(tmp_path)
    path = tmp_path / "shard_00001.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"shard_00001.*bytes of.*encode it again"):
        ShardFolder(tmp_path)


def test_garbled_shard_of_the_right_size(tmp_path):
    write(tmp_path)
    path = tmp_path / "shard_00000.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(ValueError, match="cannot be read"):
        ShardFolder(tmp_path)


def test_mismatched_tokenizer_names_both(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="tokenizer aaa, but this run uses bbb"):
        ShardFolder(tmp_path, tokenizer_hash="bbb")


def test_code_out_of_range(tmp_path):
    write(tmp_path, largest_code=24)
    with pytest.raises(ValueError, match=r"shard_00000.*code 24.*has 24 codes"):
        ShardFolder(tmp_path)


def test_no_folder_and_bad_index(tmp_path):
    with pytest.raises(ValueError, match=r"no index\.json"):
        ShardFolder(tmp_path / "nowhere")
    (tmp_path / INDEX).write_text(json.dumps({"format": 1}))
    with pytest.raises(ValueError, match="not an index"):
        ShardFolder(tmp_path)
