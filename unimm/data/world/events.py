"""What can happen in a story: a state machine whose events change looks, things and places.

Every change is said in the text, so that a picture follows from its text and the pages before.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from unimm.data.world import prose, prose_things
from unimm.data.world.figures import pick
from unimm.data.world.scene import CHARACTER_TINTS, HEADWEAR, NO_HEADWEAR, Figure
from unimm.data.world.splits import Split, is_heldout_appearance
from unimm.data.world.telling import (
    Actor,
    Beat,
    ShownThing,
    Telling,
    choose_template,
    known_thing,
    says_carrying,
    says_place,
    tell,
)
from unimm.data.world.things import CATEGORY_OF, LOCAL, draw_thing, find_lines
from unimm.data.world.words import DESTINATIONS, indefinite

_DESTINATIONS = tuple(DESTINATIONS)
_LOCAL_KINDS = frozenset(kind for local in LOCAL.values() for kind, _ in local)
_EATEN = ("eats", "to eat {the}", "bite", "tastes", "lunch", "nibbles")
_PORTABLE = ("toy", "food", "flower", "music")


def next_beat(telling: Telling, *, is_change: bool) -> Beat:
    """Choose what happens on this page and let it happen."""
    rng = telling.rng
    index = int(rng.random() * len(telling.actors))
    actor = telling.actors[index]
    if is_change:
        return _change_look(telling, index)
    if len(telling.actors) == 2 and rng.random() < 0.35:
        return _together(telling, index)
    options = _options(telling, actor)
    roll = rng.random() * sum(weight for weight, _ in options)
    for weight, event in options:
        roll -= weight
        if roll < 0:
            return event(telling, index)
    return _idle(telling, index)


Event = Callable[[Telling, int], Beat]


def _options(telling: Telling, actor: Actor) -> list[tuple[float, Event]]:
    """Events that make sense now, with weights."""
    is_alone = len(telling.actors) == 1
    has_idled = bool(telling.told) and telling.told[-1] in prose.IDLE
    options: list[tuple[float, Event]] = [(0.2 if has_idled else 1.3, _idle)]
    is_day = telling.background in DESTINATIONS
    if actor.thing is None:
        options.append((5.0, _find))
    else:
        category = CATEGORY_OF[actor.thing.kind]
        options.append((5.0, _use))
        is_local = actor.thing.kind in _LOCAL_KINDS
        if is_alone and category != "landmark" and not is_local:
            options.append((2.5, _carry_to))
        if category in _PORTABLE:
            options.append((0.7, _find_second))
    if is_alone:
        options.append((1.8 if actor.thing is None else 0.6, _travel))
        pages_left = telling.num_pages - telling.page
        if telling.plant_stage:
            if telling.plant_stage < 3:
                options.append((12.0, _plant))
        elif pages_left >= 3 and is_day:
            options.append((0.5, _plant))
    if telling.background == "night":
        options.append((3.0, _wake))
    else:
        options.append((1.6 if telling.is_last else 0.5, _sky))
    is_away = is_day and telling.home in DESTINATIONS and telling.background != telling.home
    if telling.is_last and is_alone and is_away:
        options.append((4.0, _go_home))
    return options


def _find(telling: Telling, index: int) -> Beat:
    actor = telling.actors[index]
    thing, words = draw_thing(telling, actor)
    templates, closers = find_lines(thing.kind)
    template = choose_template(telling, templates)
    text = tell(telling, template, actor, {"obj": words}, closers=closers)
    return _beat("find", text, index, template, ShownThing(figure=thing, since=telling.page))


def _find_second(telling: Telling, index: int) -> Beat:
    actor = telling.actors[index]
    the, shown = known_thing(telling, actor)
    old = actor.thing
    thing, words = draw_thing(telling, actor, categories=("toy", "food"))
    while old is not None and thing.kind == old.kind:
        thing, words = draw_thing(telling, actor, categories=("toy", "food"))
    template = choose_template(telling, prose_things.FIND_SECOND)
    text = tell(telling, template, actor, {"the": the, "obj": words})
    new = ShownThing(figure=thing, since=telling.page)
    return _beat("find_second", text, index, template, shown, new)


def _use(telling: Telling, index: int) -> Beat:
    actor = telling.actors[index]
    thing = actor.thing
    assert thing is not None
    category = CATEGORY_OF[thing.kind]
    is_fresh = actor.thing_seen == telling.page - 1
    the, shown = known_thing(telling, actor)
    if is_fresh and len(telling.actors) == 1 and telling.rng.random() < 0.12:
        template = choose_template(telling, prose_things.USE_IT)
        shown = replace(shown, unsaid=("kind", "tint"))
    else:
        template = choose_template(telling, prose_things.USE[category])
    closers = prose_things.USE_CLOSERS[category]
    if category == "food":
        if any(word in template for word in _EATEN):
            actor.thing = None
        else:
            closers = prose.CLOSERS
    text = tell(telling, template, actor, {"the": the}, closers=closers)
    return _beat("use", text, index, template, shown)


def _idle(telling: Telling, index: int) -> Beat:
    template = choose_template(telling, prose.IDLE)
    return _beat("idle", tell(telling, template, telling.actors[index]), index, template)


def _new_location(telling: Telling) -> str:
    """Another place; its words for 'where to' are picked by the caller."""
    while True:
        location = pick(telling.rng, _DESTINATIONS)
        if location != telling.background:
            return location


def _go(telling: Telling, templates: Sequence[str], actor: Actor, **slots: str) -> tuple[str, str]:
    """Move the story and say so; after a night it goes on in the morning."""
    was_day = telling.background in DESTINATIONS
    telling.move_to(_new_location(telling))
    dest = pick(telling.rng, DESTINATIONS[telling.background])
    if not was_day:  # 'In the morning' leads in: only sentences that it can lead into
        templates = [template for template in templates if template.startswith("{A}")]
    template = choose_template(telling, templates)
    text = tell(telling, template, actor, {"dest": dest, **slots}, opens=was_day)
    if not was_day:
        lead = pick(telling.rng, prose.MORNINGS)
        is_name = text.startswith(actor.name)
        text = lead + (text if is_name else text[:1].lower() + text[1:])
    return text, template


def _travel(telling: Telling, index: int) -> Beat:
    actor = telling.actors[index]
    actor.thing = None
    text, template = _go(telling, prose.TRAVEL, actor)
    return _beat("travel", text, index, template)


def _carry_to(telling: Telling, index: int) -> Beat:
    actor = telling.actors[index]
    assert actor.thing is not None
    category = CATEGORY_OF[actor.thing.kind]
    the, shown = known_thing(telling, actor)
    lines = prose_things.CARRY_TO.get(category, prose_things.CARRY_TO["carry"])
    text, template = _go(telling, lines, actor, the=the)
    return _beat("carry", text, index, template, shown)


def _sky(telling: Telling, index: int) -> Beat:
    """Evening, night or snow comes over the place."""
    rng = telling.rng
    target = "dusk" if telling.background != "dusk" and rng.random() < 0.4 else "night"
    if telling.background == "meadow" and rng.random() < 0.25:
        target = "snow"
    telling.move_to(target)
    template = choose_template(telling, prose.SKY[target])
    text = tell(telling, template, telling.actors[index], opens=False)
    return replace(_beat(target, text, index, template), says_background=True)


def _wake(telling: Telling, index: int) -> Beat:
    telling.move_to(telling.location)
    template = choose_template(telling, prose.WAKE)
    return _beat("wake", tell(telling, template, telling.actors[index]), index, template)


def _go_home(telling: Telling, index: int) -> Beat:
    telling.move_to(telling.home)
    template = choose_template(telling, prose.HOME)
    dest = DESTINATIONS[telling.home][0]
    text = tell(telling, template, telling.actors[index], {"dest": dest})
    return _beat("home", text, index, template)


def _plant(telling: Telling, index: int) -> Beat:
    """A seed, a sprout, a tree: each on a later page."""
    actor, stage = telling.actors[index], telling.plant_stage
    template = choose_template(telling, prose.PLANT[stage])
    text = tell(telling, template, actor, opens=False)
    telling.plant_stage += 1
    if stage == 0:
        return _beat("plant", text, index, template)
    actor.thing = Figure(kind=("sprout", "tree")[stage - 1]) if stage == 2 else None
    grown = Figure(kind=("sprout", "tree")[stage - 1])
    actor.thing_since = telling.page
    return _beat("grow", text, index, template, ShownThing(figure=grown, since=telling.page))


def _change_look(telling: Telling, index: int) -> Beat:
    """Headwear comes or goes, or paint changes the colour; it lasts."""
    actor = telling.actors[index]
    rng, old = telling.rng, actor.figure
    while True:
        roll = rng.random()
        if roll < 0.35:
            colour = pick(rng, CHARACTER_TINTS[1:])
            event, templates, figure = "paint", prose.PAINT, replace(old, tint=colour)
        elif old.headwear != NO_HEADWEAR and roll < 0.7:
            figure = replace(old, headwear=NO_HEADWEAR)
            event, templates = "hat_off", prose.HAT_OFF
        else:
            figure = replace(old, headwear=pick(rng, tuple(HEADWEAR)))
            is_bare = old.headwear == NO_HEADWEAR
            event, templates = "hat_on", prose.HAT_ON if is_bare else prose.HAT_SWAP
        if figure != old and _is_allowed(telling, actor, figure):
            break
    actor.figure = figure
    changed = "tint" if event == "paint" else "headwear"
    actor.since[changed] = telling.page
    template = choose_template(telling, templates)
    slots = {"hat": indefinite(figure.headwear), "worn": old.headwear, "colour": figure.tint}
    text = tell(telling, template, actor, slots)
    return replace(_beat(event, text, index, template), said=frozenset({(index, changed)}))


def _is_allowed(telling: Telling, actor: Actor, figure: Figure) -> bool:
    looks = [other.figure for other in telling.actors if other is not actor]
    if any((look.kind, look.tint) == (figure.kind, figure.tint) for look in looks):
        return False
    is_held = is_heldout_appearance(figure.kind, figure.tint, figure.headwear)
    return telling.split == Split.HELDOUT or not is_held


def _together(telling: Telling, index: int) -> Beat:
    """Both characters on one page."""
    rng, actor, other = telling.rng, telling.actors[index], telling.actors[1 - index]
    category = CATEGORY_OF[actor.thing.kind] if actor.thing else ""
    closers = prose.TOGETHER_CLOSERS
    roll = rng.random()
    things: tuple[ShownThing, ...] = ()
    if category in _PORTABLE and roll < 0.35:
        event, template = "give", choose_template(telling, prose.GIVE)
        the, shown = known_thing(telling, actor)
        things = (shown,)
        other.thing, actor.thing = actor.thing, None
        other.thing_since, other.thing_seen = actor.thing_since, telling.page
        text = tell(telling, template, actor, {"the": the}, other=other, closers=closers)
    elif category == "toy" and roll < 0.7:
        event, template = "share", choose_template(telling, prose.TOGETHER_WITH)
        the, shown = known_thing(telling, actor)
        things = (shown,)
        text = tell(telling, template, actor, {"the": the}, other=other, closers=closers)
    elif roll > 0.85 and telling.background in DESTINATIONS:
        event, template = "travel", choose_template(telling, prose.TOGETHER_TO)
        telling.move_to(_new_location(telling))
        dest = pick(rng, DESTINATIONS[telling.background])
        text = tell(telling, template, actor, {"dest": dest}, other=other, closers=closers)
    else:
        event, template = "together", choose_template(telling, prose.TOGETHER)
        text = tell(telling, template, actor, other=other, closers=closers)
    says = says_place(template)
    shown_actors = (index, 1 - index)
    return Beat(event=event, text=text, actors=shown_actors, things=things, says_background=says)


def _beat(event: str, text: str, index: int, template: str, *things: ShownThing) -> Beat:
    is_carried = False
    if things and says_carrying(template):
        is_carried = CATEGORY_OF.get(things[0].figure.kind) in _PORTABLE
    return Beat(
        event=event,
        text=text,
        actors=(index,),
        things=things,
        says_background=says_place(template),
        is_carried=is_carried,
    )
