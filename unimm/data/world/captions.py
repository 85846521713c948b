"""Captions: draw what a picture shows, place it, and say it, with the truth of every word kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unimm.data.world.atoms import Atom
from unimm.data.world.compose import compose, heldout_facts
from unimm.data.world.figures import pick, sample_character, sample_object
from unimm.data.world.placement import relation_between
from unimm.data.world.scene import BACKGROUNDS, OBJECTS, RELATIONS, SPECIES, Figure, Scene
from unimm.data.world.splits import HELDOUT_COUNTS, MAX_TRAIN_COUNT, Split, is_heldout_relation
from unimm.data.world.wording import Group, word_alt_text, word_descriptive, word_short

LEVELS: tuple[str, ...] = ("alt_text", "short", "descriptive")
TWO_CHARACTERS = "two_characters"
_SPECIES = tuple(SPECIES)
_OBJECTS = tuple(OBJECTS)


class CaptionedScene(NamedTuple):
    """A scene, a caption of it, and the statements which the caption makes."""

    scene: Scene
    caption: str
    atoms: set[Atom]


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """What a task wants to show: groups in the order of naming, and at most one relation."""

    groups: tuple[Group, ...]
    relation: tuple[int, str, int] | None = None
    says_background: bool = False


def _character(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    groups = [Group(sample_character(rng, split, style=style))]
    if rng.random() < 0.3:
        groups.append(Group(sample_object(rng, split, heldout_share=0.5, style=style)))
    return _Draft(groups=tuple(groups))


def _single(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    share = 0.6 if split != Split.HELDOUT else 0.25
    thing = sample_object(rng, split, natural_share=share, style=style, size=_size(rng))
    return _Draft(groups=(Group(thing),))


def _colours(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    thing = sample_object(rng, split, natural_share=0.0, style=style)
    return _Draft(groups=(Group(thing),))


def _two_things(rng: np.random.Generator, split: Split, style: str, natural: float) -> list[Group]:
    first = sample_object(rng, split, natural_share=natural, style=style, size=_size(rng))
    while True:
        share = 0.5
        second = sample_object(
            rng, split, natural_share=natural, heldout_share=share, style=style, size=_size(rng)
        )
        if second.kind != first.kind and (natural > 0 or second.tint != first.tint):
            break
    groups = [Group(first), Group(second)]
    return groups if rng.random() < 0.5 else groups[::-1]


def _two_objects(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    return _Draft(groups=tuple(_two_things(rng, split, style, 0.5)))


def _binding(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    return _Draft(groups=tuple(_two_things(rng, split, style, 0.0)))


def _counting(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    """Groups of one class; without many of them, counting is never learned."""
    if rng.random() < 0.1:  # more than two faces do not fit
        return _Draft(groups=(Group(sample_character(rng, split, style=style), 2),))
    if split == Split.HELDOUT and rng.random() < 0.6:
        thing = sample_object(rng, split, natural_share=0.4, heldout_share=0.3, style=style)
        return _Draft(groups=(Group(thing, int(pick(rng, HELDOUT_COUNTS))),))
    thing = sample_object(rng, split, natural_share=0.4, style=style)
    number = 2 + int(rng.random() * (MAX_TRAIN_COUNT - 1))
    groups = [Group(thing, number)]
    if number < MAX_TRAIN_COUNT and rng.random() < 0.3:
        other = sample_object(rng, split, heldout_share=0.5, style=style)
        if other.kind != thing.kind:
            more = 1 + int(rng.random() * (MAX_TRAIN_COUNT - number))
            groups.append(Group(other, more))
    return _Draft(groups=tuple(groups))


def _position(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    wants_relation = split == Split.HELDOUT and rng.random() < 0.6
    share = 0.2 if wants_relation else 0.8
    while True:
        first = _figure(rng, split, style, share)
        second = _figure(rng, split, style, 0.5 * share)
        relation = pick(rng, RELATIONS)
        if first.kind == second.kind:
            continue
        is_held = is_heldout_relation(first.kind, relation, second.kind)
        if is_held == wants_relation or (is_held and split == Split.HELDOUT):
            break
    return _Draft(groups=(Group(first), Group(second)), relation=(0, relation, 1))


def _figure(rng: np.random.Generator, split: Split, style: str, heldout_share: float) -> Figure:
    if rng.random() < 0.3:
        rules = split
        if split == Split.HELDOUT and rng.random() >= heldout_share:
            rules = Split.TRAIN
        return sample_character(rng, rules, style=style)
    return sample_object(rng, split, natural_share=0.4, heldout_share=heldout_share, style=style)


def _two_characters(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    """Whose species, tint and headwear is whose? As on the first page of a story of two."""
    first = sample_character(rng, split, style=style)
    while True:
        tint = first.tint if rng.random() < 0.35 else None
        rules = split if rng.random() < 0.5 else Split.TRAIN
        second = sample_character(rng, rules, tint=tint, style=style)
        if second.kind != first.kind:
            return _Draft(groups=(Group(first), Group(second)))


def _background(rng: np.random.Generator, split: Split, style: str) -> _Draft:
    share = 0.8 if split == Split.HELDOUT else 1.0
    return _Draft(groups=(Group(_figure(rng, split, style, share)),), says_background=True)


def _size(rng: np.random.Generator) -> str:
    roll = rng.random()
    return "small" if roll < 0.08 else "large" if roll < 0.16 else "medium"


# Task -> (share of training captions, its sampler). 30 % are same-class groups.
_TASKS: dict[str, tuple[float, Callable[[np.random.Generator, Split, str], _Draft]]] = {
    "character": (0.17, _character),
    "single": (0.08, _single),
    "two_objects": (0.10, _two_objects),
    "counting": (0.30, _counting),
    "colours": (0.06, _colours),
    "colour_binding": (0.10, _binding),
    "position": (0.12, _position),
    TWO_CHARACTERS: (0.0, _two_characters),  # a mix may ask for them
    "background": (0.07, _background),
}
CAPTION_TASKS: tuple[str, ...] = tuple(_TASKS)


def sample_task(rng: np.random.Generator) -> str:
    """A caption task with its share of training."""
    roll = rng.random()
    for name, (share, _) in _TASKS.items():
        roll -= share
        if roll < 0:
            return name
    return CAPTION_TASKS[-1]


def sample_caption_scene(
    rng: np.random.Generator,
    split: Split,
    *,
    task: str | None = None,
    level: str | None = None,
    styles: Sequence[str] = ("3d",),
) -> CaptionedScene:
    """A scene with a caption that says only what is true and clear in it.

    Args:
        rng: the sample's stream.
        split: whose combinations are shown.
        task: one of ``CAPTION_TASKS``; drawn with training's shares when left out.
        level: ``alt_text`` (noise of the web), ``short`` or ``descriptive``; one of the last two
            when left out.
        styles: the arts to draw from; a style other than 3D is always said.

    Raises:
        ValueError: an unknown task or level.
    """
    if task is not None and task not in _TASKS:
        raise ValueError(f"unknown caption task {task!r}; known: {CAPTION_TASKS}")
    if level is not None and level not in LEVELS:
        raise ValueError(f"unknown caption level {level!r}; known: {LEVELS}")
    task = task or sample_task(rng)
    level = level or ("short" if rng.random() < 0.6 else "descriptive")
    draft, scene = _sample_scene(rng, split, task, styles)
    if level == "alt_text":
        return CaptionedScene(scene, *word_alt_text(rng, draft.groups))
    says_style = scene.placed[0].figure.style != "3d" or rng.random() < 0.04
    if level == "short":
        background = None
        if draft.says_background or rng.random() < 0.4:
            background = scene.background
        words = word_short(rng, draft.groups, draft.relation, background, says_style=says_style)
        return CaptionedScene(scene, *words)
    relation = draft.relation or _clear_relation(rng, scene, draft.groups)
    words = word_descriptive(rng, draft.groups, relation, scene.background, says_style=says_style)
    return CaptionedScene(scene, *words)


def _sample_scene(
    rng: np.random.Generator, split: Split, task: str, styles: Sequence[str]
) -> tuple[_Draft, Scene]:
    for _ in range(50):
        draft = _TASKS[task][1](rng, split, pick(rng, styles))
        figures = [group.figure for group in draft.groups for _ in range(group.number)]
        relations = [draft.relation] if draft.relation else []
        background = pick(rng, BACKGROUNDS)
        try:
            scene = compose(rng, split, figures, background=background, relations=relations)
        except ValueError:  # this crowd does not fit: draw another
            continue
        if split != Split.HELDOUT or heldout_facts(scene):
            return draft, scene
    raise ValueError(f"no scene of task {task!r} could be placed in 50 tries")


def _clear_relation(
    rng: np.random.Generator, scene: Scene, groups: tuple[Group, ...]
) -> tuple[int, str, int] | None:
    """A relation that the placement shows clearly between two single figures, if any."""
    if len(groups) != 2 or groups[0].number + groups[1].number != 2 or rng.random() < 0.4:
        return None
    first = int(rng.random() < 0.5)
    words = sorted(relation_between(scene, first, 1 - first))
    return (first, pick(rng, words), 1 - first) if words else None
