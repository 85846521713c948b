"""What is promised about the repository as a whole."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("tokenizers", "train", "eval")
CONFIGS = sorted(path for stage in STAGES for path in (ROOT / stage).glob("configs/**/*.yaml"))
SCRIPTS = sorted(path for stage in STAGES for path in (ROOT / stage).glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_loads_into_its_script(path, monkeypatch, capsys):
    """Its command stands in a comment or a docstring; ``--help`` ends it once it is loaded."""
    name = str(path.relative_to(ROOT))
    texts = [source.read_text(encoding="utf-8") for source in (path, *SCRIPTS)]
    found = [re.search(rf"python (\S+\.py) {re.escape(name)}( --.*)?", text) for text in texts]
    commands = [match for match in found if match]
    assert commands, f"{name} needs a comment '# python SCRIPT {name}'"
    script, flags = commands[0].groups()
    monkeypatch.setattr(sys, "argv", [script, str(path), *shlex.split(flags or ""), "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stop.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script_does_nothing_when_imported(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert 'if __name__ == "__main__":' in lines
    runpy.run_path(str(path), run_name="imported")


@pytest.mark.parametrize("stage", STAGES)
def test_script_folders_are_not_packages(stage):
    # A package named tokenizers would hide the library of that name.
    assert not list((ROOT / stage).rglob("__init__.py"))


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["torch", "transformers", "deepspeed", "datasets", "wandb", "diffusers"]
    code = f"import sys, unimm; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_file_map_of_the_readme_is_true():
    """``make docs`` writes it from the docstrings."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with_file_map = runpy.run_path(str(ROOT / "docs/render_file_map.py"))["with_file_map"]
    assert "## File map" in text
    assert with_file_map(text, ROOT) == text, "the file map is old: run 'make docs'"


def test_file_map_asks_for_a_docstring(tmp_path):
    first_line = runpy.run_path(str(ROOT / "docs/render_file_map.py"))["first_line"]
    (tmp_path / "silent.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"silent\.py needs a docstring"):
        first_line(tmp_path / "silent.py")
