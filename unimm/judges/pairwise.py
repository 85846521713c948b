"""Which of two pictures follows a caption better? Each pair is asked in both orders.

Judges like a place: one that always takes the first picture would hand the win to whoever is shown
first. So a win is what holds in both orders, two contradictory replies are a tie (Zheng et al.,
2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", section 3.4), and the share of
contradictions and the pull of the place are reported.
"""

from dataclasses import dataclass

from unimm.judges.answers import Choice
from unimm.judges.judge import Failure, Reply
from unimm.judges.query import Picture, Query

FIRST, SECOND, TIE = "first", "second", "tie"
_SWAPPED = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}

INSTRUCTION = """\
You compare two images that computer programs drew from the same caption. Say which of them \
follows the caption better: the right objects, their colours, number and places. Ignore what the \
caption does not mention, and let neither the order of the images nor their beauty decide. First \
think out loud in fewer than 50 words. Then end your reply with one word, alone on the last line: \
'first', 'second', or 'tie' if both follow the caption equally well."""


def preference_queries(
    name: str, caption: str, ours: Picture, theirs: Picture, *, truth: str | None = None
) -> tuple[Query, Query]:
    """Ask which picture follows the caption better, ours shown first and then second.

    Args:
        name: what to call the pair.
        caption: what both were drawn from.
        ours: the one picture.
        theirs: the other.
        truth: ``first`` if ours is better, ``second`` if theirs is, ``tie``; where it is known.
    """
    orders = ((ours, theirs, truth), (theirs, ours, _SWAPPED[truth] if truth else None))
    pair = [
        Query(
            name=f"{name} order {number}",
            instruction=INSTRUCTION,
            parts=(
                f"Caption: {caption}",
                *("First image:", first, "Second image:", second),
                "Which image follows the caption better?",
            ),
            form=Choice((FIRST, SECOND, TIE)),
            truth=right,
        )
        for number, (first, second, right) in enumerate(orders, 1)
    ]
    return pair[0], pair[1]


@dataclass(frozen=True, kw_only=True)
class PairVerdict:
    """What two replies to one pair amount to.

    Attributes:
        winner: ``first`` is ours, ``second`` theirs, ``tie``; None if a reply failed.
        is_contradiction: the judge preferred a picture in one order and not in the other.
        num_first: how many of the replies took the picture that was shown first.
        num_second: how many took the other.
        failure: of the first reply that failed.
    """

    winner: str | None
    is_contradiction: bool = False
    num_first: int = 0
    num_second: int = 0
    failure: Failure | None = None


def pair_verdict(straight: Reply, swapped: Reply) -> PairVerdict:
    """Combine the replies of both orders.

    Args:
        straight: reply with our picture first.
        swapped: reply with our picture second.
    """
    failure = straight.failure or swapped.failure
    if failure is not None:  # half a pair would carry the judge's love of a place
        return PairVerdict(winner=None, failure=failure)
    shown = [str(straight.answer), str(swapped.answer)]
    ours = [shown[0], _SWAPPED[shown[1]]]
    return PairVerdict(
        winner=ours[0] if ours[0] == ours[1] else TIE,
        is_contradiction=ours[0] != ours[1],
        num_first=shown.count(FIRST),
        num_second=shown.count(SECOND),
    )
