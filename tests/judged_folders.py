"""Folders of pictures whose truth is known, and a server that answers from that truth."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from judge_server import Response, completion
from PIL import Image

from unimm.assets import __file__ as ASSETS
from unimm.data.world.render import Renderer
from unimm.evaluation.asking_judge import Known
from unimm.evaluation.picture_folder import PictureFolder, Sample
from unimm.evaluation.picture_judge import detector_judge
from unimm.evaluation.picture_references import CEILING, RANDOM, other_prompts, true_scenes
from unimm.evaluation.picture_requests import PictureRequest
from unimm.evaluation.picture_results import judge_samples
from unimm.evaluation.pictures import render_pictures
from unimm.evaluation.worldeval import sample_requests

SIZE = 128


def some_requests(num: int = 4) -> list[PictureRequest]:
    """Prompts of two tasks."""
    return [
        x for tag in ("colors", "position") for x in sample_requests(tag, "seen", num=num, seed=5)
    ]


def drawn_folder(
    root: Path, requests: Sequence[PictureRequest], *, wrong: Sequence[int] = ()
) -> PictureFolder:
    """True renders, but for some that show the scene of the prompt before.

    Args:
        root: where to write.
        requests: what is asked for.
        wrong: numbers of the requests with a wrong picture.
    """
    folder = PictureFolder(root)
    folder.keep_requests(requests)
    scenes = true_scenes(requests)
    shown = [scenes[i - 1] if i in wrong else scene for i, scene in enumerate(scenes)]
    for number, picture in enumerate(render_pictures(shown, Renderer(), size=SIZE)):
        folder.write_sample(number, 0, picture)
    return folder


def scored_folder(
    root: Path, requests: Sequence[PictureRequest], *, wrong: Sequence[int] = ()
) -> PictureFolder:
    """A drawn folder that the detector has judged, its references too."""
    folder = drawn_folder(root, requests, wrong=wrong)
    rows = folder.read_samples(requests, 1)
    judge = detector_judge(ASSETS.replace("__init__.py", "models/detector"))
    judge_samples(judge, requests, rows, folder.root / "results.jsonl")
    scenes = true_scenes(requests)
    true = [[Sample.of(x)] for x in render_pictures(scenes, Renderer(), size=SIZE)]
    for name, table in ((CEILING, true), (RANDOM, other_prompts(requests, rows))):
        path = folder.root / "references" / f"{name.replace(' ', '_')}.jsonl"
        judge_samples(judge, requests, table, path)
    return folder


def truthful(requests: Sequence[PictureRequest], known: Known) -> Callable[..., Response]:
    """A server's answers: it looks at the pictures it is sent, and knows the truth about them."""
    by_prompt = {request.prompt: request for request in requests}
    questions = {q.text: q for request in requests for q in request.questions}

    def answer(body: dict[str, Any]) -> Response:
        words, digests = read_query(body)
        if len(digests) == 2:
            request = by_prompt[words[0].removeprefix("Caption: ")]
            scores = [known[request.id, digest].score for digest in digests]
            better = "tie" if scores[0] == scores[1] else ("first", "second")[scores[1] > scores[0]]
            return completion(f"I looked at both.\n{better}")
        if words[0].startswith("Caption: "):
            request = by_prompt[words[0].removeprefix("Caption: ")]
            is_right = known[request.id, digests[0]].correct
            if "[[" in body["messages"][0]["content"]:
                return completion(f"I looked. [[{10 if is_right else 0}]]")
            return completion(f"I looked. {'Correct' if is_right else 'Incorrect'}")
        passes = {
            known[request.id, digests[0]].answers[questions[words[0]].number]
            for request in requests
            if (request.id, digests[0]) in known and questions[words[0]] in request.questions
        }
        return completion("Yes." if passes == {True} else "No.")

    return answer


def read_query(body: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Words and digests of the pictures of a query, as the server gets it."""
    words, digests = [], []
    for part in body["messages"][1]["content"]:
        if part["type"] == "text":
            words.append(part["text"])
        else:
            data = base64.b64decode(part["image_url"]["url"].split(",")[1])
            digests.append(Sample.of(Image.open(io.BytesIO(data))).digest)
    return words, digests
