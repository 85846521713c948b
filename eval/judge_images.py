"""Let a language model that sees judge pictures: DALL-E 3's DrawBench protocol, or two folders.

    export OPENAI_API_KEY=...
    python eval/judge_images.py eval/configs/judge_drawbench.yaml --judge.model NAME
    python eval/judge_images.py eval/configs/judge_pairs.yaml --samples runs/a --against runs/b
    python eval/judge_images.py eval/configs/judge_drawbench.yaml --judge.model NAME \\
        --judge.base_url http://127.0.0.1:8000/v1 --judge.api_key_env ""        # a server of yours

Pictures are those of ``eval/score_images.py`` or of any generator in GenEval's layout. Writes
``results.jsonl``, ``summary.json`` and ``report.html``: scores with 95 % intervals over prompts,
beside what the judge says of pictures of other prompts and of true renders; how often it agrees
with the detector where that has judged the folder; every reply that failed, by kind. Replies are
kept in ``judge.cache``: run it again to go on, or with ``judge: {name: replay}`` to reread them.
"""

import sys
import time

from unimm.config import load_config
from unimm.evaluation.asked_page import cells
from unimm.evaluation.asked_run import AskedRunConfig, run_asked
from unimm.judges.judge import JudgeConfig, JudgeError
from unimm.judges.registry import JUDGES


def main() -> None:
    config = load_config(AskedRunConfig, sys.argv[1:], choices={JudgeConfig: JUDGES})
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    try:
        summary = run_asked(config.judge.build(), config, tell=tell)
    except (JudgeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    rows = summary.get("tasks") or {"pairs": summary}
    for name, row in rows.items():
        print(f"{name:28s}", *(f"{x} {value};" for x, value in cells(row).items() if x != "facts"))
    if summary.get("agreement"):
        print("agreement with the truth:", summary["agreement"])
    tell(f"wrote {config.output}/summary.json and report.html")


if __name__ == "__main__":
    main()
