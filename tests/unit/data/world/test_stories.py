"""Stories keep their characters, say every change, and know what a page must remember."""

import re
from functools import partial

import pytest

from unimm.data.world.scene import BACKGROUNDS, COLOURS, NATURAL, NO_HEADWEAR, OBJECTS, sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.stories import INTRODUCTIONS, page_truth, sample_story
from unimm.data.world.words import PLURALS, look_phrase

CHANGES = ("paint", "hat_on", "hat_off")


@pytest.fixture(scope="module")
def stories():
    return [sample_story(sample_rng(31, 0, i), Split.TRAIN) for i in range(1500)]


def test_the_mix_is_as_promised(stories):
    n = len(stories)
    assert 0.45 < sum(s.introduction == "picture" for s in stories) / n < 0.55
    assert 0.45 < sum(len(s.characters) == 2 for s in stories) / n < 0.55
    assert sum(len(s.pages) == 4 for s in stories) / n > 0.65
    assert all(4 <= len(s.pages) <= 6 for s in stories)
    constant = sum(not set(CHANGES) & {p.event for p in s.pages} for s in stories) / n
    assert 0.70 < constant < 0.80
    pairs = [s.characters for s in stories if len(s.characters) == 2]
    assert sum(a.species == b.species for a, b in pairs) / len(pairs) > 0.3
    assert sum(a.tint == b.tint for a, b in pairs) / len(pairs) > 0.3
    assert all((a.species, a.tint) != (b.species, b.tint) for a, b in pairs)


def test_pages_are_short_clean_sentences(stories):
    texts = [page.text for story in stories for page in story.pages]
    for text in texts:
        assert len(text.split()) <= 24, text
        assert re.fullmatch(r"[A-Z][A-Za-z ,.:!?']*[.!?]", text), text
        assert not re.search(r"\b[aA] [aeiou]|\b[aA]n [^aeiou ]|  |,\.|,,", text), text
        assert not re.search(r"[.!?] [a-z]", text), text
    assert sum(len(text.split()) for text in texts) / len(texts) > 9
    assert len(set(texts)) > 0.8 * len(texts)


def test_later_pages_never_describe_the_character(stories):
    for story in stories:
        for page in story.pages[2:]:
            for character in story.characters:
                assert character.species not in page.text.replace("teddy bear", "").lower().split()


def test_a_page_shows_whom_it_names_and_no_more(stories):
    for story in stories:
        for number, page in enumerate(story.pages):
            shown = {item.name for item in page.shown}
            named = {c.name for c in story.characters if re.search(rf"\b{c.name}\b", page.text)}
            if story.introduction == "words" and number == 0:
                assert not shown
            elif len(story.characters) == 2:
                assert shown == named, page.text
            else:
                assert shown == {story.characters[0].name} >= named, page.text
            placed = page.scene.placed
            assert sum(p.figure.is_character for p in placed) == len(page.shown)
            assert len(placed) <= 3


def test_a_page_names_the_things_it_shows(stories):
    for story in stories:
        for page in story.pages:
            forgotten = {f.subject for f in page.carried if f.attribute == "kind"}
            for item in page_truth(page)["objects"]:
                assert item["kind"] in page.text or item["kind"] in forgotten, page.text
                carried = {f.subject for f in page.carried if f.attribute == "tint"}
                if item["tint"] != NATURAL and item["kind"] not in carried:
                    assert f"{item['tint']} {item['kind']}" in page.text, page.text
            words = page.text.lower().replace("stars", "")
            for kind in OBJECTS:
                if re.search(rf"\b({kind}|{PLURALS[kind]})\b", words):
                    assert any(p.figure.kind == kind for p in page.scene.placed), page.text


def test_looks_last_until_the_text_changes_them(stories):
    for story in stories:
        looks = {c.name: (c.species, c.tint, c.headwear) for c in story.characters}
        for page in story.pages:
            for item in page_truth(page)["characters"]:
                look = (item["species"], item["tint"], item["headwear"])
                if look != looks[item["name"]]:
                    assert page.event in CHANGES
                    looks[item["name"]] = look


def test_carried_facts_are_true_and_known_from_before(stories):
    for story in stories:
        for number, page in enumerate(story.pages):
            truth = page_truth(page)
            by_name = {item["name"]: item for item in truth["characters"]}
            by_kind = {item["kind"]: item for item in truth["objects"]}
            for fact in page.carried:
                assert 0 <= fact.since < number
                if fact.subject == "background":
                    assert fact.value == truth["background"]
                else:
                    item = by_name.get(fact.subject) or by_kind[fact.subject]
                    assert item[fact.attribute] == fact.value
            if number >= 2 and page.event not in CHANGES:
                assert len(page.carried) >= 3 * len(page.shown)


def test_a_changed_look_is_carried_from_the_page_of_the_change():
    found = 0
    for index in range(60):
        story = sample_story(
            sample_rng(32, 0, index), Split.TRAIN, num_characters=1, has_change=True, num_pages=6
        )
        events = [page.event for page in story.pages]
        change = next(i for i, event in enumerate(events) if event in CHANGES)
        attribute = "tint" if events[change] == "paint" else "headwear"
        assert all(
            f.attribute != attribute or f.subject != story.characters[0].name
            for f in story.pages[change].carried
        )
        for page in story.pages[change + 1 :]:
            if page.shown:
                found += 1
                since = {
                    f.attribute: f.since
                    for f in page.carried
                    if f.subject in {c.name for c in story.characters}
                }
                assert since[attribute] == change
    assert found > 50


def test_backgrounds_change_only_in_words_and_come_back_the_same(stories):
    for story in stories:
        variants = {}
        for before, page in zip((None, *story.pages), story.pages, strict=False):
            scene = page.scene
            assert variants.setdefault(scene.background, scene.variant) == scene.variant
            if before is not None and scene.background != before.scene.background:
                assert page.event in {"travel", "carry", "night", "dusk", "snow", "wake", "home"}
    seen = {page.scene.background for story in stories for page in story.pages}
    assert seen == set(BACKGROUNDS)


def test_introductions_tell_and_show_what_they_promise(stories):
    for story in stories:
        first, character = story.pages[0], story.characters[0]
        says = character.species in first.text.replace("teddy bear", "")
        assert says == (story.introduction != "picture"), first.text
        if says and character.tint != NATURAL:
            assert f"{character.tint} {character.species}" in first.text
        if says:
            assert (character.headwear in first.text) == (
                character.headwear != NO_HEADWEAR
            ) or character.headwear == NO_HEADWEAR
        assert bool(first.shown) == (story.introduction != "words")


def test_the_documented_prompt_is_a_sentence_of_this_world():
    colours = "|".join(COLOURS)
    form = re.compile(rf"\w+ the (?:(?:{colours}) )?\w+ finds an? (?:\w+ )?\w+\.")
    texts = (
        sample_story(sample_rng(33, 0, i), Split.TRAIN, introduction="both").pages[0].text
        for i in range(3000)
    )
    assert sum(bool(form.fullmatch(text)) for text in texts) >= 30


def test_stories_repeat_and_take_orders():
    first = sample_story(sample_rng(34, 0, 5), Split.TRAIN)
    assert first == sample_story(sample_rng(34, 0, 5), Split.TRAIN)
    for introduction in INTRODUCTIONS:
        for num_characters in (1, 2):
            story = sample_story(
                sample_rng(35, 2, 0),
                Split.HELDOUT,
                num_pages=8,
                introduction=introduction,
                num_characters=num_characters,
            )
            assert len(story.pages) == 8
            assert story.introduction == introduction
            assert len(story.characters) == num_characters
    rng = sample_rng(0, 0, 0)
    with pytest.raises(ValueError, match="num_pages is 33"):
        sample_story(rng, Split.TRAIN, num_pages=33)
    with pytest.raises(ValueError, match="unknown introduction 'song'"):
        sample_story(rng, Split.TRAIN, introduction="song")
    with pytest.raises(ValueError, match="num_characters is 3"):
        sample_story(rng, Split.TRAIN, num_characters=3)


def test_recaps_say_true_looks_in_a_sentence_of_their_own():
    num_left = num_recapped = 0
    for i in range(100):
        told = sample_story(sample_rng(37, 0, i), Split.TRAIN, num_characters=2, recapped=0.7)
        for page in told.pages[1:]:
            carried = {fact.subject for fact in page.carried if fact.attribute == "species"}
            looks = {x.name: page.scene.placed[x.placed].figure for x in page.shown}
            num_left += bool(carried)
            for name, look in looks.items():
                found = re.search(rf"[.!?] {name} is ({look_phrase(look)})\.", page.text)
                num_recapped += bool(found)
                assert not (found and name in carried)
    assert 0 < num_left < num_recapped
    for i in range(20):  # one character's name says whose look it is
        alone = partial(sample_story, num_characters=1)
        plain, asked = (
            alone(sample_rng(38, 0, i), Split.TRAIN, recapped=share) for share in (0.0, 0.7)
        )
        assert plain == asked
