"""The contract on disk: anybody may fill it, nothing is mixed up, nothing fails in silence."""

import json

import numpy as np
import pytest
from PIL import Image

from unimm.evaluation.picture_folder import (
    PictureFolder,
    Sample,
    read_geneval_folder,
    read_sample,
)
from unimm.evaluation.worldeval import sample_requests


@pytest.fixture
def requests():
    return sample_requests("colors", "seen", num=3, seed=0)


def picture(side: int = 16, level: int = 0) -> Image.Image:
    return Image.new("RGB", (side, side), (level, 90, 20))


def test_requests_are_kept_and_others_are_refused_with_both_hashes(tmp_path, requests):
    folder = PictureFolder(tmp_path)
    digest = folder.keep_requests(requests)
    assert folder.keep_requests(requests) == digest
    other = sample_requests("colors", "seen", num=3, seed=1)
    with pytest.raises(ValueError, match=digest) as error:
        folder.keep_requests(other)
    assert PictureFolder(tmp_path / "other").keep_requests(other) in str(error.value)


def test_another_judge_or_generator_is_refused_with_both_hashes(tmp_path):
    folder = PictureFolder(tmp_path)
    folder.claim("judge", {"name": "detector", "fingerprint": "aaaa"})
    folder.claim("generator", {"model": "m", "sizes": (1, 2)})
    folder.claim("judge", {"name": "detector", "fingerprint": "aaaa"})
    folder.claim("generator", {"model": "m", "sizes": (1, 2)})
    with pytest.raises(ValueError, match="aaaa.*bbbb"):
        folder.claim("judge", {"name": "detector", "fingerprint": "bbbb"})


def test_a_sample_comes_back_and_is_no_longer_missing(tmp_path, requests):
    folder = PictureFolder(tmp_path)
    assert folder.missing(2, 2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    folder.write_sample(0, 1, picture(level=7))
    assert folder.missing(2, 2) == [(0, 0), (1, 0), (1, 1)]
    rows = folder.read_samples(requests, 2)
    np.testing.assert_array_equal(np.asarray(rows[0][1].picture), np.asarray(picture(level=7)))
    assert rows[0][1].digest == Sample.of(picture(level=7)).digest != Sample.of(picture()).digest
    assert rows[0][0].problem == "missing"


def test_pictures_are_found_by_number_and_others_are_counted(tmp_path, requests):
    folder = PictureFolder(tmp_path)
    folder.write_metadata(requests)
    picture(level=1).save(folder.path_of(0, 0).with_name("0.png"))
    picture(level=2).save(folder.path_of(0, 1).with_name("001.png"))
    picture().save(folder.path_of(2, 0).with_name("grid.png"))
    rows = folder.read_samples(requests, 1)
    assert rows[0][0].digest == Sample.of(picture(level=1)).digest
    assert rows[2][0].problem == "missing"
    assert folder.num_beyond(3, 1) == 2 and folder.num_beyond(3, 2) == 1
    assert folder.missing(1, 2) == []


def test_transparency_is_white_and_a_palette_is_read(tmp_path):
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert Sample.of(clear).digest == Sample.of(Image.new("RGB", (16, 16), "white")).digest
    folder = PictureFolder(tmp_path)
    folder.write_sample(0, 0, picture().convert("P", palette=Image.Palette.ADAPTIVE))
    assert read_sample(folder.path_of(0, 0)).digest == Sample.of(picture()).digest


@pytest.mark.parametrize("kind", ["truncated", "corrupt", "empty", "text", "small", "wide", "deep"])
def test_a_bad_file_is_a_problem_and_no_exception(tmp_path, requests, kind):
    folder = PictureFolder(tmp_path)
    for number in range(3):
        folder.write_sample(number, 0, picture(64))
    path = folder.path_of(1, 0)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    match kind:
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
        case "corrupt":
            path.write_bytes(whole[:200] + b"\0" * 400 + whole[600:])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("no picture")
        case "small":
            picture(32).save(path)
        case "wide":
            Image.new("RGB", (64, 32)).save(path)
        case "deep":
            Image.fromarray(np.zeros((64, 64), np.uint16)).save(path)
    expected = {
        "truncated": "damaged",
        "corrupt": "damaged",
        "empty": "not a picture",
        "text": "not a picture",
        "small": "32 x 32 pixels, most have 64 x 64",
        "wide": "64 x 32 pixels: not square",
        "deep": "mode I;16",
    }
    rows = folder.read_samples(requests, 1)
    assert rows[1][0].picture is None and expected[kind] in rows[1][0].problem
    assert all(rows[i][0].picture is not None and not rows[i][0].problem for i in (0, 2))


def test_geneval_folders_are_written_and_read_back(tmp_path, requests):
    folder = PictureFolder(tmp_path)
    folder.write_metadata(requests)
    entry = json.loads((folder.samples / "00002" / "metadata.jsonl").read_text())
    assert entry["prompt"] == requests[2].prompt and entry["include"][0]["count"] == 1
    read = read_geneval_folder(folder.samples)
    assert [x.metadata for x in read] == [x.metadata for x in requests]


def test_samples_of_another_prompt_are_refused(tmp_path, requests):
    folder = PictureFolder(tmp_path)
    folder.write_metadata(requests[::-1])
    with pytest.raises(ValueError, match="drawn for other requests"):
        folder.read_samples(requests, 1)


def test_geneval_folders_with_gaps_or_damage_are_refused(tmp_path, requests):
    folder = PictureFolder(tmp_path)
    folder.write_metadata(requests)
    (folder.samples / "00001" / "metadata.jsonl").write_text("{")
    with pytest.raises(ValueError, match="00001"):
        read_geneval_folder(folder.samples)
    (folder.samples / "00001").rename(folder.samples / "00009")
    with pytest.raises(ValueError, match="00001 is not there"):
        read_geneval_folder(folder.samples)
    with pytest.raises(ValueError, match="should hold folders"):
        read_geneval_folder(tmp_path / "nowhere")
