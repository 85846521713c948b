"""The comparison reads what runs left behind, averages seeds and names what is missing."""

import json

import pytest
from PIL import Image
from run_script import run_script

from unimm.evaluation.comparison import compare, read_entries
from unimm.evaluation.comparison_page import ASKED, picture_rows
from unimm.evaluation.picture_folder import PictureFolder
from unimm.evaluation.picture_requests import dump_requests
from unimm.evaluation.worldeval import sample_requests


def rate(value: float) -> dict:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def row(score: float) -> dict:
    return {"score": rate(score), "ceiling after the tokenizer": rate(0.8)}


def write_run(root, name, objectives, *, seed=0, score=None, progress=1.0, drawing=True):
    run = root / name
    run.mkdir(parents=True)
    config = {
        "seed": seed,
        "data": {"rows_per_step": 2, "row_length": 100},
        "model": {"objectives": [{"name": x} for x in objectives]},
    }
    (run / "config.yaml").write_text(json.dumps(config))
    line = {"progress": progress, "flops": 3e15, "images": 40, "seconds": 90.0}
    lines = [
        {"step": 0, "parameters": 1000},
        line | {"step": 5, "tokens_per_second": 10.0},
        line | {"step": 9, "tokens_per_second": 30.0},
        {"step": 9, "validation/text": 1.0},
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for objective in objectives:
        if score is None:
            break
        folder = root / "scores" / name / objective
        splits = {"seen": {"colors": row(score), "mean": row(score)}, "heldout": {}}
        splits["heldout"] = {"mean": row(score - 0.2)}
        floor = {"frechet_detector": 0.1, "pictures": 5}
        distribution = {"generated, seen": {"frechet_detector": 0.5}, "ceiling, seen": floor}
        write_json(folder / "worldeval", {"splits": splits, "distribution": distribution})
        PictureFolder(folder / "worldeval").requests_path.write_text(dump_requests(REQUESTS))
        sample = PictureFolder(folder / "worldeval").path_of(0, 0)
        sample.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), (int(255 * score), 0, 0)).save(sample)
        stories = {"alone": {"all": rate(score)}, "introduction": {"all": rate(0.9)}}
        write_json(folder / "stories", {"sets": {"heldout words": {"scores": stories}}})
    if drawing:
        table = {x: {"pictures/s, batch 1": 2.0} for x in objectives}
        path = root / "scores" / name / "drawing.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"figures": {"drawing": table}}))


REQUESTS = sample_requests("colors", "seen", num=2, seed=0, styles=("3d",))


def write_json(folder, value):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(value))


@pytest.fixture
def root(tmp_path):
    write_run(tmp_path, "masked", ["masked"], score=0.6)
    write_run(tmp_path, "masked-s1", ["masked"], seed=1, score=0.7)
    write_run(tmp_path, "joint", ["masked", "diffusion"], score=0.5)
    write_run(tmp_path, "diffusion", ["diffusion"], progress=0.4, drawing=False)
    (tmp_path / "image_shared").mkdir()  # no trunk
    (tmp_path / "image_shared/config.yaml").write_text("seed: 0")
    (tmp_path / "image_shared/log.jsonl").write_text("{}")
    return tmp_path


def test_seeds_are_averaged_and_the_joint_model_has_a_row_a_way(root):
    figures = compare(read_entries(root), expected=["diffusion", "masked", "joint, masked", "next"])
    masked = figures["worldeval"]["masked"]
    assert masked["seen"] == "0.650 [0.600, 0.700]" and masked["runs"] == 2
    assert masked["seen, seeds"] == "0.600 to 0.700"
    assert masked["seen, of ceiling"] == pytest.approx(0.65 / 0.8, abs=1e-3)
    assert "seen, seeds" not in figures["worldeval"]["joint, masked"]
    assert [*figures["training"]][:3] == ["diffusion", "masked", "joint, masked"]
    training = figures["training"]["masked"]
    assert training["positions"] == 9 * 200 and training["petaflops"] == 3
    assert training["minutes"] == 1.5 and training["tokens/s"] == 20
    assert figures["tasks"]["colors, seen"]["masked"] == "0.650 [0.600, 0.700]"
    assert figures["share_of_ceiling"]["mean, heldout"]["joint, diffusion"] == 0.375
    assert figures["stories"]["masked"]["heldout, alone"] == "0.650 [0.600, 0.700]"
    assert figures["distribution"]["masked"]["frechet_detector, seen"] == 0.5
    assert figures["distribution"]["masked"]["floor of frechet_detector, seen"] == 0.1
    assert figures["price_of_joint"]["masked, seen"]["lower by"] == pytest.approx(0.15)
    assert {x["seed"] for x in figures["runs"] if x["way"] == "masked"} == {0, 1}


def test_what_is_missing_is_named(root):
    missing = compare(read_entries(root), expected=["masked", "next_scale"])["missing"]
    assert missing == [
        "next_scale: no run",
        "diffusion (run diffusion): no worldeval, stories, drawing",
        "diffusion (run diffusion): 40% trained",
    ]


def test_what_falls_short_of_its_target_is_named(root):
    targets = {"colors": {"seen": 0.7}, "mean": {"heldout": 0.3}, "counting": {"seen": 0.9}}
    short = compare(read_entries(root), targets=targets)["short"]
    assert short == {
        "colors, seen": {"target": 0.7, "joint, masked": 0.625, "joint, diffusion": 0.625}
    }


def test_nothing_to_compare(tmp_path):
    with pytest.raises(ValueError, match="no run of train/pretrain.py in"):
        read_entries(tmp_path)


def test_pictures_of_one_prompt_stand_side_by_side(root):
    other = root / "scores/joint/diffusion/worldeval/requests.jsonl"
    other.write_text(dump_requests(REQUESTS[::-1]))  # other prompts: not side by side
    [(prompt, pictures)] = picture_rows(read_entries(root), size=32)
    assert prompt == f"{REQUESTS[0].prompt} (seen)"
    assert [*pictures] == [ASKED, "joint, masked", "masked"]
    assert pictures["masked"].getpixel((0, 0)) == (153, 0, 0)  # the first seed's


def test_the_script_writes_ledger_and_page(root, monkeypatch):
    script = "eval/compare_objectives.py"
    assert not run_script(monkeypatch, script, "eval/configs/compare.yaml", "--root", root)
    ledger = json.loads((root / "objectives.json").read_text())
    assert ledger["figures"]["worldeval"]["masked"]["seen"].startswith("0.650")
    page = (root / "report.html").read_text()
    assert "joint, masked" in page and "next_token: no run" in page
    assert page.count('src="data:image/webp') == 4 and "http" not in page
