"""Questions about a scene, with short answers that follow from its truth."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from unimm.data.world.figures import pick
from unimm.data.world.placement import relation_between
from unimm.data.world.scene import COLOURS, NATURAL, NO_HEADWEAR, OBJECTS, SPECIES, Scene
from unimm.data.world.words import NUMBER_WORDS, PLACE_PHRASES, PLURALS, capitalise, indefinite

_OBJECTS = tuple(OBJECTS)
_SPECIES = tuple(SPECIES)


class Question(NamedTuple):
    """A question, its answer, and what it is about (``colour``, ``count``, ...)."""

    about: str
    question: str
    answer: str


def sample_question(rng: np.random.Generator, scene: Scene) -> Question:
    """One question that the picture answers clearly.

    Args:
        rng: the sample's stream.
        scene: what the picture shows; at least one figure.
    """
    if not scene.placed:
        raise ValueError("a question needs a scene with at least one figure")
    options = _options(rng, scene)
    about = pick(rng, sorted({question.about for question in options}))
    return pick(rng, [question for question in options if question.about == about])


def _options(rng: np.random.Generator, scene: Scene) -> list[Question]:
    figures = [placed.figure for placed in scene.placed]
    counts = Counter(figure.kind for figure in figures)
    kinds = sorted(counts)
    place = PLACE_PHRASES[scene.background][0]
    options = [Question("background", "Where is this?", capitalise(place) + ".")]
    kind = pick(rng, kinds)
    number = counts[kind]
    options.append(
        Question(
            "count", f"How many {PLURALS[kind]} are there?", f"{NUMBER_WORDS[number].title()}."
        )
    )
    options.append(_existence(rng, kinds))
    single = [figure for figure in figures if counts[figure.kind] == 1]
    for figure in single:
        if figure.tint != NATURAL:
            asked = f"What colour is the {figure.kind}?"
            options.append(Question("colour", asked, f"{capitalise(figure.tint)}."))
            options.append(_colour_check(rng, figure.kind, figure.tint))
        if figure.is_character:
            worn = figure.headwear
            answer = "Nothing." if worn == NO_HEADWEAR else capitalise(indefinite(worn)) + "."
            asked = f"What does the {figure.kind} wear on its head?"
            options.append(Question("headwear", asked, answer))
    if len(figures) == 1:
        answer = capitalise(indefinite(figures[0].kind)) + "."
        options.append(Question("exists", "What is in the picture?", answer))
    if len(figures) == 2 and len(single) == 2:
        first = int(rng.random() < 0.5)
        second = 1 - first
        for relation in sorted(relation_between(scene, first, second)):
            name, other = figures[first].kind, figures[second].kind
            side = relation if relation in ("behind", "in front of") else f"to the {relation}"
            answer = capitalise(indefinite(name)) + "."
            options.append(Question("relation", f"What is {side} the {other}?", answer))
    return options


def _existence(rng: np.random.Generator, kinds: list[str]) -> Question:
    """Yes and no in equal numbers."""
    is_there = rng.random() < 0.5
    kind = pick(rng, kinds) if is_there else pick(rng, _SPECIES if rng.random() < 0.3 else _OBJECTS)
    answer = "Yes." if kind in kinds else "No."
    return Question("yes_no", f"Is there {indefinite(kind)}?", answer)


def _colour_check(rng: np.random.Generator, kind: str, tint: str) -> Question:
    asked = tint if rng.random() < 0.5 else pick(rng, COLOURS)
    return Question("yes_no", f"Is the {kind} {asked}?", "Yes." if asked == tint else "No.")
