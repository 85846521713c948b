"""The first Python block of the README runs as it stands."""

import re
from pathlib import Path

import pytest
from PIL import Image
from pipelines import tiny_pipeline

import unimm.pipeline
from unimm.generation import Story

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The shipped model if the package holds it, else a tiny one under its name."""
    if "storyworld" not in unimm.pipeline.shipped_models():
        tiny_pipeline().save_pretrained(tmp_path / "models" / "storyworld")
        monkeypatch.setattr(unimm.pipeline, "SHIPPED", tmp_path / "models")


def test_readme_example_runs(model, tmp_path, monkeypatch):
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block, "README has no Python example"
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(block[1], "README.md", "exec"), names)
    story = names["story"]
    assert isinstance(story, Story)
    assert len(story.images) == 4 and isinstance(story.parts[1], Image.Image)
    assert (tmp_path / "story.html").stat().st_size > 10_000
