"""Place figures so that the split's rules hold for the picture too, worded or not."""

from collections.abc import Sequence

import numpy as np

from unimm.data.world.placement import place, relation_between
from unimm.data.world.scene import Figure, Scene
from unimm.data.world.splits import (
    MAX_TRAIN_COUNT,
    Split,
    is_heldout_appearance,
    is_heldout_pair,
    is_heldout_relation,
)

_NUM_TRIES = 12


def compose(
    rng: np.random.Generator,
    split: Split,
    figures: Sequence[Figure],
    *,
    background: str | None = None,
    variant: int | None = None,
    relations: Sequence[tuple[int, str, int]] = (),
) -> Scene:
    """A scene of these figures; outside the held-out split without any held-out relation.

    Args:
        rng: the sample's stream.
        split: whose rules hold.
        figures: what is shown, in the order in which the text names it.
        background: one of the backgrounds, or any.
        variant: which look of the background, or any.
        relations: ``(i, word, j)`` that must hold with a margin.

    Raises:
        ValueError: no place was found; the caller draws other figures.
    """
    for _ in range(_NUM_TRIES):
        scene = place(rng, figures, background=background, variant=variant, relations=relations)
        if split == Split.HELDOUT or not heldout_relations(scene):
            return scene
    kinds = [figure.kind for figure in figures]
    raise ValueError(f"no seen arrangement of {kinds} in {_NUM_TRIES} tries; draw other figures")


def heldout_relations(scene: Scene) -> set[str]:
    """Relations the picture shows that training must not, as text."""
    placed = scene.placed
    found: set[str] = set()
    for i in range(len(placed)):
        for j in range(i + 1, len(placed)):
            kind, other = placed[i].figure.kind, placed[j].figure.kind
            if kind == other:
                continue
            found |= {
                f"{kind} {relation} {other}"
                for relation in relation_between(scene, i, j)
                if is_heldout_relation(kind, relation, other)
            }
    return found


def heldout_facts(scene: Scene) -> set[str]:
    """All that a scene shows and training must not: pairs, looks, relations, numbers."""
    facts = heldout_relations(scene)
    for placed in scene.placed:
        figure = placed.figure
        if is_heldout_pair(figure.kind, figure.tint):
            facts.add(f"{figure.tint} {figure.kind}")
        elif figure.is_character and is_heldout_appearance(
            figure.kind, figure.tint, figure.headwear
        ):
            facts.add(f"{figure.tint} {figure.kind} with {figure.headwear}")
    if len(scene.placed) > MAX_TRAIN_COUNT:
        facts.add(f"{len(scene.placed)} figures")
    return facts
