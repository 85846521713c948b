"""A user's documents become shards; what is broken is skipped and counted by cause."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unimm.data.encode import encode_documents
from unimm.data.files import FileSource, PictureRule
from unimm.data.formats.jsonl import JsonlFormat
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter
from unimm.document import ImageTokens

RULE = PictureRule(image_size=16)


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
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    lines = [
        {"parts": [{"text": "grey"}, {"image": "grey.png"}], "truth": {"names": ["Mia"]}},
        {"parts": [{"text": "broken"}, {"image": "broken.png"}]},
        {"parts": [{"text": "wide"}, {"image": "wide.png", "is_drawn": False}, {"text": "?"}]},
        {"parts": [{"text": "gone"}, {"image": "gone.png"}]},
        {"parts": [{"words": "no such part"}]},
        {"parts": [{"text": "only text"}], "is_open": True},
        {"parts": [{"text": "transparent is white"}, {"image": "clear.png"}]},
    ]
    path = tmp_path / "documents.jsonl"
    text = "\n".join(map(json.dumps, lines))
    path.write_text(text + "\nnot json\n", encoding="utf-8")
    return path


def source_of(documents, rule=RULE, **kwargs):
    return FileSource(JsonlFormat(files=str(documents), **kwargs), rule=rule)


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
    assert encode(source_of(documents), tmp_path / "shards") == 0
    assert "skipped 1 documents: corrupt image" in caplog.text
    assert "documents.jsonl, sample 3: missing image" in caplog.text
    folder = ShardFolder(tmp_path / "shards")
    causes = {"corrupt image": 1, "missing image": 1, "wrong JSON": 1, "wrong fields": 1}
    assert folder.totals.skipped == causes
    assert (folder.totals.read, folder.totals.documents, folder.totals.pictures) == (8, 4, 3)
    totals = json.loads((tmp_path / "shards/index.json").read_text())["totals"]
    assert totals["skipped"] == causes and totals["dropped_pictures"] == {}
    found = [line for _, line in folder.documents()]
    assert [line["index"] for line in found] == [0, 2, 5, 6]
    assert found[0]["truth"] == {"names": ["Mia"]}
    assert found[1]["parts"][1]["is_drawn"] is False
    assert not found[2]["is_open"], "no picture ends it"
    codes = torch.cat([images["single"].codes.long() for images in folder.images])  # pyright: ignore
    for picture, value in zip(codes, (200, 100, 255), strict=True):
        assert (picture == value).all(), "cut to its centre square, what is clear is white"


def test_a_bad_picture_can_be_left_out_alone(documents, tmp_path):
    encode(source_of(documents, bad_picture="drop"), tmp_path / "shards")
    totals = ShardFolder(tmp_path / "shards").totals
    assert totals.dropped_pictures == {"corrupt image": 1, "missing image": 1}
    assert totals.skipped == {"wrong JSON": 1, "wrong fields": 1} and totals.documents == 6


def test_absurd_sizes_are_not_decoded(documents, tmp_path):
    lines = documents.read_text().splitlines()
    long = {"parts": [{"text": "x" * 101}]}
    empty = {"parts": [{"text": " \n"}]}
    documents.write_text("\n".join([*lines, json.dumps(long), json.dumps(empty)]))
    rule = replace(RULE, max_pixels=60 * 20 - 1, max_pictures=1, max_characters=100)
    encode(source_of(documents, rule), tmp_path / "shards")
    skipped = ShardFolder(tmp_path / "shards").totals.skipped
    assert skipped["huge image"] == 1 and skipped["document too long"] == 1
    assert skipped["empty document"] == 1


def test_a_decompression_bomb_is_refused_by_pillow_too(documents, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    encode(source_of(documents), tmp_path / "shards")
    assert ShardFolder(tmp_path / "shards").totals.skipped["huge image"] == 1


def test_latents_are_encoded_beside_the_codes(documents, tmp_path):
    encode(source_of(documents), tmp_path / "shards", latent_dim=1)
    images = ShardFolder(tmp_path / "shards").images
    assert (
        images[1]["single"].latents is not None and len(images[1]["single"].latents) == 0
    )  # text only
    assert images[0]["single"].codes is not None and images[0]["single"].latents is not None
    assert torch.equal(
        images[0]["single"].latents[:, 0].float() * 2, images[0]["single"].codes.float()
    )


def test_wrong_size_can_be_refused(documents, tmp_path):
    encode(source_of(documents, replace(RULE, resize="error")), tmp_path / "shards")
    assert ShardFolder(tmp_path / "shards").totals.skipped["wrong image size"] == 1


def assert_equal_folders(first, second):
    assert (first / "index.json").read_text() == (second / "index.json").read_text()
    for shard in first.glob("*.safetensors"):
        assert shard.read_bytes() == (second / shard.name).read_bytes()


def test_worker_processes_change_nothing(documents, tmp_path):
    encode(source_of(documents), tmp_path / "a")
    encode(source_of(documents), tmp_path / "b", num_processes=2)
    assert_equal_folders(tmp_path / "a", tmp_path / "b")


def test_parts_share_a_folder(documents, tmp_path):
    encode(source_of(documents), tmp_path / "a")
    assert encode(source_of(documents), tmp_path / "b", part=(1, 2)) == 2
    with pytest.raises(ValueError, match="encoding has not ended"):
        ShardFolder(tmp_path / "b")
    assert encode(source_of(documents), tmp_path / "b", part=(0, 2)) == 0
    assert_equal_folders(tmp_path / "a", tmp_path / "b")


def test_a_broken_run_goes_on_where_it_stopped(documents, tmp_path):
    encode(source_of(documents), tmp_path / "a")
    encode(source_of(documents), tmp_path / "b")
    (tmp_path / "a/shard_00001.safetensors").unlink()
    (tmp_path / "a/index.json").unlink()
    done = []
    encode(
        source_of(documents),
        tmp_path / "a",
        on_shard=lambda number, shard: done.append((number, shard is not None)),
    )
    assert sorted(done) == [(0, False), (1, True), (2, False)]
    assert_equal_folders(tmp_path / "a", tmp_path / "b")


def test_nothing_usable_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "bad.jsonl"
    path.write_text("not json\n" * 12)
    with pytest.raises(ValueError, match="none of the 12 documents can be used: 12 x wrong JSON"):
        encode(source_of(path), tmp_path / "a")
    monkeypatch.setattr("unimm.data.encode._HOPELESS", 6)
    with pytest.raises(ValueError, match=r"6 documents in a row cannot.*bad\.jsonl, sample 0"):
        encode(source_of(path), tmp_path / "b")


def test_no_file_or_an_empty_one(tmp_path):
    with pytest.raises(ValueError, match="no documents at"):
        source_of(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        source_of(tmp_path / "empty.jsonl")


def test_other_files_are_another_source(documents, tmp_path):
    first = source_of(documents).content_hash
    assert first == source_of(documents).content_hash
    assert first == source_of(documents, weight=3.0).content_hash
    assert first != source_of(documents, bad_picture="drop").content_hash
    documents.write_text(documents.read_text() + '{"parts": [{"text": "more"}]}\n')
    assert first != source_of(documents).content_hash
