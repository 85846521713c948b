import json
from typing import Any

import pytest
from PIL import Image
from pipelines import tiny_pipeline

from unimm.generation import Story, StoryEvent, generate_image, generate_story
from unimm.pictures import encode_image


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def same(first: Story, second: Story) -> bool:
    return first.texts == second.texts and [x.tobytes() for x in first.images] == [
        x.tobytes() for x in second.images
    ]


def story_of(pipeline, prompt: Any = "mia the fox", **options: Any) -> Any:
    defaults: dict[str, Any] = {"max_text_tokens": 8, "seed": 0}
    return generate_story(pipeline, prompt, **defaults | options)


def test_story_has_the_pictures_asked_for_in_turn_with_text(pipeline):
    story = story_of(pipeline, num_images=3)
    kinds = ["text" if isinstance(part, str) else "picture" for part in story.parts]
    assert kinds == ["text", "picture"] * 3
    assert story.parts[0].startswith("mia the fox")
    assert {x.size for x in story.images} == {(16, 16)}


def test_the_model_ends_the_story_or_the_bound_does(pipeline):
    stories = [story_of(pipeline, seed=seed, max_images=3) for seed in range(12)]
    counts = [len(story.images) for story in stories]
    assert max(counts) == 3 and min(counts) < 3


def test_no_pictures_is_text_only(pipeline):
    story = story_of(pipeline, num_images=0)
    assert len(story.parts) == 1 and story.texts[0].startswith("mia the fox")
    assert len(story.texts[0]) > len("mia the fox")  # text only, not nothing
    stories = [story_of(pipeline, num_images=0, seed=seed) for seed in range(12)]
    assert not any(story.images for story in stories)
    assert len({story.texts[0] for story in stories}) > 6


def test_seed_decides_everything(pipeline):
    first, again = (story_of(pipeline, num_images=2, seed=4) for _ in range(2))
    other = story_of(pipeline, num_images=2, seed=5)
    assert same(first, again) and not same(first, other)


def test_without_a_seed_one_is_drawn_and_recorded(pipeline):
    first = story_of(pipeline, num_images=1, seed=None)
    again = story_of(pipeline, num_images=1, seed=first.settings["seed"])
    assert same(first, again)
    assert story_of(pipeline, num_images=1, seed=None).settings["seed"] != first.settings["seed"]


@pytest.mark.parametrize("options", [{}, {"num_images": 2}, {"num_images": 0}])
def test_batch_equals_single(pipeline, options):
    prompts = ["mia the fox", "", "she is happy now. she"]
    together = story_of(pipeline, prompts, seed=7, max_images=3, **options)
    for i, (prompt, story) in enumerate(zip(prompts, together, strict=True)):
        assert same(story, story_of(pipeline, prompt, seed=7 + i, max_images=3, **options))
        assert story.settings["seed"] == 7 + i
    again = story_of(pipeline, prompts[::-1], seed=[9, 8, 7], max_images=3, **options)
    assert all(map(same, together, again[::-1]))


def test_greedy_ignores_the_seed(pipeline):
    options = {"temperature": 0.0, "text_temperature": 0.0, "num_images": 2}
    assert same(story_of(pipeline, seed=0, **options), story_of(pipeline, seed=1, **options))


def test_top_k_of_one_is_greedy(pipeline):
    greedy = story_of(pipeline, temperature=0.0, text_temperature=0.0, num_images=2)
    assert same(greedy, story_of(pipeline, top_k=1, text_top_k=1, num_images=2))


def test_guidance_changes_pictures_and_first_can_differ(pipeline):
    texts = ["mia", "she"]
    plain = story_of(pipeline, "", page_texts=texts, guidance_scale=1.0)
    later = story_of(pipeline, "", page_texts=texts, guidance_scale=4.0, first_guidance_scale=1.0)
    assert plain.images[0].tobytes() == later.images[0].tobytes()
    assert plain.images[1].tobytes() != later.images[1].tobytes()
    assert later.settings["later_pages"]["guidance_scale"] == 4.0


def test_given_page_texts_are_kept(pipeline):
    story = story_of(pipeline, "mia the fox.", page_texts=["she runs.", "she sleeps."])
    assert story.texts == ["mia the fox. she runs.", "she sleeps."]
    assert len(story.images) == 2
    same_story = story_of(pipeline, "", page_texts=["mia the fox. she runs.", "she sleeps."])
    assert same(story, same_story)


def test_story_goes_on_from_given_pictures(pipeline):
    start = story_of(pipeline, "", page_texts=["mia.", "she runs."])
    swapped = [
        story_of(pipeline, ["mia.", picture], page_texts=["she runs."], seed=1)
        for picture in (start.images[0], Image.new("RGB", (40, 30), "red"))
    ]
    assert [story.texts for story in swapped] == [["mia.", "she runs."]] * 2
    assert swapped[0].images[0] is start.images[0]  # given pictures are not drawn again
    assert swapped[0].images[1].tobytes() != swapped[1].images[1].tobytes()
    many = story_of(
        pipeline, [["mia.", start.images[0]]] * 2, page_texts=[["she runs."]] * 2, seed=[1, 1]
    )
    assert all(same(story, swapped[0]) for story in many)


def test_special_tokens_in_the_prompt_are_text(pipeline):
    story = story_of(pipeline, "a <eos> b <boi>", num_images=1)
    assert story.texts[0].startswith("a <eos> b <boi>")


def test_stream_tells_what_the_story_holds(pipeline):
    whole = story_of(pipeline, num_images=2)
    events = list(story_of(pipeline, num_images=2, stream=True))
    assert all(isinstance(event, StoryEvent) for event in events)
    last = events[-1].story
    assert last is not None and same(last, whole)
    pictures = [event.image for event in events if event.image is not None]
    assert [x.tobytes() for x in pictures] == [x.tobytes() for x in whole.images]
    first = events.index(next(event for event in events if event.image is not None))
    told = "mia the fox" + "".join(event.text or "" for event in events[:first])
    assert whole.texts[0].startswith(told.rstrip("\N{REPLACEMENT CHARACTER}"))


def test_streaming_does_not_leak_inference_mode(pipeline):
    import torch

    events = story_of(pipeline, num_images=1, stream=True)
    next(events)
    assert not torch.is_inference_mode_enabled()


def test_progress_counts_pages_and_positions(pipeline):
    calls = []
    story_of(pipeline, num_images=2, progress=lambda *x: calls.append(x))
    assert [page for page, _ in calls] == sorted(page for page, _ in calls)
    assert calls[-1][0] == 1 and calls[-1][1] > 2 * 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, "temperature must be 0 .* got -0.5"),
        ({"text_temperature": -1.0}, "temperature must be 0 .* got -1"),
        ({"top_p": 1.5}, "top_p"),
        ({"guidance_scale": -2.0}, "guidance_scale"),
        ({"num_images": -1}, "num_images must be 0 or larger, got -1"),
        ({"max_images": 0}, "max_images must be 1 or larger, got 0"),
        ({"max_text_tokens": -1}, "max_text_tokens must be 0"),
        ({"seed": -3}, "seed must be 0 or larger"),
        ({"seed": [1, 2]}, "one or 1 of them"),
        ({"page_texts": ["a"], "num_images": 2}, "num_images is 2, but page_texts has 1"),
        ({"page_texts": []}, "one text or more"),
        ({"prompt": []}, "no prompt is given"),
        ({"prompt": ["a", "b"], "page_texts": ["a", "b"]}, "a list of lists"),
        ({"prompt": ["a", "b"], "page_texts": [["a"], []]}, "one text or more"),
        ({"prompt": [["a", 3]]}, "found int"),
    ],
)
def test_bad_options_are_refused(pipeline, options, message):
    with pytest.raises(ValueError, match=message):
        story_of(pipeline, **options)


def test_what_does_not_fit_the_context_is_refused_with_numbers():
    small = tiny_pipeline(max_seq_len=60)
    with pytest.raises(ValueError, match="takes 101 positions, but .* context has 60: shorten it"):
        story_of(small, "a" * 100 + "", num_images=1)
    with pytest.raises(ValueError, match="5 pictures 90, .* context has 60"):
        story_of(small, "mia", num_images=5)
    with pytest.raises(ValueError, match="pages' texts 50"):
        story_of(small, "", page_texts=["q" * 50])


def test_a_story_ends_where_the_context_ends():
    small = tiny_pipeline(max_seq_len=64)
    for seed in range(6):
        assert len(story_of(small, "m", max_images=8, seed=seed).images) <= 3
    full = story_of(small, "m", num_images=3, max_text_tokens=50)  # room is kept for pictures
    assert len(full.images) == 3


def test_single_pictures_follow_prompt_and_seed(pipeline):
    first, again = (generate_image(pipeline, "mia the fox", seed=1) for _ in range(2))
    assert first.size == (16, 16) and first.tobytes() == again.tobytes()
    many = generate_image(pipeline, ["she", "mia the fox"], seed=0)
    assert many[1].tobytes() == first.tobytes()
    assert generate_image(pipeline, []) == []
    with pytest.raises(ValueError, match="temperature"):
        generate_image(pipeline, "mia", temperature=-1.0)
    # The first page of a story and a single picture are one task.
    sampler = pipeline.sampler.first_page
    page = story_of(pipeline, "", page_texts=["mia"], guidance_scale=sampler.guidance_scale)
    assert generate_image(pipeline, "mia", seed=0).tobytes() == page.images[0].tobytes()


def test_story_saves_json_and_pictures(pipeline, tmp_path):
    story = story_of(pipeline, num_images=2)
    path = story.save(tmp_path / "new" / "story.json")
    content = json.loads(path.read_text())
    assert [next(iter(part)) for part in content["parts"]] == ["text", "image"] * 2
    assert content["settings"]["seed"] == 0
    with Image.open(path.parent / content["parts"][1]["image"]) as saved:
        assert saved.tobytes() == story.images[0].tobytes()
    with pytest.raises(ValueError, match="story.pdf"):
        story.save(tmp_path / "story.pdf")
    tokens = encode_image(pipeline, story.images[0])
    assert tokens.codes is not None
