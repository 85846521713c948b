"""Binding: if two colour words of a prompt change places, do the colours of its picture?"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from unimm.evaluation.geneval import Metadata
from unimm.evaluation.picture_judge import PictureJudge
from unimm.evaluation.picture_requests import PictureRequest
from unimm.evaluation.worldeval import sample_requests

Draw = Callable[[list[str], list[int]], Sequence[Image.Image]]
"""Prompts and their seeds to pictures."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """A prompt with two objects of two colours, and the same with the colours swapped."""

    original: PictureRequest
    swapped: PictureRequest


def sample_swaps(num: int, *, seed: int) -> list[Swap]:
    """Draw prompts whose two colour words each stand once.

    Raises:
        ValueError: fewer than one is asked for.
    """
    swaps: list[Swap] = []
    asked = num
    while len(swaps) < num:
        requests = sample_requests("color_attr", "seen", num=asked, seed=seed)
        swaps = [swap for swap in map(swap_colours, requests) if swap is not None]
        asked *= 2
    return swaps[:num]


def swap_colours(request: PictureRequest) -> Swap | None:
    """Swap the two colours of a request, in its words and its demands.

    Returns:
        None where there are not two objects of two colours, each named once.
    """
    clauses = request.metadata.include
    if len(clauses) != 2:
        return None
    first, second = (clause.looks.get("color", "") for clause in clauses)
    words = re.findall(r"\w+", request.prompt.lower())
    if not first or first == second or {words.count(first), words.count(second)} != {1}:
        return None
    other = {first: second, second: first}

    def exchange(match: re.Match[str]) -> str:
        word = other[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    pattern = re.compile(rf"\b({first}|{second})\b", re.IGNORECASE)
    metadata = Metadata(
        tag=request.tag,
        prompt=_mend_articles(pattern.sub(exchange, request.prompt)),
        include=tuple(
            replace(clause, looks={**clause.looks, "color": other[clause.looks["color"]]})
            for clause in clauses
        ),
    )
    swapped = PictureRequest(id=f"{request.id}-swapped", split=request.split, metadata=metadata)
    return Swap(original=request, swapped=swapped)


def score_swaps(
    swaps: Sequence[Swap], draw: Draw, judge: PictureJudge, *, seed: int
) -> dict[str, float | int]:
    """Draw both prompts of every pair from the same noise and judge them.

    Args:
        swaps: pairs of prompts.
        draw: the generator.
        judge: of pictures.
        seed: pair ``i`` is drawn with ``seed + i``.

    Returns:
        ``pairs``; ``original`` and ``swapped``, shares of right pictures; ``both``, the share of
        pairs where both are right; ``swapped_if_original``, of the pairs whose original is right
        the share whose swapped picture is right too.
    """
    seeds = [seed + i for i in range(len(swaps))]
    right: list[list[bool]] = []
    for side in ("original", "swapped"):
        requests: list[PictureRequest] = [getattr(swap, side) for swap in swaps]
        pictures = draw([request.prompt for request in requests], seeds)
        right.append([verdict.correct for verdict in judge.judge(requests, pictures)])
    both = sum(a and b for a, b in zip(*right, strict=True))
    return {
        "pairs": len(swaps),
        "original": sum(right[0]) / len(swaps),
        "swapped": sum(right[1]) / len(swaps),
        "both": both / len(swaps),
        "swapped_if_original": both / max(sum(right[0]), 1),
    }


def _mend_articles(text: str) -> str:
    """``an orange`` and ``a red`` after their colours have changed places."""
    text = re.sub(r"\b([Aa])n (?![aeiou])", r"\1 ", text)
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
