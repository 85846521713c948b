"""Fill the tables of README.md and docs/*.md from the ledger: python docs/render_tables.py."""

from pathlib import Path

from unimm.ledger import render_tables

ROOT = Path(__file__).parents[1]


def main() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        old = page.read_text(encoding="utf-8")
        new = render_tables(old, ROOT / "docs/results")
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"rewrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
