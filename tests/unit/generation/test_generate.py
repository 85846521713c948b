"""Any text and pictures in, any out: kinds of documents, streams, previews, and odd input."""

import gc
import struct
import weakref
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import tiny_pipeline

from unimm.document import ImageTokens
from unimm.generation import Story, StoryEvent, generate, generate_image, generate_story
from unimm.generation.previews import BLANK
from unimm.nn.kv_cache import KVCache
from unimm.pictures import decode_image, encode_image


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def of(pipeline, parts: Any, **options: Any) -> Any:
    defaults: dict[str, Any] = {"max_text_tokens": 6, "seed": 0}
    return generate(pipeline, parts, **defaults | options)


def kinds(story: Story) -> list[str]:
    return ["text" if isinstance(part, str) else "picture" for part in story.parts]


def photo(width: int = 640, height: int = 480) -> Image.Image:
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    return Image.fromarray(ramp.astype(np.uint8))


# What goes in and what comes out.


def test_a_story_goes_on_from_a_photo_of_ones_own(pipeline, tmp_path):
    photo().save(tmp_path / "mia.jpg")
    story = of(pipeline, [tmp_path / "mia.jpg", "this is mia."], num_images=2)
    assert kinds(story)[:3] == ["picture", "text", "picture"] and len(story.images) == 3
    assert story.images[0].size == (640, 480)  # shown as it was given
    given = story.tokens[0]
    assert isinstance(given, ImageTokens) and given.codes is not None
    expected = encode_image(pipeline, tmp_path / "mia.jpg").codes
    assert expected is not None and torch.equal(given.codes, expected)
    again = of(pipeline, story.prompt, settings=story.settings, seed=None, max_text_tokens=None)
    assert again.texts == story.texts


def test_a_caption_and_an_answer_are_text_after_a_picture(pipeline):
    for asked in ("the picture shows", "is she happy?"):
        story = of(pipeline, [photo(), asked], num_images=0)
        assert kinds(story) == ["picture", "text"] and story.texts[0].startswith(asked)
        assert len(story.texts[0]) > len(asked)
    bare = of(pipeline, photo(), num_images=0)
    assert kinds(bare) in (["picture", "text"], ["picture"])


def test_an_edit_draws_at_once_and_reads_the_picture(pipeline):
    options: Any = {"num_images": 1, "max_text_tokens": 0}
    edits = [of(pipeline, [x, "mia is red"], **options) for x in (photo(), Image.new("L", (9, 9)))]
    assert [kinds(edit) for edit in edits] == [["picture", "text", "picture"]] * 2
    assert edits[0].texts == ["mia is red"]
    assert edits[0].images[1].tobytes() != edits[1].images[1].tobytes()


def test_single_pictures_and_stories_are_the_same_path(pipeline):
    drawn = of(pipeline, "mia the fox", num_images=1, max_text_tokens=0)
    assert drawn.images[0].tobytes() == generate_image(pipeline, "mia the fox", seed=0).tobytes()
    story: Any = generate_story(pipeline, "mia", num_images=2, seed=1, max_text_tokens=6)
    assert story.texts == of(pipeline, "mia", num_images=2, seed=1).texts


def test_tokens_go_on_without_a_loss(pipeline):
    """What was drawn needs no decoding and encoding to be read again."""
    start = of(pipeline, "mia", num_images=1, max_text_tokens=0)
    tokens = start.tokens[1]
    story = of(pipeline, ["mia", tokens, "she"], num_images=1)
    assert story.images[0].tobytes() == decode_image(pipeline, tokens).tobytes()
    assert story.tokens[1] is tokens
    with pytest.raises(ValueError, match=r"pictures of 4 x 4 codes, got \(2, 2\)"):
        of(pipeline, ["mia", ImageTokens(codes=torch.zeros(2, 2, dtype=torch.int64))])


def test_documents_of_a_batch_may_be_of_any_kind(pipeline):
    prompts: Any = [["mia"], [photo(), "she"], [photo(), "is red", photo()], [""]]
    stories = of(pipeline, prompts, num_images=[2, 0, 1, 3])
    for i, (prompt, story) in enumerate(zip(prompts, stories, strict=True)):
        alone = of(pipeline, [prompt], num_images=[2, 0, 1, 3][i], seed=i)[0]
        assert story.texts == alone.texts
        assert [x.tobytes() for x in story.images] == [x.tobytes() for x in alone.images]


def test_pages_texts_of_a_batch_may_be_uneven(pipeline):
    pages = [["mia", "she", "is"], ["a very long page of a fox that finds a red balloon"]]
    stories = of(pipeline, ["", ""], page_texts=pages)
    assert [story.texts for story in stories] == pages
    alone = of(pipeline, "", page_texts=pages[1], seed=1)
    assert stories[1].images[0].tobytes() == alone.images[0].tobytes()


# Streams and previews.


def test_given_texts_are_written_on_where_asked(pipeline):
    pages = [["mia the fox", "she runs"], ["mia", "she sleeps, she sleeps"]]
    plain = of(pipeline, ["", ""], page_texts=pages)
    stories = of(pipeline, ["", ""], page_texts=pages, write_on=True)
    added = [
        text.removeprefix(given)
        for s, p in zip(stories, pages, strict=True)
        for text, given in zip(s.texts, p, strict=True)
    ]
    assert [story.texts for story in plain] == pages and any(added)
    assert all(len(story.images) == 2 for story in stories)
    assert all(
        t.startswith(g)
        for s, p in zip(stories, pages, strict=True)
        for t, g in zip(s.texts, p, strict=True)
    )
    alone = of(pipeline, "", page_texts=pages[1], write_on=True, seed=1)
    again = generate(pipeline, "", settings=alone.settings)
    assert alone.texts == stories[1].texts == again.texts and alone.settings["write_on"]


def test_streams_tell_deltas_and_finished_parts_of_each_document(pipeline):
    prompts: Any = [["mia"], [photo(), "she"]]
    events: list[StoryEvent] = list(of(pipeline, prompts, num_images=[2, 0], stream=True))
    stories = {event.index: event.story for event in events if event.story is not None}
    for index, prompt in enumerate(prompts):
        mine = [event for event in events if event.index == index]
        story = stories[index]
        assert story is not None
        finished = [event.part for event in mine if event.part is not None]
        given = [x for x in prompt if not isinstance(x, str)]
        for part, expected in zip([*given, *finished], story.parts, strict=True):
            assert part == expected if isinstance(part, str) else part is expected
        text, told = prompt[-1], [event.text or "" for event in mine]
        first = next(x for x in finished if isinstance(x, str))
        assert first.startswith(text)
        assert "".join(told).startswith(first[len(text) :].rstrip("\N{REPLACEMENT CHARACTER}"))
    order = [e for e in events if e.index == 0 and (e.part is not None or e.text)]
    assert order[0].text and isinstance(order[-1].part, Image.Image)


@pytest.mark.parametrize("name", ["next_token", "masked", "next_scale", "diffusion", "transfusion"])
def test_previews_show_how_a_picture_came_into_being(name):
    pipeline = tiny_pipeline(name)
    story = generate(
        pipeline, [["mia", photo(), "she"]], num_images=1, max_text_tokens=0, seed=0, num_previews=3
    )[0]
    given, drawn = story.previews
    assert given == () and 2 <= len(drawn) <= 3
    assert all(x.size == story.images[1].size for x in drawn)
    if name in ("next_token", "masked"):
        blanks = [int((np.array(x) == BLANK).all(-1).sum()) for x in drawn]
        assert blanks == sorted(blanks, reverse=True) and blanks[0] > blanks[-1] > 0
        # What is shown is the finished picture's own.
        shown, whole = np.array(drawn[-1]), np.array(story.images[1])
        is_shown = ~(shown == BLANK).all(-1)
        assert (shown[is_shown] == whole[is_shown]).all()
    else:
        assert len({x.tobytes() for x in drawn}) == len(drawn)
    plain = generate(pipeline, [["mia", photo(), "she"]], num_images=1, max_text_tokens=0, seed=0)[
        0
    ]
    assert plain.images[1].tobytes() == story.images[1].tobytes() and plain.previews == ((), ())


# Odd input.


def test_a_prompt_of_five_thousand_characters(pipeline):
    long = "mia the fox finds a red balloon. " * 152
    story = of(pipeline, long[:5000], num_images=1)
    assert story.texts[0].startswith(long[:5000]) and len(story.images) == 1
    with pytest.raises(ValueError, match="context has 200: shorten it"):
        of(tiny_pipeline(max_seq_len=200), long[:5000], num_images=1)


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_empty_prompts_have_stories_too(pipeline, prompt):
    assert len(of(pipeline, prompt, num_images=2).images) == 2
    assert of(pipeline, prompt, num_images=0).images == []


@pytest.mark.parametrize("prompt", ["🦊🎈 finds", "狐狸 и шар", "ثعلب", "a\x00b", "é\u0301"])
def test_any_script_is_read_and_kept(pipeline, prompt):
    story = of(pipeline, prompt, num_images=1, max_text_tokens=0)
    assert story.texts == [prompt]
    # Streamed, no half of a character is told before its other half.
    events = list(of(pipeline, "", page_texts=[prompt], stream=True))
    assert "".join(event.text or "" for event in events) == prompt


def test_no_pictures_and_fifty(pipeline):
    assert of(pipeline, "mia", num_images=0).images == []
    assert len(of(pipeline, "mia", num_images=50, max_text_tokens=1).images) == 50
    with pytest.raises(ValueError, match="1000000 pictures .* ask for fewer pictures"):
        of(pipeline, "mia", num_images=1_000_000)


def png(width: int, height: int) -> bytes:
    """A picture that claims a size, of a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 60), (60, 20_000), (20_000, 1)])
def test_extreme_shapes_are_read_by_their_middle(pipeline, size, tmp_path):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    story = of(pipeline, [tmp_path / "a.png", "mia"], num_images=1)
    assert story.images[0].size == size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "a.png is not a picture that can be read"),
        (b"", "a.png is not a picture that can be read"),
        (png(64, 64), "a.png is not a picture that can be read"),
        (png(20_000, 20_000), "a.png is too large to be opened safely: .*400000000 pixels"),
    ],
)
def test_files_that_are_no_pictures_and_bombs_are_named(pipeline, content, message, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        of(pipeline, [tmp_path / "a.png", "mia"])


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1e-30, "text_temperature": 1e-30},
        {"temperature": 1e30, "text_temperature": 1e30},
        {"top_k": 10**9, "text_top_k": 10**9},
        {"top_p": 1e-12, "text_top_p": 1e-12},
        {"guidance_scale": 1000.0, "image_guidance_scale": 1000.0},
        {"guidance_scale": 0.0, "image_guidance_scale": 0.0},
        {"seed": 2**63},
    ],
)
def test_absurd_but_legal_options_still_draw(pipeline, options):
    story = of(pipeline, "mia", **{"num_images": 2} | options)
    assert story.images and all(x.size == (16, 16) for x in story.images)


def test_endless_pages_and_stories_end_with_the_context():
    small = tiny_pipeline(max_seq_len=100)
    story = of(small, "mia", max_text_tokens=10**9, max_images=10**9)
    assert 50 < sum(len(x) if isinstance(x, list) else 18 for x in story.tokens) <= 100
    full = of(small, "mia", max_text_tokens=10**9, num_images=2)
    assert len(full.images) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": float("nan")},
        {"top_k": -1},
        {"guidance_scale": 1e30},
        {"image_guidance_scale": -1.0},
        {"num_steps": 10**9},
        {"num_previews": -1},
    ],
)
def test_impossible_options_are_named(pipeline, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        of(pipeline, "mia", **options)


def test_settings_of_something_else_are_refused(pipeline):
    with pytest.raises(ValueError, match="settings lack .*'text'"):
        of(pipeline, "mia", settings={"prompt": ["mia"]})


@pytest.mark.parametrize("is_broken_off", [False, True])
def test_the_cache_is_freed_at_once(pipeline, monkeypatch, is_broken_off):
    """Without waiting for the collector of cycles: on a GPU it would pile up gigabytes."""
    made: list[weakref.ref[KVCache]] = []
    allocate = KVCache.__init__

    def noted(cache: KVCache, *args: Any, **options: Any) -> None:
        allocate(cache, *args, **options)
        made.append(weakref.ref(cache))

    monkeypatch.setattr(KVCache, "__init__", noted)
    gc.collect()
    gc.disable()
    try:
        events = of(pipeline, "mia", num_images=1, stream=True)
        next(events)
        if is_broken_off:
            events.close()
        else:
            list(events)
        del events
        assert made and all(cache() is None for cache in made)
    finally:
        gc.enable()
