"""The examples of ``docs/stories.md`` run as they stand, on a tiny model."""

import re
from pathlib import Path

import pytest
from PIL import Image
from pipelines import tiny_pipeline

import unimm
from unimm.cli import PICTURES

GUIDE = (Path(__file__).parents[2] / "docs/stories.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_guides_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unimm, "load_pipeline", lambda _: tiny_pipeline(max_seq_len=900))
    monkeypatch.setattr(Image.Image, "show", lambda _: None)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
    assert len(blocks) >= 6
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "story.html").is_file()
    assert {path.suffix for path in tmp_path.iterdir()} <= {".html", *PICTURES}
