"""Every format gives its documents, skips what is broken by cause, and goes on in the middle."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from formats import CORRUPTIONS, RULE, URL, broken_at, grey, picture, write_table

from unimm.data.files import FileSource
from unimm.data.formats import FORMATS
from unimm.data.raw import CAUSES, RawPicture, Skipped

NUM = 36


def read(shard):
    """Index of each document -> what it says, how many pictures it has and their shades."""
    import json

    found = {}
    for line in map(json.loads, shard.documents.splitlines()):
        numbers = [part["image"] for part in line["parts"] if "image" in part]
        said = [part["text"] for part in line["parts"] if "text" in part]
        found[line["index"]] = (said, shard.pictures[numbers].reshape(len(numbers), -1).mean(1))
    return found


def test_there_is_a_corpus_of_every_format():
    assert CORRUPTIONS.keys() == FORMATS.keys()
    causes = {cause for _, own in CORRUPTIONS.values() for cause in own}
    assert causes | {"truncated tar", "unreadable file", "wrong image size"} == CAUSES.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_good_documents_are_read_and_broken_ones_counted(tmp_path, name):
    broken = broken_at(name, NUM, 9)
    source = FileSource(CORRUPTIONS[name][0](tmp_path, NUM, broken), rule=RULE)
    assert len(source) == NUM
    shard = source.read(0, NUM)
    assert shard.skipped == Counter(broken.values())
    assert shard.dropped == {} and shard.examples.keys() == set(broken.values())
    found = read(shard)
    assert found.keys() == set(range(NUM)) - broken.keys()
    for number, (said, shades) in found.items():
        assert f"page {number}" in said
        assert len(shades) and (shades == grey(number)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_any_stretch_reads_the_same_in_any_process(tmp_path, name):
    source = FileSource(CORRUPTIONS[name][0](tmp_path, NUM, broken_at(name, NUM, 9)), rule=RULE)
    whole = source.read(0, NUM)
    copy = pickle.loads(pickle.dumps(source))  # as worker processes get it
    pieces = [copy.read(start, start + 7) for start in range(0, NUM, 7)][::-1]
    assert b"".join(piece.documents for piece in pieces[::-1]).count(b"\n") == whole.num_documents
    shades = np.concatenate([piece.pictures for piece in pieces[::-1]])
    assert (shades == whole.pictures).all()
    skipped = sum((Counter(piece.skipped) for piece in pieces), Counter())
    assert skipped == whole.skipped


@pytest.mark.parametrize("name", set(FORMATS) - {"captions"})
def test_a_file_of_rubbish_is_one_skip_beside_good_ones(tmp_path, name):
    config = CORRUPTIONS[name][0](tmp_path / "good", NUM, {})
    suffix = Path(config.files).suffix
    bad = Path(config.files).parent / f"zzz{suffix}"
    bad.write_bytes(b"rubbish " * 1000)
    source = FileSource(config, rule=RULE)
    shard = source.read(0, len(source))
    cause = "wrong JSON" if suffix == ".jsonl" else "unreadable file"
    assert shard.skipped == {cause: 1} and shard.num_documents == NUM
    assert "zzz" in shard.examples[cause]


@pytest.mark.parametrize("share", (0.0, 0.3, 0.99))
def test_a_parquet_file_that_is_cut_off(tmp_path, share):
    config = CORRUPTIONS["parquet"][0](tmp_path, NUM, {})
    path = next(tmp_path.glob("*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    source = FileSource(config, rule=RULE)
    assert source.read(0, len(source)).skipped == {"unreadable file": 1}


def test_a_broken_row_group_loses_its_own_rows_alone(tmp_path):
    config = CORRUPTIONS["parquet"][0](tmp_path, NUM, {})
    path = next(tmp_path.glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[20:60] = bytes(40)  # row group 0 begins at byte 4
    path.write_bytes(data)
    shard = FileSource(config, rule=RULE).read(0, NUM)
    assert shard.skipped == {"unreadable file": 16} and shard.num_documents == NUM - 16


@pytest.mark.parametrize("lost", (1, 600, 2000, 30_000))
def test_a_tar_cut_anywhere_keeps_what_stands_before(tmp_path, lost):
    """The sample at the cut is lost and counted, as its members are not known to be all there."""
    config = CORRUPTIONS["webdataset"][0](tmp_path, NUM, {})
    path = next(tmp_path.glob("*.tar"))
    data = path.read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512)  # without the blocks that end an archive
    path.write_bytes(data[:-lost])
    source = FileSource(config, rule=RULE)
    shard = source.read(0, len(source))
    assert shard.skipped == {"truncated tar": 1}
    assert list(read(shard)) == list(range(len(source) - 1))
    assert len(source) == NUM if lost < 1000 else len(source) < NUM


def test_text_and_pictures_stand_where_the_format_says(tmp_path):
    def shape(config):
        document = config.open(config.find()[0])[0]
        return [part if isinstance(part, str) else "*" for part in document.parts]

    mmc4 = CORRUPTIONS["mmc4"][0](tmp_path / "mmc4", 1, {})
    assert shape(mmc4) == ["page 0", "*", "And more."]
    first = FORMATS["mmc4"](files=mmc4.files, order="image_first")  # pyright: ignore
    assert shape(first) == ["*", "page 0", "And more."]
    stories = CORRUPTIONS["storystream"][0](tmp_path / "storystream", 1, {})
    assert shape(stories) == ["page 0", "*", "The end.", "*"]
    assert shape(CORRUPTIONS["comm"][0](tmp_path / "comm", 1, {})) == ["How to", "page 0", "*"]


def test_captions_of_img2dataset(tmp_path):
    """It writes the caption into ``key.json`` too; a text file is not needed."""
    import io
    import tarfile

    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for name, data in (("0.jpg", picture(0)), ("0.json", b'{"caption": "hi", "url": "x"}')):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    config = FORMATS["webdataset"](files=f"{tmp_path}/*.tar")
    document = config.open(config.find()[0])[0]
    assert document.parts[0] == "hi" and document.is_open


def test_obelics_with_pictures_inside(tmp_path):
    images = [[None, {"bytes": picture(5), "path": None}], [{"bytes": None, "path": URL}, None]]
    write_table(tmp_path / "x.parquet", {"images": images, "texts": [["a", None], [None, "b"]]})
    config = FORMATS["obelics"](files=f"{tmp_path}/*.parquet")
    samples = config.open(config.find()[0])
    shown = samples[0].parts[1]
    assert isinstance(shown, RawPicture) and shown.data == picture(5)
    missing = samples[1].parts[0]
    assert isinstance(missing, RawPicture) and missing.missing == "URL only"


def test_comm_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save([Evil()], tmp_path / "train.pth")
    config = FORMATS["comm"](files=f"{tmp_path}/*.pth")
    with pytest.raises(Skipped, match="unreadable file"):
        config.open(config.find()[0])
    assert not (tmp_path / "ran").exists()


@pytest.mark.long  # processes that import torch
def test_files_are_counted_by_processes_too(tmp_path):
    config = CORRUPTIONS["webdataset"][0](tmp_path, 250, {})
    assert len(FileSource(config, rule=RULE, num_processes=2)) == 250
