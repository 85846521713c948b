"""WorldEval: GenEval's tasks in Storyworld, on seen and on held-out combinations.

Prompts are worded by the world's own caption grammar. Everything that a prompt says is demanded. A
held-out prompt says something that training never shows (a class in a tint, a look, a number, a
relation), so no training picture can satisfy it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unimm.data.world.atoms import Atom
from unimm.data.world.captions import CaptionedScene, sample_caption_scene
from unimm.data.world.scene import Scene, sample_rng
from unimm.data.world.splits import (
    MAX_TRAIN_COUNT,
    Split,
    is_heldout_appearance,
    is_heldout_pair,
    is_heldout_relation,
    stable_hash,
)
from unimm.data.world.wording import Group, word_short
from unimm.evaluation.geneval import Clause, Metadata
from unimm.evaluation.picture_requests import DESCRIPTIVE, PictureRequest
from unimm.evaluation.question_graph import questions_of

SPLITS: dict[str, Split] = {"seen": Split.VALIDATION, "heldout": Split.HELDOUT}
_MAX_REPEATS = 400  # draws in a row that bring nothing new, until a demand may come again
_SIDES, _DEPTHS = ("left of", "right of"), ("in front of", "behind")


@dataclass(frozen=True, kw_only=True)
class Task:
    """How the prompts of a task are drawn.

    Attributes:
        captions: caption tasks of the world, each as likely.
        accepts: whether a drawn scene is of this task.
    """

    captions: tuple[str, ...]
    accepts: Callable[[CaptionedScene], bool] = lambda _: True


def _is_single(drawn: CaptionedScene) -> bool:
    return len(drawn.scene.placed) == 1


def _is_of_one_kind(drawn: CaptionedScene) -> bool:
    return len({placed.figure.kind for placed in drawn.scene.placed}) == 1


def _has_relation(words: tuple[str, ...]) -> Callable[[CaptionedScene], bool]:
    return lambda drawn: _relation(drawn.atoms).value in words


def _has_two_kinds(drawn: CaptionedScene) -> bool:
    return not _is_of_one_kind(drawn)


# GenEval's six under its own names, depth order and style; then the descriptive prompts.
_TASKS: dict[str, Task] = {
    "single_object": Task(captions=("single", "character"), accepts=_is_single),
    "two_object": Task(captions=("two_objects",)),
    "counting": Task(captions=("counting",), accepts=_is_of_one_kind),
    "colors": Task(captions=("colours",)),
    "position": Task(captions=("position",), accepts=_has_relation(_SIDES)),
    "color_attr": Task(captions=("colour_binding",)),
    "depth_order": Task(captions=("position",), accepts=_has_relation(_DEPTHS)),
    "style": Task(captions=("single", "character"), accepts=_is_single),
    DESCRIPTIVE: Task(
        captions=("character", "two_objects", "counting", "colour_binding", "position"),
        accepts=_has_two_kinds,
    ),
}
TASKS: tuple[str, ...] = tuple(name for name in _TASKS if name != DESCRIPTIVE)
"""The eight tasks whose mean is the score."""
ALL_TASKS: tuple[str, ...] = tuple(_TASKS)


def sample_requests(
    tag: str, split: str, *, num: int, seed: int, styles: Sequence[str] = ("3d",)
) -> list[PictureRequest]:
    """Draw the prompts of a task; the first ones are the same however many are asked for.

    Args:
        tag: one of ``ALL_TASKS``.
        split: ``seen`` or ``heldout``.
        num: how many, all worded differently. What they demand differs too, as far as the split
            has enough (there are 64 held-out pairs of an object and a colour).
        seed: of the drawing; another one than training's.
        styles: the arts that the model has been trained on.

    Raises:
        ValueError: an unknown task or split, or fewer than one prompt.
    """
    if tag not in _TASKS:
        raise ValueError(f"unknown task {tag!r}; known: {ALL_TASKS}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {tuple(SPLITS)}")
    if num < 1:
        raise ValueError(f"{num} prompts of {tag}; ask for at least one")
    requests: list[PictureRequest] = []
    prompts: set[str] = set()
    demands: list[tuple[Clause, ...]] = []
    key = (seed + stable_hash("worldeval", tag)) % 2**63
    index = num_allowed = since = 0
    while len(requests) < num:
        request = _draw(tag, split, sample_rng(key, int(SPLITS[split]), index), styles)
        index, since = index + 1, since + 1
        if since > _MAX_REPEATS:
            num_allowed, since = num_allowed + 1, 0
        if request is None or request.prompt in prompts:
            continue
        if demands.count(request.metadata.include) > num_allowed:
            continue
        requests.append(replace(request, id=f"{tag}-{split}-{len(requests):03}"))
        prompts.add(request.prompt)
        demands.append(request.metadata.include)
        since = 0
    return requests


def _draw(
    tag: str, split: str, rng: np.random.Generator, styles: Sequence[str]
) -> PictureRequest | None:
    """A prompt, or None where this draw is of another task or says nothing that is held out."""
    task = _TASKS[tag]
    level = "descriptive" if tag == DESCRIPTIVE else "short"
    name = task.captions[int(rng.random() * len(task.captions))]
    drawn = sample_caption_scene(rng, SPLITS[split], task=name, level=level, styles=styles)
    if not task.accepts(drawn) or _is_sized(drawn.scene):
        return None
    text, atoms = drawn.caption, drawn.atoms
    if tag != DESCRIPTIVE:
        relation = _relation_of_groups(drawn)
        says_style = tag == "style" or drawn.scene.placed[0].figure.style != "3d"
        groups = groups_of(drawn.scene)
        text, atoms = word_short(rng, groups, relation, None, says_style=says_style)
    metadata = metadata_of(tag, text, drawn.scene, atoms)
    if split == "heldout" and not is_heldout(metadata):
        return None
    return PictureRequest(
        id="", split=split, metadata=metadata, questions=questions_of(atoms), scene=drawn.scene
    )


def groups_of(scene: Scene) -> tuple[Group, ...]:
    """The figures of a scene by class, in the order of naming; those of a class look the same."""
    groups: dict[str, Group] = {}
    for placed in scene.placed:
        figure = placed.figure
        number = groups[figure.kind].number if figure.kind in groups else 0
        groups[figure.kind] = Group(figure, number + 1)
    return tuple(groups.values())


def metadata_of(tag: str, prompt: str, scene: Scene, atoms: set[Atom]) -> Metadata:
    """What a caption demands of its picture.

    Args:
        tag: the task.
        prompt: the caption.
        scene: a picture that fulfils it.
        atoms: what the caption says.
    """
    said = {(atom.kind, atom.subject): atom.value for atom in atoms if atom.kind != "relation"}
    names = {"color": "colour", "headwear": "headwear", "style": "style"}
    clauses = [
        Clause(
            kind=group.figure.kind,
            count=group.number,
            looks={
                look: said[kind, group.figure.kind]
                for look, kind in names.items()
                if (kind, group.figure.kind) in said
            },
        )
        for group in groups_of(scene)
    ]
    relations = [atom for atom in atoms if atom.kind == "relation"]
    if relations:  # GenEval names the target first
        clauses.sort(key=lambda clause: clause.kind != relations[0].other)
        clauses[1] = Clause(
            kind=clauses[1].kind,
            count=clauses[1].count,
            looks=clauses[1].looks,
            position=(relations[0].value, 0),
        )
    exclude = ()
    if tag == "counting":
        exclude = (Clause(kind=clauses[0].kind, count=clauses[0].count + 1),)
    return Metadata(tag=tag, prompt=prompt, include=tuple(clauses), exclude=exclude)


def is_heldout(metadata: Metadata) -> bool:
    """Whether the demands themselves hold something that training never shows."""
    include = metadata.include
    if sum(clause.count for clause in include) > MAX_TRAIN_COUNT:
        return True
    for clause in include:
        colour, headwear = clause.looks.get("color"), clause.looks.get("headwear")
        if colour and is_heldout_pair(clause.kind, colour):
            return True
        # Without a colour in words, another one under this headwear would do.
        if colour and headwear and is_heldout_appearance(clause.kind, colour, headwear):
            return True
        if clause.position is not None:
            relation, target = clause.position
            if is_heldout_relation(clause.kind, relation, include[target].kind):
                return True
    return False


def _is_sized(scene: Scene) -> bool:
    """Size words are left out: a picture does not show them (see ``judges.labels``)."""
    return any(placed.figure.size != "medium" for placed in scene.placed)


def _relation(atoms: set[Atom]) -> Atom:
    return next(atom for atom in atoms if atom.kind == "relation")


def _relation_of_groups(drawn: CaptionedScene) -> tuple[int, str, int] | None:
    if all(atom.kind != "relation" for atom in drawn.atoms):
        return None
    atom = _relation(drawn.atoms)
    kinds = [group.figure.kind for group in groups_of(drawn.scene)]
    return kinds.index(atom.subject), atom.value, kinds.index(atom.other)
