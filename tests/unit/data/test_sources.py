"""A user's documents become shards; what is broken is skipped and counted by cause."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unimm.data.encode import encode_documents
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter
from unimm.data.sources import JsonlSource
from unimm.document import ImageTokens


def mean_codes(pixels):
    """Stand-in for a tokenizer: one code for the mean of each 8x8 square."""
    grey = (pixels.mean(1, keepdim=True) + 1) * 127.5
    codes = torch.nn.functional.avg_pool2d(grey, 8)[:, 0].round().long()
    return {"single": ImageTokens(codes=codes, latents=codes[:, None] / 2)}


@pytest.fixture
def documents(tmp_path):
    Image.new("RGB", (16, 16), (200, 200, 200)).save(tmp_path / "grey.png")
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 100  # the centre square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    lines = [
        {"parts": [{"text": "grey"}, {"image": "grey.png"}], "truth": {"names": ["Mia"]}},
        {"parts": [{"text": "broken"}, {"image": "broken.png"}]},
        {"parts": [{"text": "wide"}, {"image": "wide.png", "is_drawn": False}, {"text": "?"}]},
        {"parts": [{"text": "gone"}, {"image": "gone.png"}]},
        {"parts": [{"words": "no such part"}]},
        {"parts": [{"text": "only text"}], "is_open": True},
    ]
    path = tmp_path / "documents.jsonl"
    text = "\n".join(map(json.dumps, lines))
    path.write_text(text + "\nnot json\n", encoding="utf-8")
    return path


def encode(source, folder, *, latent_dim=0, **kwargs):
    manifest = ShardManifest(
        tokenizer_hash="x",
        codebook_size=256,
        grid_size=(2, 2),
        split="train",
        seed=0,
        documents_per_shard=3,
        latent_dim=latent_dim,
    )
    return encode_documents(
        source, ShardWriter(folder, manifest=manifest), encode=mean_codes, **kwargs
    )


def test_good_documents_are_encoded_and_bad_ones_counted(documents, tmp_path, caplog):
    skipped = encode(JsonlSource(documents, image_size=16), tmp_path / "shards")
    assert skipped == {"corrupt image": 1, "missing image": 1, "bad line": 2}
    assert "skipped 1 documents: corrupt image" in caplog.text
    folder = ShardFolder(tmp_path / "shards")
    found = [(shard, line) for shard, line in folder.documents()]
    assert [line["index"] for _, line in found] == [0, 2, 5]
    assert found[0][1]["truth"] == {"names": ["Mia"]}
    assert found[1][1]["parts"][1]["is_drawn"] is False and found[2][1]["is_open"]
    codes = folder.images[0]["single"].codes
    assert codes is not None
    grey, wide = codes.long()
    assert (grey == 200).all()
    assert (wide == 100).all(), "a wide picture is cut to its centre square"


def test_latents_are_encoded_beside_the_codes(documents, tmp_path):
    encode(JsonlSource(documents, image_size=16), tmp_path / "shards", latent_dim=1)
    images = ShardFolder(tmp_path / "shards").images
    assert (
        images[1]["single"].latents is not None and len(images[1]["single"].latents) == 0
    )  # text only
    assert images[0]["single"].codes is not None and images[0]["single"].latents is not None
    assert torch.equal(
        images[0]["single"].latents[:, 0].float() * 2, images[0]["single"].codes.float()
    )


def test_wrong_size_can_be_refused(documents, tmp_path):
    source = JsonlSource(documents, image_size=16, resize="error")
    assert encode(source, tmp_path / "shards")["wrong image size"] == 1


def test_worker_processes_change_nothing(documents, tmp_path):
    source = JsonlSource(documents, image_size=16)
    encode(source, tmp_path / "a")
    encode(source, tmp_path / "b", num_processes=2)
    assert (tmp_path / "a/index.json").read_text() == (tmp_path / "b/index.json").read_text()
    for shard in (tmp_path / "a").glob("*.safetensors"):
        assert shard.read_bytes() == (tmp_path / "b" / shard.name).read_bytes()


def test_a_broken_run_goes_on_where_it_stopped(documents, tmp_path):
    encode(JsonlSource(documents, image_size=16), tmp_path / "a")
    (tmp_path / "a/shard_00001.safetensors").unlink()
    done = []
    encode(
        JsonlSource(documents, image_size=16),
        tmp_path / "a",
        on_shard=lambda number, shard: done.append((number, shard is not None)),
    )
    assert sorted(done) == [(0, False), (1, True), (2, False)]
    ShardFolder(tmp_path / "a")


def test_no_file_or_an_empty_one(tmp_path):
    with pytest.raises(ValueError, match="no documents at"):
        JsonlSource(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        JsonlSource(tmp_path / "empty.jsonl")
