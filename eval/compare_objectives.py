"""Put finished runs that differ in how they draw side by side: ledger, pictures, one HTML page.

python eval/compare_objectives.py eval/configs/compare.yaml
python eval/compare_objectives.py eval/configs/compare.yaml --ledger docs/results

It takes what is there, a part of the runs or of their scores, and names what is missing. Where ways
were trained on several sizes of trunk it draws NAME_scaling.svg, too.
"""

import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unimm.config import load_config
from unimm.evaluation.comparison import compare, of_trunk
from unimm.evaluation.comparison_entries import read_entries
from unimm.evaluation.comparison_page import comparison_page, picture_rows
from unimm.evaluation.comparison_scaling import compare_trunks, scaling_chart
from unimm.evaluation.picture_folder import write_text
from unimm.ledger import write_ledger


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    root: str = "runs/compare"
    """Folder of the runs, with their scores in it; see unimm/evaluation/comparison_entries.py."""
    expected: tuple[str, ...] = ()
    """Ways to draw that a whole comparison has, in the order of the tables."""
    trunk: str = ""
    """Width and depth of the trunk that is compared, 448x8; empty where all runs have the same."""
    trunks: tuple[str, ...] = ()
    """Trunks that a whole comparison has; ways with several are compared by size, too."""
    targets: dict[str, dict[str, float]] = field(default_factory=dict)
    """Task -> split -> share of the tokenizer's ceiling that is aimed at."""
    name: str = "objectives"
    """Of the ledger."""
    ledger: str = ""
    """Folder of the ledger; empty writes it into the root."""
    hardware: str = ""
    """What the runs were made on; empty names this machine."""


def main() -> None:
    config = load_config(CompareConfig, sys.argv[1:])
    entries = read_entries(config.root)
    figures = compare(
        entries,
        expected=config.expected,
        targets=config.targets,
        trunk=config.trunk,
        trunks=config.trunks,
    )
    figures |= compare_trunks(entries, config.expected)
    for way, row in figures["worldeval"].items():
        print(f"{way:24s}", *(f"{column} {value};" for column, value in row.items()))
    for kind in ("missing", "unequal"):
        for line in figures[kind]:
            print(f"{kind}: {line}")
    compared = of_trunk(entries, config.trunk)
    ordered = [x for way in figures["training"] for x in compared if x.way == way]
    page = comparison_page(figures, picture_rows(ordered), asdict(config))
    write_text(Path(config.root) / "report.html", page)
    path = write_ledger(
        config.name,
        command=shlex.join(["python", *sys.argv]),
        seed=min(x.seed for x in entries),
        figures=figures,
        folder=config.ledger or config.root,
        hardware=config.hardware or None,
    )
    if chart := scaling_chart(figures):
        write_text(path.with_name(f"{config.name}_scaling.svg"), chart)
    print(f"wrote {path} and {config.root}/report.html")


if __name__ == "__main__":
    main()
