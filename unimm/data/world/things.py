"""Things that stories find: what they are for, where they belong, and how one comes in."""

from collections.abc import Sequence

from unimm.data.world import prose_things
from unimm.data.world.figures import pick, sample_object
from unimm.data.world.scene import Figure
from unimm.data.world.telling import Actor, Telling
from unimm.data.world.words import indefinite, noun_phrase

# What kinds of things are for.
CATEGORIES: dict[str, tuple[str, ...]] = {
    "toy": (
        "balloon", "gift", "kite", "ball", "teddy bear", "book", "key", "lantern", "umbrella",
        "backpack", "basket", "bucket", "clock", "camera", "magnet", "gem", "trophy", "candle",
        "cup", "star", "bell",
    ),
    "food": (
        "apple", "banana", "pear", "strawberry", "watermelon", "pineapple", "carrot", "mushroom",
        "cake", "cupcake", "pizza", "ice cream", "donut",
    ),
    "music": ("drum", "guitar", "trumpet"),
    "flower": ("sunflower", "tulip", "rose", "potted plant"),
    "creature": ("butterfly", "bee", "ladybug", "snail", "turtle", "duck", "owl", "robot"),
    "vehicle": ("car", "bus", "tractor", "bicycle", "scooter", "rocket"),
    "landmark": ("house", "tent", "tree", "chair"),
}  # fmt: skip
CATEGORY_OF: dict[str, str] = {kind: name for name, kinds in CATEGORIES.items() for kind in kinds}
# Some things belong to one place.
LOCAL: dict[str, tuple[tuple[str, str], ...]] = {
    "beach": (("fish", "creature"), ("boat", "vehicle")),
    "desert": (("cactus", "landmark"),),
    "snow": (("snowman", "creature"),),
}
CATEGORY_OF |= {kind: category for local in LOCAL.values() for kind, category in local}

_CATEGORY_SHARES = (
    ("toy", 0.42),
    ("food", 0.18),
    ("creature", 0.14),
    ("vehicle", 0.08),
    ("flower", 0.07),
    ("music", 0.06),
    ("landmark", 0.05),
)


def find_lines(kind: str) -> tuple[Sequence[str], Sequence[str]]:
    """Sentences of coming upon a thing, and what may follow them."""
    category = CATEGORY_OF[kind]
    return prose_things.FIND[category], prose_things.FIND_CLOSERS[category]


def draw_thing(
    telling: Telling, actor: Actor, *, categories: Sequence[str] | None = None
) -> tuple[Figure, str]:
    """Give the actor a new thing, mostly tinted, and say it: ``a red balloon``."""
    rng = telling.rng
    local = LOCAL.get(telling.background, ())
    if categories is None and local and rng.random() < 0.2:
        kinds: tuple[str, ...] = (pick(rng, local)[0],)
    else:
        kinds = CATEGORIES[pick(rng, categories) if categories else _category(telling)]
    known = {other.thing.kind for other in telling.actors if other.thing}
    while True:
        thing = sample_object(rng, telling.split, kinds=kinds, natural_share=0.3, heldout_share=0.4)
        if thing.kind not in known or len(kinds) == 1:
            break
    actor.thing, actor.thing_since, actor.thing_seen = thing, telling.page, telling.page
    return thing, indefinite(noun_phrase(thing))


def _category(telling: Telling) -> str:
    roll = telling.rng.random()
    for name, share in _CATEGORY_SHARES:
        roll -= share
        if roll < 0:
            return name
    return "toy"
