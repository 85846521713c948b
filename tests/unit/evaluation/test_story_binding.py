"""Pictures follow the name where their likelihood says so."""

import pytest
import torch
from pipelines import tiny_pipeline

from unimm.data.world.splits import Split
from unimm.evaluation.story_binding import (
    BindingConfig,
    named_pages,
    picture_nats,
    score_binding,
    score_words,
    words_nats,
)
from unimm.evaluation.story_sets import story_tasks
from unimm.pictures import encode_image


def test_only_the_name_on_the_last_page_is_exchanged():
    num_pages = 0
    for task in story_tasks("pair", Split.VALIDATION, num=20, seed=3):
        first, second = (x["name"] for x in task.truth["characters"])
        for page, texts, exchanged in named_pages(task):
            num_pages += 1
            assert texts == list(task.page_texts[: page + 1])
            assert texts[:-1] == exchanged[:-1] and texts[-1] != exchanged[-1]
            assert sorted((first in texts[-1], first in exchanged[-1])) == [False, True]
            assert sorted((second in texts[-1], second in exchanged[-1])) == [False, True]
    assert num_pages > 20


@pytest.mark.parametrize("objective", ["next_token", "masked"])
def test_the_last_picture_s_loss_is_that_of_training(objective):
    pipeline = tiny_pipeline(objective)
    tokens = [encode_image(pipeline, torch.rand(3, 16, 16) * 2 - 1) for _ in range(2)]
    texts = ["mia", "she is"]
    given = picture_nats(pipeline, texts, tokens, 1)
    assert given > 0
    assert picture_nats(pipeline, ["mia", "she is"], tokens, 0) > 0
    changed = picture_nats(pipeline, ["mia", "she is"], [tokens[0], tokens[0]], 1)
    assert changed != given
    if objective == "next_token":  # nothing is random: one picture given or drawn, all the same
        assert picture_nats(pipeline, texts, tokens, 0) == pytest.approx(given, rel=1e-4)


def test_the_last_words_loss_is_that_of_their_tokens():
    pipeline = tiny_pipeline()
    picture = encode_image(pipeline, torch.rand(3, 16, 16) * 2 - 1)
    whole = words_nats(pipeline, ["mia", ""], "she is here", [picture])
    first = words_nats(pipeline, ["mia", ""], "she", [picture])
    rest = words_nats(pipeline, ["mia", "she"], " is here", [picture])
    assert 0 < first < whole and first + rest == pytest.approx(whole, rel=1e-4)


def test_a_model_of_random_weights_follows_no_name():
    config = BindingConfig(num_stories=3, sets=("picture pair",), splits=("validation",))
    (row,) = score_binding(tiny_pipeline(), config).values()
    assert row["pages"] > 1 and abs(row["nats"]) < 20
    (words,) = score_words(tiny_pipeline(), config).values()
    assert words["pages"] == row["pages"] and abs(words["nats"]) < 20
    with pytest.raises(ValueError, match="one character"):
        BindingConfig(sets=("words",))
