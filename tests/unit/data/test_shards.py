"""Shards round-trip, and every kind of broken folder names the file and the remedy."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from unimm.data.corpus import Corpus
from unimm.data.shards import INDEX, ShardFolder, ShardManifest, ShardWriter, document_line
from unimm.document import ImageTokens

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
        latents = torch.randn(2, 3, 4, 4, generator=generator)
        images = ImageTokens(codes=codes, latents=latents if manifest.latent_dim else None)
        lines = [
            document_line([{"text": f"page {number}"}, {"image": k, "is_drawn": True}], index=k)
            for k in range(2)
        ]
        writer.write(number, documents=b"".join(lines), num_documents=2, images={"single": images})
    writer.finish(max(numbers) + 1)
    return writer


def test_what_is_written_is_read(tmp_path):
    write(tmp_path)
    folder = ShardFolder(tmp_path, tokenizer_hash="aaa")
    documents = list(folder.documents())
    assert folder.num_documents == len(documents) == 4 and folder.num_images == 4
    shard, document = documents[2]
    assert shard == 1 and document["parts"][0] == {"text": "page 1"}
    codes = folder.images[1]["single"].codes
    assert codes is not None and codes.shape == (2, 4, 4) and int(codes[0, 0, 0]) == 23
    assert folder.images[1]["single"].latents is None


def test_latents_are_kept_in_half_precision_and_reach_documents(tmp_path):
    write(tmp_path, replace(MANIFEST, latent_dim=3))
    folder = ShardFolder(tmp_path)
    stored = folder.images[0]["single"].latents
    assert stored is not None and stored.shape == (2, 3, 4, 4) and stored.dtype == torch.float16
    corpus = Corpus(folder, encode_texts=lambda texts: [[7] for _ in texts])
    tokens = corpus.document(1).parts[1].tokens
    assert tokens is not None and tokens.latents is not None
    assert torch.equal(tokens.latents, stored[1].float())
    with pytest.raises(ValueError, match="latent_dim 3, this run would add 0"):
        ShardWriter(tmp_path, manifest=MANIFEST)


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


def test_every_schedule_round_trips(tmp_path):
    manifest = replace(MANIFEST, schedules=("single", "1-2-4"))
    writer, generator = ShardWriter(tmp_path, manifest=manifest), torch.Generator().manual_seed(0)
    images = {
        name: manifest.blank(name, 3).map(
            lambda codes: torch.randint(24, codes.shape, generator=generator)
        )
        for name in manifest.schedules
    }
    line = document_line([{"image": 0, "is_drawn": True}], index=0)
    writer.write(0, documents=line, num_documents=1, images=images)
    assert writer.finish(1) == []
    folder = ShardFolder(tmp_path)
    assert folder.manifest == manifest and folder.num_images == 3
    found = folder.images[0]["1-2-4"]
    for ours, theirs in zip(found.scale_codes, images["1-2-4"].scale_codes, strict=True):
        assert torch.equal(ours.long(), theirs)
    single, copies = images["single"].codes, images["1-2-4"].codes
    assert single is not None and copies is not None
    share = float((single == copies).float().mean())
    assert folder.copy_agreement() == {"1-2-4": pytest.approx(share)}
    with pytest.raises(ValueError, match="schedules"):
        ShardWriter(tmp_path, manifest=MANIFEST)


def test_a_scales_code_out_of_range(tmp_path):
    manifest = replace(MANIFEST, schedules=("1-2-4",))
    images = {"1-2-4": manifest.blank("1-2-4", 1)}
    images["1-2-4"].scale_codes[1][0, 1, 1] = 24
    line = document_line([{"image": 0, "is_drawn": True}], index=0)
    writer = ShardWriter(tmp_path, manifest=manifest)
    writer.write(0, documents=line, num_documents=1, images=images)
    writer.finish(1)
    with pytest.raises(ValueError, match=r"code 24.*has 24 codes"):
        ShardFolder(tmp_path)


def test_a_broken_run_is_not_mistaken_for_a_finished_one(tmp_path):
    write(tmp_path)
    (tmp_path / INDEX).unlink()
    with pytest.raises(ValueError, match="encoding has not ended; run the command"):
        ShardFolder(tmp_path)
    writer = ShardWriter(tmp_path, manifest=MANIFEST)
    assert writer.has(0) and writer.has(1, num_read=2) and not writer.has(2)
    assert not writer.has(1, num_read=3), "the source has grown since"
    assert writer.finish(3) == [2] and not (tmp_path / INDEX).exists()
    assert writer.finish(2) == [] and ShardFolder(tmp_path).num_documents == 4


def test_shards_without_an_index_still_tell_their_source(tmp_path):
    write(tmp_path)
    (tmp_path / INDEX).unlink()
    other = ShardWriter(tmp_path, manifest=replace(MANIFEST, content_hash="other"))
    with pytest.raises(ValueError, match="content_hash , this run would add other"):
        other.has(0)


def test_folders_of_before_have_no_headers(tmp_path):
    """Shards that say nothing of themselves are known by the index alone."""
    write(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    for entry in index["shards"]:
        path = tmp_path / entry["file"]
        save_file(load_file(path), path, metadata={"num_documents": "2"})
        for key in ("skipped", "dropped"):
            del entry[key]
        entry["bytes"] = path.stat().st_size
    del index["totals"], index["manifest"]["content_hash"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert ShardFolder(tmp_path).totals.read == 4
    assert ShardWriter(tmp_path, manifest=MANIFEST).has(1)
