from pathlib import Path

import pytest

from unimm.ledger import describe_hardware, read_ledger, render_tables, write_ledger

ROOT = Path(__file__).parents[2]

FIGURES = {
    "speed": {"images/s": 12345, "seconds": 0.123456, "device": "a|b"},
    "scores": {"columns": ["model", "psnr"], "rows": [["nano", 28.0], ["best", 30.126]]},
    "splits": {"seen": {"all": 0.8, "tint": 0.9}, "held-out": {"all": 0.65}},
}


def write(folder, **changes):
    arguments = {"command": "python eval/x.py", "seed": 3, "figures": FIGURES, **changes}
    return write_ledger("world", folder=folder, **arguments)


def block(key, table=""):
    return f"Before.\n\n<!-- ledger: world {key} -->\n{table}<!-- /ledger -->\nAfter.\n"


def test_ledger_holds_what_is_needed_to_measure_again(tmp_path):
    assert write(tmp_path / "new").name == "world.json"
    entry = read_ledger("world", tmp_path / "new")
    assert entry["figures"] == FIGURES
    assert (entry["command"], entry["seed"]) == ("python eval/x.py", 3)
    assert entry["hardware"] and entry["commit"]
    assert len(entry["date"]) == len("2026-01-31")


def test_a_row_of_figures_is_a_line(tmp_path):
    lines = write(tmp_path).read_text("utf-8").splitlines()
    assert '   "seen": {"all": 0.8, "tint": 0.9},' in lines
    assert '    ["nano", 28.0],' in lines
    assert max(map(len, lines)) < 100


def test_cpu_is_described_with_its_cores():
    assert "core" in describe_hardware("cpu")


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ("speed", ["| images/s | 12,345 |", "| seconds | 0.1235 |", "| device | a\\|b |"]),
        ("scores", ["| model | psnr |", "| --- | --- |", "| nano | 28 |", "| best | 30.13 |"]),
        ("splits", ["|  | all | tint |", "| seen | 0.8 | 0.9 |", "| held-out | 0.65 |  |"]),
        ("splits.seen.all", ["| figure |", "| 0.8 |"]),
    ],
)
def test_tables_show_the_figures_and_their_source(tmp_path, key, lines):
    write(tmp_path, hardware="A chip, 2 cores")
    page = render_tables(block(key, "stale\n"), tmp_path)
    for line in lines:
        assert line in page.splitlines()
    assert "*`python eval/x.py`, seed 3, A chip, 2 cores, 20" in page
    assert "stale" not in page
    assert page.startswith("Before.\n\n<!-- ledger") and page.endswith("-->\nAfter.\n")
    assert render_tables(page, tmp_path) == page


def test_new_figures_change_the_page(tmp_path):
    write(tmp_path)
    page = render_tables(block("speed") + block("splits.seen"), tmp_path)
    write(tmp_path, figures={**FIGURES, "speed": {"images/s": 1}})
    assert render_tables(page, tmp_path) != page


def test_text_without_blocks_stays():
    assert render_tables("# Title\n\nNothing measured.\n") == "# Title\n\nNothing measured.\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block("speeds"), "no figure 'speeds'.*speed, scores"),
        (block("speed.all.x"), "no figure 'speed.all.x'"),
        (block("speed").replace("world", "moon"), "no ledger at .*moon.json"),
        ("<!-- ledger: world speed -->\n", "malformed"),
        ("<!-- ledger: world -->\n<!-- /ledger -->\n", "malformed"),
    ],
)
def test_bad_block_is_a_clear_error(tmp_path, text, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        render_tables(text, tmp_path)


def test_bad_entry_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON"):
        write(tmp_path, figures={"loss": float("nan")})
    with pytest.raises(ValueError, match="'../x'"):
        write_ledger("../x", command="", seed=0, figures={}, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_pages_quote_the_ledger(page):
    text = page.read_text(encoding="utf-8")
    assert render_tables(text, ROOT / "docs/results") == text, "run `make docs`"
