"""The comparison reads what runs left behind, averages seeds and names what is missing."""

import json
from xml.etree import ElementTree

import pytest
from PIL import Image
from run_script import run_script

from unimm.evaluation.comparison import compare, difference, find_unequal
from unimm.evaluation.comparison_entries import read_entries
from unimm.evaluation.comparison_log import last_losses, learning_curve, read_log
from unimm.evaluation.comparison_page import ASKED, picture_rows
from unimm.evaluation.comparison_scaling import compare_trunks, scaling_chart
from unimm.evaluation.picture_folder import PictureFolder
from unimm.evaluation.picture_requests import dump_requests
from unimm.evaluation.worldeval import sample_requests


def rate(value: float) -> dict:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def row(score: float) -> dict:
    return {"score": rate(score), "ceiling after the tokenizer": rate(0.8)}


def write_run(
    root,
    name,
    objectives,
    *,
    seed=0,
    score=None,
    progress=1.0,
    drawing=True,
    trunk=(448, 8),
    petaflops=3.0,
    loss=2.0,
    image_tokenizer="abc",
    timed_by="1a2b3c",
):
    run = root / name
    run.mkdir(parents=True)
    config = {
        "seed": seed,
        "data": {"rows_per_step": 2, "row_length": 100},
        "model": {
            "backbone": {"dim": trunk[0], "depth": trunk[1]},
            "objectives": [{"name": x} for x in objectives],
        },
    }
    (run / "config.yaml").write_text(json.dumps(config))
    flops, last = 1e15 * petaflops, dict.fromkeys(objectives, loss)
    line = {"progress": progress, "flops": flops, "images": 40, "seconds": 90.0}
    begun = {"step": 5, "tokens_per_second": 10.0, "flops": flops / 4}
    lines = [
        {"step": 0, "parameters": trunk[0] * trunk[1]},
        line | dict.fromkeys(objectives, 2 * loss) | begun,
        line | last | {"step": 9, "tokens_per_second": 30.0},
    ]
    if progress == 1:
        evaluated = {f"validation/{x}": loss + 0.1 for x in objectives}
        lines.append({"step": 9, "validation/text": 1.0} | evaluated)
    (run / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    for objective in objectives:
        if score is None:
            break
        folder = root / "scores" / name / objective
        splits = {"seen": {"colors": row(score), "mean": row(score)}, "heldout": {}}
        splits["heldout"] = {"mean": row(score - 0.2)}
        floor = {"frechet_detector": 0.1, "pictures": 5}
        distribution = {"generated, seen": {"frechet_detector": 0.5}, "ceiling, seen": floor}
        facts = {"generator": {"image_tokenizer": image_tokenizer}}
        summary = {"splits": splits, "distribution": distribution, "facts": facts}
        write_json(folder / "worldeval", summary)
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
        path.write_text(json.dumps({"figures": {"drawing": table}, "commit": timed_by}))


REQUESTS = sample_requests("colors", "seen", num=2, seed=0, styles=("3d",))


def write_json(folder, value):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(value))


@pytest.fixture
def root(tmp_path):
    write_run(tmp_path, "masked", ["masked"], score=0.6)
    write_run(tmp_path, "masked-s1", ["masked"], seed=1, score=0.7)
    write_run(tmp_path, "joint", ["masked", "diffusion"], score=0.5, petaflops=6.0)
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
    stories = figures["stories"]
    assert stories["masked"]["heldout, alone"] == "0.650 [0.600, 0.700]"
    assert stories["masked"]["heldout, alone, seeds"] == "0.600 to 0.700"
    assert "heldout, alone, seeds" not in stories["joint, masked"]
    assert figures["distribution"]["masked"]["frechet_detector, seen"] == 0.5
    assert figures["distribution"]["masked"]["floor of frechet_detector, seen"] == 0.1
    price = figures["price_of_joint"]["masked, seen"]
    assert price["lower by"] == "0.150 [0.079, 0.221]" and price["joint's work"] == 1
    assert (price["alone"], price["joint"]) == (0.65, 0.5)
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


def test_an_unfinished_seed_is_left_out_of_the_mean(root):
    write_run(root, "masked-s2", ["masked"], seed=2, progress=0.5, petaflops=1.5, drawing=False)
    figures = compare(read_entries(root))
    assert figures["training"]["masked"]["petaflops"] == 3
    assert "masked (run masked-s2): 50% trained" in figures["missing"]
    assert not figures["unequal"]  # it has not done its work yet


def test_runs_that_may_not_be_compared_are_named(tmp_path):
    write_run(tmp_path, "masked", ["masked"], score=0.6)
    write_run(tmp_path, "joint", ["masked", "diffusion"], score=0.6, petaflops=6.05)
    assert not find_unequal(read_entries(tmp_path))  # as much work for each way
    write_run(tmp_path, "next", ["next"], score=0.6, petaflops=4.0, image_tokenizer="xyz")
    assert find_unequal(read_entries(tmp_path)) == [
        "work: 3 petaflops a way in masked, 4 in next",
        "image tokenizers: joint, masked: abc; next: xyz",
    ]


def test_the_price_says_how_much_of_the_work_the_joint_model_did(tmp_path):
    write_run(tmp_path, "masked", ["masked"], score=0.6)
    write_run(tmp_path, "joint", ["masked", "diffusion"], score=0.6, petaflops=4.8)
    assert compare(read_entries(tmp_path))["price_of_joint"]["masked, seen"]["joint's work"] == 0.8


def test_drawing_that_was_timed_by_other_code_is_named(root):
    write_run(root, "masked-s2", ["masked"], seed=2, score=0.6, timed_by="4d5e6f")
    assert find_unequal(read_entries(root)) == [
        "code that timed drawing: joint, masked, masked-s1: 1a2b3c; masked-s2: 4d5e6f"
    ]


def test_the_interval_of_a_difference():
    """Newcombe (1998), table II, row (a), method 10: 56/70 - 48/80."""
    one = {"value": 56 / 70, "low": 0.6918, "high": 0.8775}  # Wilson's intervals
    other = {"value": 48 / 80, "low": 0.4904, "high": 0.7003}
    assert difference(one, other) == "0.200 [0.052, 0.334]"


def test_trunks_are_not_mixed(root):
    write_run(root, "masked@large", ["masked"], score=0.9, trunk=(640, 12), drawing=False)
    entries = read_entries(root)
    with pytest.raises(ValueError, match="several trunks: choose one of 448x8, 640x12"):
        compare(entries)
    with pytest.raises(ValueError, match="no run has a trunk of 64x2: choose one of 448x8"):
        compare(entries, trunk="64x2")
    figures = compare(
        entries, trunk="448x8", trunks=["448x8", "640x12"], expected=["masked", "diffusion"]
    )
    assert figures["worldeval"]["masked"]["seen"] == "0.650 [0.600, 0.700]"
    assert "640x12: no run of diffusion" in figures["missing"]
    assert not [line for line in figures["missing"] if "masked@large" in line]
    assert {x["trunk"] for x in figures["runs"]} == {"448x8", "640x12"}


def test_each_way_is_compared_by_the_size_of_its_trunk(root):
    write_run(root, "masked@small", ["masked"], score=0.1, trunk=(256, 5), loss=3.0)
    write_run(root, "masked@large", ["masked"], score=0.0, trunk=(640, 12), loss=1.5)
    write_run(root, "masked@large-s1", ["masked"], trunk=(640, 12), progress=0.5, seed=1)
    figures = compare_trunks(read_entries(root), ["masked"])
    assert [*figures["scaling"]] == ["masked, 256x5", "masked, 448x8", "masked, 640x12"]
    row = figures["scaling"]["masked, 448x8"]
    assert row["runs"] == 2 and row["parameters"] == 448 * 8 and row["petaflops"] == 3
    assert row["loss of pictures"] == 2.1 and row["loss of text"] == 1
    assert row["seen"] == "0.650 [0.600, 0.700]" and row["seen, seeds"] == "0.600 to 0.700"
    assert figures["scaling"]["masked, 640x12"]["runs"] == 1  # the other is not finished
    curves = figures["learning_curves"]
    assert [*curves] == ["masked"]  # the other ways have one trunk
    assert curves["masked"]["256x5"][0] == (3.0, 3.0) and curves["masked"]["256x5"][-1][1] == 6.0
    chart = scaling_chart(figures)
    titles = {x.text for x in ElementTree.fromstring(chart).iter() if x.text}
    assert {"masked", "256x5", "640x12", "WorldEval, seen, after 3 petaflops"} <= titles


def test_one_trunk_is_no_scaling(root):
    figures = compare_trunks(read_entries(root))
    assert figures == {"scaling": {}, "learning_curves": {}} and scaling_chart(figures) == ""


def test_a_learning_curve_has_points_at_halving_work(tmp_path):
    write_run(tmp_path, "masked", ["masked"])
    log = read_log(tmp_path / "masked")
    half = 2**0.5
    curve = learning_curve(log, "masked")  # from 4 to 2 over two halvings of the work
    assert [loss for _, loss in curve] == [2.0, 2.5, 3.0, 3.5, 4.0]
    work = [3.0, 3 / half, 1.5, 1.5 / half, 0.75]
    assert [petaflops for petaflops, _ in curve] == pytest.approx(work, rel=1e-3)
    assert last_losses(log, "masked") == {"pictures": 2.1, "text": 1.0}
    assert learning_curve(log, "diffusion") == [] and last_losses(log, "diffusion") == {}


def test_steps_that_were_done_twice_are_read_once(tmp_path):
    write_run(tmp_path, "masked", ["masked"])
    path = tmp_path / "masked/log.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1], *lines[1:]]))
    assert read_log(tmp_path / "masked") == [json.loads(line) for line in lines]


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


def test_the_script_writes_ledger_page_and_chart(root, monkeypatch):
    script = "eval/compare_objectives.py"
    write_run(root, "masked@small", ["masked"], score=0.1, trunk=(256, 5), loss=3.0)
    assert not run_script(monkeypatch, script, "eval/configs/compare.yaml", "--root", root)
    ledger = json.loads((root / "objectives.json").read_text())
    assert ledger["figures"]["worldeval"]["masked"]["seen"].startswith("0.650")
    assert ledger["figures"]["scaling"]["masked, 256x5"]["seen"].startswith("0.100")
    assert (root / "objectives_scaling.svg").read_text().count("<svg") == 3  # two panels in one
    page = (root / "report.html").read_text()
    assert "joint, masked" in page and "next_token: no run" in page
    assert page.count('src="data:image/svg') == 1
    assert page.count('src="data:image/webp') == 4 and "http" not in page
