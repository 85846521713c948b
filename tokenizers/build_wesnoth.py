"""Turn installed campaigns of Battle for Wesnoth into documents for encode_shards.py.

apt-get install wesnoth-1.16-data wesnoth-1.16-tb          # and other campaigns
python tokenizers/build_wesnoth.py --output runs/wesnoth
"""

import argparse
import json
import shlex
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

from unimm.data.wesnoth import read_campaigns, to_record
from unimm.ledger import RESULTS, write_ledger

DATA = "/usr/share/games/wesnoth/1.16/data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=DATA, help="the game's data folder")
    parser.add_argument("--output", required=True, help="folder for documents.jsonl and images/")
    parser.add_argument("--ledger", nargs="?", const=str(RESULTS), help="record the counts there")
    options = parser.parse_args()
    data, output = Path(options.data), Path(options.output)
    (output / "images").mkdir(parents=True, exist_ok=True)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    names: dict[Path, str] = {}
    with (output / "documents.jsonl").open("w", encoding="utf-8") as file:
        for scenario in read_campaigns(data):
            record = to_record(scenario, names)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            for row in (scenario.campaign, "all"):
                counts[row].update(count(scenario.pages, record))
                counts[row]["texts left out"] += scenario.left_out.total()
    for path, name in names.items():
        shutil.copyfile(path, output / name)
    if (data / "COPYING.txt").is_file():
        shutil.copyfile(data / "COPYING.txt", output / "COPYING.txt")  # the GPL goes along
    counts["all"]["picture files"] = len(names)
    figures = {"campaigns": {name: dict(counts[name]) for name in sorted(counts, key=_all_last)}}
    text = json.dumps(figures, indent=1)
    (output / "counts.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    if options.ledger:
        command = shlex.join(["python", *sys.argv])
        write_ledger("wesnoth", command=command, seed=0, figures=figures, folder=options.ledger)


def _all_last(name: str) -> tuple[bool, str]:
    return name == "all", name


def count(pages: list, record: dict) -> Counter[str]:
    return Counter(
        {
            "documents": 1,
            "narration": sum(page.kind == "narration" for page in pages),
            "dialogue": sum(page.kind == "dialogue" for page in pages),
            "texts with a picture": sum(page.picture is not None for page in pages),
            "pictures shown": sum("image" in part for part in record["parts"]),
            "words": sum(len(page.text.split()) for page in pages),
        }
    )


if __name__ == "__main__":
    main()
