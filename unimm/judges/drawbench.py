"""DALL-E 3's judging of DrawBench: is the picture faithful to its caption, correct or incorrect?

Betker et al., 2023, "Improving Image Generation with Better Captions", appendix D: what captions
may test, a short thinking aloud, six rules against nitpicking, a verdict at the very end. The
protocol is theirs, the wording ours; figures compare only among runs of one wording, so its hash
stands in every summary.
"""

from unimm.judges.answers import Choice
from unimm.judges.query import Picture, Query

CORRECT, INCORRECT = "correct", "incorrect"

INSTRUCTION = """\
You judge whether an image that a computer program drew is faithful to the caption it was drawn \
from. You are shown the caption and the image. The captions are a stress test of such programs; \
among other things they hold:
1. Misspelled or scrambled words: the image should show what was probably meant.
2. Colours: the right colour belongs on the right object.
3. Counts: the right number of objects should be there.
4. Unusual combinations, such as an elephant under the sea: the image should show just that.
5. Descriptions of an object instead of its name: the image should show the object that is most \
likely meant.
6. Single rare words: the image should be recognisably related to the word.
7. Words to be written in the image: the image should contain that text.
Decide whether the image is correct, given the caption. First think out loud: list the reasons for \
and against. Then give your verdict, 'Correct' or 'Incorrect'.
Rules:
1. Do not nitpick: if an object that was asked for is there and generally right, answer 'Correct'.
2. Ignore objects that the caption does not mention; they may be there.
3. A slightly deformed object is fine, as long as a person would recognise it and it does not go \
against the caption.
4. Your reply must end with 'Correct' or 'Incorrect', alone on the last line.
5. 'Incorrect' is for images that do not follow a definite part of the caption: a wrong object, \
colour or count.
6. Think out loud in fewer than 50 words."""


def faithfulness_query(
    name: str, caption: str, picture: Picture, *, is_faithful: bool | None = None
) -> Query:
    """Ask whether a picture is faithful to its caption.

    Args:
        name: what to call the query.
        caption: what the picture was drawn from.
        picture: the picture.
        is_faithful: the truth, where it is known.
    """
    return Query(
        name=name,
        instruction=INSTRUCTION,
        parts=(picture, f"Caption: {caption}"),
        form=Choice((CORRECT, INCORRECT)),
        truth=None if is_faithful is None else (CORRECT if is_faithful else INCORRECT),
    )
