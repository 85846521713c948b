"""Training documents of the world: stories, captions either way, questions and edits, mixed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unimm.data.world.atoms import atoms_to_json
from unimm.data.world.captions import TWO_CHARACTERS, sample_caption_scene, sample_task
from unimm.data.world.edits import sample_edit
from unimm.data.world.figures import pick
from unimm.data.world.questions import sample_question
from unimm.data.world.scene import STYLES, Scene, sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.stories import StoryRecord, page_truth, sample_story, story_heldout_facts


@dataclass(frozen=True, kw_only=True)
class ScenePart:
    """A picture of a document; ``is_drawn`` if the model is to draw it, else it is given."""

    scene: Scene
    is_drawn: bool


@dataclass(frozen=True, kw_only=True)
class WorldDocument:
    """One training document.

    Attributes:
        kind: one of ``DOCUMENT_KINDS``.
        parts: texts and pictures in reading order.
        is_open: whether it simply stops after its last picture (a caption pair, an edit).
        truth: what judges need; plain data for JSON.
    """

    kind: str
    parts: tuple[str | ScenePart, ...]
    is_open: bool
    truth: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WorldMix:
    """Shares of the kinds of documents; they need not add up to one.

    Attributes:
        story: illustrated stories.
        text_to_image: a caption, then its picture to draw.
        image_to_text: a given picture, then its caption, or a question with its answer.
        edit: a given picture, an instruction, the changed picture to draw.
        styles: the arts of everything but stories, which are 3D.
        given_first_pictures: of stories introduced by picture only, how many give that picture.
        two_characters: of the captions to draw, how many show two characters.
        recapped: of those pages in stories of two characters that leave a look to memory, how many
            end with a sentence of it. StoryEval's texts say a look once only, but
            ``generate(write_on=True)`` lets a model add such a sentence to a text that it is given.
    """

    story: float = 0.5
    text_to_image: float = 0.2
    image_to_text: float = 0.2
    edit: float = 0.1
    styles: tuple[str, ...] = ("3d",)
    given_first_pictures: float = 0.5
    two_characters: float = 0.0
    recapped: float = 0.0

    def __post_init__(self) -> None:
        shares = [getattr(self, kind) for kind in DOCUMENT_KINDS]
        if min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"shares of documents are {shares}; give one above 0, none below")
        if not self.styles or not set(self.styles) <= set(STYLES):
            raise ValueError(f"unknown styles {self.styles}; known: {STYLES}")
        for name in ("given_first_pictures", "two_characters", "recapped"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share from 0 to 1")


def sample_document(
    rng: np.random.Generator,
    split: Split,
    *,
    mix: WorldMix | None = None,
    kind: str | None = None,
) -> WorldDocument:
    """One document.

    Args:
        rng: the sample's stream.
        split: whose combinations it shows.
        mix: the shares of kinds.
        kind: one of ``DOCUMENT_KINDS``; drawn from the mix when left out.

    Raises:
        ValueError: an unknown kind.
    """
    mix = mix or WorldMix()
    if kind is not None and kind not in _SAMPLERS:
        raise ValueError(f"unknown kind of document {kind!r}; known: {DOCUMENT_KINDS}")
    if kind is None:
        roll = rng.random() * sum(getattr(mix, name) for name in DOCUMENT_KINDS)
        for kind in DOCUMENT_KINDS:
            roll -= getattr(mix, kind)
            if roll < 0:
                break
    assert kind is not None
    return _SAMPLERS[kind](rng, split, mix)


def document_at(
    seed: int, index: int, *, split: Split = Split.TRAIN, mix: WorldMix | None = None
) -> WorldDocument:
    """Document number ``index``: always the same, whoever asks, in whatever order."""
    return sample_document(sample_rng(seed, split, index), split, mix=mix)


def story_document(story: StoryRecord, *, is_first_given: bool = False) -> WorldDocument:
    """A story as a document: text and picture of each page in turn.

    Args:
        story: the story.
        is_first_given: the first picture is given, not to be drawn.
    """
    parts: list[str | ScenePart] = []
    for number, page in enumerate(story.pages):
        is_drawn = not (is_first_given and number == 0)
        parts += [page.text, ScenePart(scene=page.scene, is_drawn=is_drawn)]
    return WorldDocument(kind="story", parts=tuple(parts), is_open=False, truth=story_truth(story))


def story_truth(story: StoryRecord) -> dict[str, Any]:
    """A story's truth as plain data: characters, and for each page what it shows and carries."""
    is_held = story.split == Split.HELDOUT
    return {
        "heldout": sorted(story_heldout_facts(story)) if is_held else [],
        "introduction": story.introduction,
        "split": story.split.name.lower(),
        "characters": [
            {
                "name": character.name,
                "species": character.species,
                "tint": character.tint,
                "headwear": character.headwear,
            }
            for character in story.characters
        ],
        "pages": [
            page_truth(page)
            | {
                "event": page.event,
                "carried": [
                    [fact.subject, fact.attribute, fact.value, fact.since] for fact in page.carried
                ],
            }
            for page in story.pages
        ],
    }


def _story(rng: np.random.Generator, split: Split, mix: WorldMix) -> WorldDocument:
    story = sample_story(rng, split, recapped=mix.recapped)
    is_picture = story.introduction == "picture"
    is_given = is_picture and bool(rng.random() < mix.given_first_pictures)
    return story_document(story, is_first_given=is_given)


def _text_to_image(rng: np.random.Generator, split: Split, mix: WorldMix) -> WorldDocument:
    is_pair = mix.two_characters > 0 and rng.random() < mix.two_characters
    task = TWO_CHARACTERS if is_pair else sample_task(rng)
    scene, caption, atoms = sample_caption_scene(rng, split, task=task, styles=mix.styles)
    truth = {"task": task, "atoms": atoms_to_json(atoms)}
    picture = ScenePart(scene=scene, is_drawn=True)
    return WorldDocument(kind="text_to_image", parts=(caption, picture), is_open=True, truth=truth)


def _image_to_text(rng: np.random.Generator, split: Split, mix: WorldMix) -> WorldDocument:
    task = sample_task(rng)
    if rng.random() < 0.5:
        scene, text, atoms = sample_caption_scene(
            rng, split, task=task, level="descriptive", styles=mix.styles
        )
        truth: dict[str, Any] = {"task": task, "atoms": atoms_to_json(atoms)}
    else:
        scene, _, _ = sample_caption_scene(rng, split, task=task, level="short", styles=mix.styles)
        question = sample_question(rng, scene)
        text = f"{question.question} {question.answer}"
        truth = {"task": task, **question._asdict()}
    picture = ScenePart(scene=scene, is_drawn=False)
    return WorldDocument(kind="image_to_text", parts=(picture, text), is_open=False, truth=truth)


def _edit(rng: np.random.Generator, split: Split, mix: WorldMix) -> WorldDocument:
    edit = sample_edit(rng, split, style=pick(rng, mix.styles))
    parts = (
        ScenePart(scene=edit.source, is_drawn=False),
        edit.instruction,
        ScenePart(scene=edit.target, is_drawn=True),
    )
    return WorldDocument(kind="edit", parts=parts, is_open=True, truth={"action": edit.action})


_SAMPLERS: dict[str, Callable[[np.random.Generator, Split, WorldMix], WorldDocument]] = {
    "story": _story,
    "text_to_image": _text_to_image,
    "image_to_text": _image_to_text,
    "edit": _edit,
}
DOCUMENT_KINDS: tuple[str, ...] = tuple(_SAMPLERS)
