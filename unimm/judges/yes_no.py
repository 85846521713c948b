"""One yes/no question about a picture, as question-graph benchmarks ask it (DPG-Bench, DSG)."""

from unimm.judges.answers import Choice
from unimm.judges.query import Picture, Query

YES, NO = "yes", "no"

INSTRUCTION = """\
You are shown an image and one question about it. Answer with one word, 'yes' or 'no', by what the \
image shows and by nothing else. If the thing that is asked about is not in the image, answer \
'no'."""


def yes_no_query(
    name: str, question: str, picture: Picture, *, is_true: bool | None = None
) -> Query:
    """Ask a question about a picture.

    Args:
        name: what to call the query.
        question: one that yes or no answers.
        picture: the picture.
        is_true: the truth, where it is known.
    """
    return Query(
        name=name,
        instruction=INSTRUCTION,
        parts=(picture, question),
        form=Choice((YES, NO)),
        truth=None if is_true is None else (YES if is_true else NO),
    )
