"""How a story begins: its characters come in, one after the other or together."""

from unimm.data.world import introductions as lines
from unimm.data.world import prose
from unimm.data.world.figures import pick, sample_object
from unimm.data.world.scene import NO_HEADWEAR
from unimm.data.world.telling import (
    LOOKS,
    Beat,
    ShownThing,
    Telling,
    choose_template,
    full_name,
    look_slots,
    says_carrying,
    says_place,
    tell,
)
from unimm.data.world.things import draw_thing, find_lines
from unimm.data.world.words import DESTINATIONS, indefinite, noun_phrase

_SIDES = (("left", "right"), ("right", "left"))


def open_story(telling: Telling) -> Beat:
    """Page 1. Characters not introduced here come in on page 2."""
    is_pair = len(telling.actors) == 2
    if is_pair and telling.rng.random() < 0.5:
        telling.num_introduced = 2
        for actor in telling.actors:
            actor.since = dict.fromkeys(LOOKS, telling.page)
        if telling.introduction == "words":
            return _pair_in_words(telling)
        return _pair(telling)
    telling.actors[0].since = dict.fromkeys(LOOKS, telling.page)
    if telling.introduction == "words":
        return _alone_in_words(telling)
    return _alone(telling)


def introduce_second(telling: Telling) -> Beat:
    """Page 2 of half of the stories with two: the first character meets the second."""
    first, second = telling.actors
    telling.num_introduced = 2
    second.since = dict.fromkeys(LOOKS, telling.page)
    is_picture = telling.introduction == "picture"
    template = choose_template(telling, lines.MEET_PICTURE if is_picture else lines.MEET_BOTH)
    text = tell(
        telling,
        template,
        first,
        look_slots(second, "B"),
        other=second,
        closers=prose.TOGETHER_CLOSERS,
        opens=not template.startswith("Then"),
    )
    said = frozenset() if is_picture else frozenset((1, look) for look in LOOKS)
    return Beat(event="meet", text=text, actors=(0, 1), said=said)


def _alone(telling: Telling) -> Beat:
    """One character comes in, with its picture."""
    rng, actor = telling.rng, telling.actors[0]
    is_picture = telling.introduction == "picture"
    said = frozenset() if is_picture else frozenset((0, look) for look in LOOKS)
    name = actor.name if is_picture else full_name(actor)
    roll = rng.random()
    if roll < 0.30:  # an event, as on later pages, under the full name
        thing, words = draw_thing(telling, actor)
        templates, closers = find_lines(thing.kind)
        template = choose_template(telling, templates)
        is_plain = actor.figure.headwear == NO_HEADWEAR and rng.random() < 0.3
        if is_plain:  # 'Mia the fox finds a red balloon.': what people type
            template, closers = "{A} finds {obj}.", ("",)
        slots = {"obj": words}
        text = tell(telling, template, actor, slots, name=name, closers=closers, opens=not is_plain)
        return _opened("find", text, template, said, ShownThing(figure=thing, since=0))
    if roll < 0.45:
        is_trip = telling.background in DESTINATIONS and rng.random() < 0.4
        template = choose_template(telling, prose.TRAVEL if is_trip else prose.IDLE)
        dest = DESTINATIONS.get(telling.background, ("",))[0]
        text = tell(telling, template, actor, {"dest": dest}, name=name)
        return _opened("travel" if is_trip else "idle", text, template, said)
    if roll < 0.6:
        thing, words = draw_thing(telling, actor, categories=("toy",))
        table = lines.PICTURE_WITH_THING if is_picture else lines.BOTH_WITH_THING
        template = choose_template(telling, table)
        text = tell(telling, template, actor, {"obj": words} | look_slots(actor), opens=False)
        return _opened("find", text, template, said, ShownThing(figure=thing, since=0))
    table = lines.PICTURE if is_picture else lines.BOTH
    if not is_picture and rng.random() < 0.35:
        is_bare = actor.figure.headwear == NO_HEADWEAR
        table = lines.BOTH_BARE if is_bare else lines.BOTH_HAT
    template = choose_template(telling, table)
    text = tell(telling, template, actor, look_slots(actor), opens=False)
    return _opened("introduce", text, template, said)


def _opened(
    event: str,
    text: str,
    template: str,
    said: frozenset[tuple[int, str]],
    *things: ShownThing,
) -> Beat:
    return Beat(
        event=event,
        text=text,
        actors=(0,),
        things=things,
        said=said,
        says_background=says_place(template),
        is_carried=bool(things) and says_carrying(template),
    )


def _alone_in_words(telling: Telling) -> Beat:
    """The text says how the character looks; the picture shows its home or a thing of its."""
    actor = telling.actors[0]
    slots = look_slots(actor)
    if telling.rng.random() < 0.5:
        thing = sample_object(
            telling.rng, telling.split, kinds=("house", "tent"), heldout_share=0.5
        )
        template = choose_template(telling, lines.WORDS_HOUSE)
    else:
        thing, _ = draw_thing(telling, actor, categories=("toy",))
        template = choose_template(telling, lines.WORDS_THING)
    words = noun_phrase(thing)
    slots |= {"obj": indefinite(words), "thing": words}
    text = tell(telling, template, actor, slots, opens=False)
    return _words_only(telling, text, template, thing_of=ShownThing(figure=thing, since=0))


def _pair_in_words(telling: Telling) -> Beat:
    first, second = telling.actors
    thing = sample_object(telling.rng, telling.split, kinds=("house", "tent"), heldout_share=0.5)
    template = choose_template(telling, lines.PAIR_WORDS)
    slots = look_slots(first) | look_slots(second, "B")
    obj = indefinite(noun_phrase(thing))
    text = tell(
        telling, template, first, slots | {"obj": obj}, other=second, opens=False, closers=("",)
    )
    return _words_only(telling, text, template, thing_of=ShownThing(figure=thing, since=0))


def _words_only(telling: Telling, text: str, template: str, *, thing_of: ShownThing) -> Beat:
    said = frozenset((i, look) for i in range(telling.num_introduced) for look in LOOKS)
    return Beat(
        event="introduce",
        text=text,
        actors=(),
        things=(thing_of,),
        said=said,
        says_background=says_place(template),
    )


def _pair(telling: Telling) -> Beat:
    """Both come in together; without words for their looks, the text says who stands where."""
    rng, (first, second) = telling.rng, telling.actors
    slots = look_slots(first) | look_slots(second, "B")
    relations: tuple[tuple[int, str, int], ...] = ()
    said = frozenset((i, look) for i in range(2) for look in LOOKS)
    if telling.introduction == "picture":
        said = frozenset()
        template = choose_template(telling, lines.PAIR_PICTURE)
        slots["side"], slots["opposite"] = pick(rng, _SIDES)
        relations = ((0, f"{slots['side']} of", 1),)
    else:
        looks = (first.figure, second.figure)
        is_bare = all(figure.headwear == NO_HEADWEAR for figure in looks)
        may_short = is_bare and rng.random() < 0.7
        template = choose_template(telling, lines.PAIR_BARE if may_short else lines.PAIR_BOTH)
    text = tell(
        telling, template, first, slots, other=second, opens=False, closers=prose.TOGETHER_CLOSERS
    )
    return Beat(
        event="introduce",
        text=text,
        actors=(0, 1),
        said=said,
        says_background=says_place(template),
        relations=relations,
    )
