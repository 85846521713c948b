"""How far a picture follows its caption, from 0 to 10, as story and interleaved benchmarks rate.

The number stands in double brackets (SEED-Story's and MT-Bench's form), because a bare digit in
prose may be a count of apples.
"""

from unimm.judges.answers import Score
from unimm.judges.query import Picture, Query

HIGHEST = 10

INSTRUCTION = """\
You rate how well an image follows the caption it was drawn from, from 0 to 10. 10: everything \
that the caption says is there and right. 5: about half of it is. 0: nothing of it is. Judge \
objects, colours, numbers, places and looks that the caption names; ignore what it does not \
mention, and ignore beauty. First think out loud in fewer than 50 words. Then end your reply with \
the rating in double brackets, such as [[7]]."""


def rating_query(name: str, caption: str, picture: Picture, *, rating: int | None = None) -> Query:
    """Ask how well a picture follows its caption.

    Args:
        name: what to call the query.
        caption: what the picture was drawn from.
        picture: the picture.
        rating: the true one, where it is known.
    """
    return Query(
        name=name,
        instruction=INSTRUCTION,
        parts=(picture, f"Caption: {caption}"),
        form=Score(0, HIGHEST),
        truth=rating,
    )
