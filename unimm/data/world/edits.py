"""Edits: a picture, an instruction, and the picture in which only that has changed."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from unimm.data.world.backdrops import NUM_VARIANTS, horizon_of
from unimm.data.world.compose import compose, heldout_facts
from unimm.data.world.figures import pick, sample_character, sample_object
from unimm.data.world.geometry import apparent_size, reach_of
from unimm.data.world.scene import (
    BACKGROUNDS,
    CHARACTER_TINTS,
    COLOURS,
    HEADWEAR,
    NATURAL,
    NO_HEADWEAR,
    OBJECTS,
    Figure,
    Scene,
)
from unimm.data.world.splits import Split
from unimm.data.world.words import PLACE_PHRASES, capitalise, indefinite, look_phrase

_OBJECTS = tuple(OBJECTS)
_HEADWEAR = tuple(HEADWEAR)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """An edit with its truth: both scenes are exact, all other figures stay where they are."""

    action: str
    instruction: str
    source: Scene
    target: Scene


def sample_edit(
    rng: np.random.Generator, split: Split, *, action: str | None = None, style: str = "3d"
) -> Edit:
    """One edit; outside the held-out split both pictures show seen combinations only.

    Args:
        rng: the sample's stream.
        split: whose rules hold; the target of a held-out edit is held out.
        action: one of ``EDIT_ACTIONS``, any when left out.
        style: the art.

    Raises:
        ValueError: an unknown action.
    """
    if action is not None and action not in _ACTIONS:
        raise ValueError(f"unknown edit {action!r}; known: {EDIT_ACTIONS}")
    action = action or pick(rng, EDIT_ACTIONS)
    for _ in range(200):
        try:
            source = _sample_source(rng, split, action, style)
        except ValueError:  # could not be placed: draw others
            continue
        edit = _ACTIONS[action](rng, source)
        if edit is None or not _is_inside(edit.target):
            continue
        is_held = bool(heldout_facts(edit.target))
        leaks = is_held or heldout_facts(edit.source)
        if is_held if split == Split.HELDOUT else not leaks:
            return edit
    raise ValueError(f"no {action!r} edit found in 200 tries")


def _sample_source(rng: np.random.Generator, split: Split, action: str, style: str) -> Scene:
    """One to three different figures, with a character where the edit needs one."""
    figures: list[Figure] = []
    if action in ("hat_on", "hat_off") or rng.random() < 0.4:
        figures.append(sample_character(rng, split, style=style))
    least = {"remove": 2, "add": 2}.get(action, 1)
    least = max(least, len(figures) + (action == "swap_object"))
    total = max(least, 1 + int(rng.random() * 3))
    while len(figures) < total:
        thing = sample_object(rng, split, natural_share=0.4, heldout_share=0.4, style=style)
        if all(thing.kind != figure.kind for figure in figures):
            figures.append(thing)
    return compose(rng, split, figures, background=pick(rng, BACKGROUNDS))


def _replace_figure(scene: Scene, index: int, figure: Figure) -> Scene:
    placed = list(scene.placed)
    placed[index] = replace(placed[index], figure=figure)
    return replace(scene, placed=tuple(placed))


def _variant(background: str, horizon: float) -> int:
    """The look of a background with this horizon; each background has every horizon once."""
    heights = [abs(horizon_of(background, variant) - horizon) for variant in range(NUM_VARIANTS)]
    return heights.index(min(heights))


def _is_inside(scene: Scene) -> bool:
    """Whether all figures fit into the picture: another hat or thing may be taller."""
    reach = reach_of([placed.figure for placed in scene.placed])  # (3, n)
    for placed, (side, up, _) in zip(scene.placed, reach.T, strict=True):
        size = apparent_size(scene, placed)
        if placed.y < size * up or not size * side <= placed.x <= 1 - size * side:
            return False
    return True


def _recolour(rng: np.random.Generator, scene: Scene) -> Edit | None:
    index = int(rng.random() * len(scene.placed))
    figure = scene.placed[index].figure
    tint = pick(rng, CHARACTER_TINTS[1:] if figure.is_character else COLOURS)
    if tint == figure.tint:
        return None
    wording = (f"Make the {figure.kind} {tint}.", f"Paint the {figure.kind} {tint}.")
    target = _replace_figure(scene, index, replace(figure, tint=tint))
    return Edit(action="recolour", instruction=pick(rng, wording), source=scene, target=target)


def _remove(rng: np.random.Generator, scene: Scene) -> Edit | None:
    index = int(rng.random() * len(scene.placed))
    kind = scene.placed[index].figure.kind
    wording = (f"Remove the {kind}.", f"Take the {kind} away.")
    target = _without(scene, index)
    return Edit(action="remove", instruction=pick(rng, wording), source=scene, target=target)


def _without(scene: Scene, index: int) -> Scene:
    placed = tuple(item for i, item in enumerate(scene.placed) if i != index)
    return replace(scene, placed=placed)


def _add(rng: np.random.Generator, scene: Scene) -> Edit | None:
    index = len(scene.placed) - 1
    words = look_phrase(scene.placed[index].figure)
    wording = (f"Add {words}.", f"Put {words} into the picture.")
    source = _without(scene, index)
    return Edit(action="add", instruction=pick(rng, wording), source=source, target=scene)


def _hat_on(rng: np.random.Generator, scene: Scene) -> Edit | None:
    figure = scene.placed[0].figure
    hat = pick(rng, _HEADWEAR)
    if hat == figure.headwear:
        return None
    words = indefinite(hat)
    wording = (f"Give the {figure.kind} {words}.", f"Put {words} on the {figure.kind}.")
    target = _replace_figure(scene, 0, replace(figure, headwear=hat))
    return Edit(action="hat_on", instruction=pick(rng, wording), source=scene, target=target)


def _hat_off(rng: np.random.Generator, scene: Scene) -> Edit | None:
    figure = scene.placed[0].figure
    if figure.headwear == NO_HEADWEAR:
        return None
    wording = (
        f"Take off the {figure.headwear} of the {figure.kind}.",
        f"Remove the {figure.headwear}.",
    )
    target = _replace_figure(scene, 0, replace(figure, headwear=NO_HEADWEAR))
    return Edit(action="hat_off", instruction=pick(rng, wording), source=scene, target=target)


def _background(rng: np.random.Generator, scene: Scene) -> Edit | None:
    background = pick(rng, BACKGROUNDS)
    if background == scene.background:
        return None
    place = pick(rng, PLACE_PHRASES[background])
    wording = (f"Show this {place}.", f"{capitalise(place)}, please.", f"Let it be {place}.")
    target = replace(scene, background=background, variant=_variant(background, scene.horizon))
    return Edit(action="background", instruction=pick(rng, wording), source=scene, target=target)


def _swap_object(rng: np.random.Generator, scene: Scene) -> Edit | None:
    things = [i for i, item in enumerate(scene.placed) if not item.figure.is_character]
    index = pick(rng, things)
    figure = scene.placed[index].figure
    kind = pick(rng, _OBJECTS)
    if any(item.figure.kind == kind for item in scene.placed):
        return None
    tint = pick(rng, (NATURAL, *COLOURS))
    new = replace(figure, kind=kind, tint=tint)
    words = look_phrase(new)
    wording = (f"Replace the {figure.kind} with {words}.", f"Swap the {figure.kind} for {words}.")
    target = _replace_figure(scene, index, new)
    return Edit(action="swap_object", instruction=pick(rng, wording), source=scene, target=target)


_ACTIONS: dict[str, Callable[[np.random.Generator, Scene], Edit | None]] = {
    "recolour": _recolour,
    "remove": _remove,
    "add": _add,
    "hat_on": _hat_on,
    "hat_off": _hat_off,
    "background": _background,
    "swap_object": _swap_object,
}
EDIT_ACTIONS: tuple[str, ...] = tuple(_ACTIONS)
