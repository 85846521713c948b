"""Write README's file map from the first lines of docstrings: python docs/render_file_map.py."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAP = re.compile(r"(## File map\n\n```\n).*?(^```$)", re.MULTILINE | re.DOTALL)
STAGES = {  # folders that are no packages, so that no docstring of their own says what they are
    "docs": "Guides of a page each; results/ is the ledger of measured figures.",
    "eval": "Scripts and recipes: write, draw, score.",
    "tokenizers": "Scripts and recipes: tokenizers, shards.",
    "train": "Scripts and recipes: the trunk.",
}
FOLDERS = (*STAGES, "unimm")
SUFFIXES = (".py", ".md", ".sh")


def main() -> None:
    page = ROOT / "README.md"
    old = page.read_text(encoding="utf-8")
    new = with_file_map(old, ROOT)
    if new != old:
        page.write_text(new, encoding="utf-8")
        print(f"rewrote the file map of {page.name}")


def with_file_map(text: str, root: Path) -> str:
    """README's text with a map of what is there now."""
    entries = [entry for name in FOLDERS for entry in folder_entries(root / name, 0)]
    width = max(len(name) for name, _ in entries) + 2
    lines = "".join(f"{name:{width}}{told}\n" for name, told in entries)
    return MAP.sub(lambda match: match[1] + lines + match[2], text)


def folder_entries(folder: Path, depth: int) -> Iterator[tuple[str, str]]:
    """A folder's line, its files' lines, then its folders' lines."""
    init = folder / "__init__.py"
    yield (
        f"{'  ' * depth}{folder.name}/",
        first_line(init) if init.exists() else STAGES[folder.name],
    )
    for path in sorted(folder.iterdir()):
        if path.suffix in SUFFIXES and path != init:
            yield f"{'  ' * (depth + 1)}{path.name}", first_line(path)
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            yield from folder_entries(path, depth + 1)


def first_line(path: Path) -> str:
    """What a file says it is for: its docstring, heading or comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        told = ast.get_docstring(ast.parse(text))
        if not told:
            raise ValueError(f"{path} needs a docstring that says what it is for")
        return told.splitlines()[0]
    lines = [line for line in text.splitlines() if line.startswith("# ")]
    if not lines:
        raise ValueError(f"{path} needs a heading or a comment that says what it is for")
    return lines[0].removeprefix("# ")


if __name__ == "__main__":
    main()
