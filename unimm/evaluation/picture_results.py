"""Results: verdicts on disk, kept as long as picture, request and judge are the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimm.evaluation.picture_folder import Sample, write_text
from unimm.evaluation.picture_judge import PictureJudge, Verdict
from unimm.evaluation.picture_requests import PictureRequest

_AT_ONCE = 512  # pictures between two writes


@dataclass(frozen=True, kw_only=True)
class Result:
    """One judged picture.

    Attributes:
        request: what was demanded.
        number: which picture of the request.
        sample: the picture.
        verdict: what the judge says.
    """

    request: PictureRequest
    number: int
    sample: Sample
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """One line of ``results.jsonl``."""
        return {
            "id": self.request.id,
            "sample": self.number,
            "split": self.request.split,
            "tag": self.request.tag,
            "prompt": self.request.prompt,
            "digest": self.sample.digest,
            **self.verdict.to_json(),
        }


def judge_samples(
    judge: PictureJudge,
    requests: Sequence[PictureRequest],
    rows: Sequence[Sequence[Sample]],
    path: Path,
) -> list[Result]:
    """Judge pictures, but for those whose verdict is on disk.

    Args:
        judge: the judge; who asks has made sure that the file's verdicts are this judge's.
        requests: what was demanded.
        rows: the pictures of each request.
        path: the results; written as they come, in order at the end.

    Returns:
        Results in the order of requests and pictures; pictures with a problem score 0.
    """
    known = read_verdicts(path)
    items = [
        (request, number, sample)
        for request, row in zip(requests, rows, strict=True)
        for number, sample in enumerate(row)
    ]
    verdicts: dict[tuple[str, int], Verdict] = {}
    todo: list[tuple[PictureRequest, int, Sample]] = []
    for request, number, sample in items:
        key = (request.id, number)
        if sample.picture is None:
            verdicts[key] = Verdict.failed(sample.problem)
        elif (*key, sample.digest) in known:
            verdicts[key] = known[*key, sample.digest]
        else:
            todo.append((request, number, sample))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for start in range(0, len(todo), _AT_ONCE):
            chunk = todo[start : start + _AT_ONCE]
            pictures = [sample.picture for *_, sample in chunk if sample.picture is not None]
            said = judge.judge([request for request, *_ in chunk], pictures)
            for (request, number, sample), verdict in zip(chunk, said, strict=True):
                verdicts[request.id, number] = verdict
                result = Result(request=request, number=number, sample=sample, verdict=verdict)
                file.write(json.dumps(result.to_json()) + "\n")
            file.flush()
    results = [
        Result(request=request, number=number, sample=sample, verdict=verdicts[request.id, number])
        for request, number, sample in items
    ]
    write_text(path, "".join(json.dumps(result.to_json()) + "\n" for result in results))
    return results


def read_verdicts(path: Path) -> dict[tuple[str, int, str], Verdict]:
    """Verdicts on disk by request, picture and digest. A line cut off by a kill is judged again."""
    known: dict[tuple[str, int, str], Verdict] = {}
    if not path.is_file():
        return known
    fields = Verdict.__dataclass_fields__
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            verdict = Verdict.from_json({name: entry[name] for name in fields})
            # A problem of the judge's own (no answer) is worth another try.
            if not verdict.problem:
                known[entry["id"], entry["sample"], entry["digest"]] = verdict
        except (ValueError, KeyError, TypeError):
            continue
    return known
