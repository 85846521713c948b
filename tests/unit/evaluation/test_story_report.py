import json

import numpy as np
import pytest
import torch
from PIL import Image

from unimm.data.world.render import Renderer
from unimm.data.world.splits import Split
from unimm.evaluation import story_drawing
from unimm.evaluation.story_config import StoryRunConfig, StorySampling
from unimm.evaluation.story_drawing import draw_tasks
from unimm.evaluation.story_report import score_stories
from unimm.evaluation.story_runs import render_tasks, save_set, score_set
from unimm.evaluation.story_sets import story_tasks
from unimm.judges.detector import Detector, DetectorConfig
from unimm.model import ModelConfig, UniMM
from unimm.nn.sampling import SamplingConfig
from unimm.nn.transformer import BackboneConfig
from unimm.objectives.base import ImageSpec
from unimm.pipeline import Pipeline
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig
from unimm.tokenizer.quantizer import QuantizerConfig
from unimm.tokenizer.text import TextTokenizer

PLAIN = StorySampling(first_page=SamplingConfig(), later_pages=SamplingConfig())


def tiny_pipeline(max_seq_len: int = 512) -> Pipeline:
    """An untrained model that draws 32 px pictures of 4 x 4 codes."""
    torch.manual_seed(0)
    image = ImageTokenizer(
        ImageTokenizerConfig(
            autoencoder=AutoencoderConfig(
                widths=(16,) * 3, encoder_blocks=(1,) * 3, decoder_blocks=(1,) * 3, num_heads=0
            ),
            quantizer=QuantizerConfig(codebook_size=16, dim=4),
            image_size=32,
        )
    ).eval()
    tasks = story_tasks("words", Split.TRAIN, num=20, seed=0)
    text = TextTokenizer.train((x for task in tasks for x in task.page_texts), vocab_size=300)
    backbone = BackboneConfig(
        dim=32, depth=2, num_heads=2, num_kv_heads=2, ffn_dim=48, max_seq_len=max_seq_len
    )
    model = UniMM(
        ModelConfig(backbone=backbone),
        special=text.special_ids,
        spec=ImageSpec(codebook_size=16, latent_dim=4, grid_size=4),
    ).eval()
    return Pipeline(model=model, text_tokenizer=text, image_tokenizer=image)


def blind_detector() -> Detector:
    torch.manual_seed(0)
    return Detector(DetectorConfig(image_size=32, channels=(8, 8, 8, 8), hidden=8)).eval()


@pytest.mark.parametrize("name", ["words", "picture"])
def test_every_page_is_drawn_and_batches_change_nothing(name: str) -> None:
    pipeline = tiny_pipeline()
    tasks = story_tasks(name, Split.VALIDATION, num=3, seed=1, num_pages=2)
    together = draw_tasks(pipeline, tasks, PLAIN, seed=0, batch_size=3)
    apart = draw_tasks(pipeline, tasks, PLAIN, seed=0, batch_size=1)
    assert [len(story) for story in together] == [2, 2, 2]
    for a, b in zip(together, apart, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    if name == "picture":
        truth = render_tasks(tasks, Renderer(), size=32)
        np.testing.assert_array_equal(np.asarray(together[0][0]), np.asarray(truth[0][0]))


def test_a_story_that_does_not_fit_fails_alone(monkeypatch) -> None:
    tasks = story_tasks("words", Split.VALIDATION, num=3, seed=1, num_pages=2)
    draw = story_drawing._draw

    def draw_all_but_one(pipeline, chunk, *rest):
        if any(task.number == 1 for task in chunk):
            raise ValueError("too long")
        return draw(pipeline, chunk, *rest)

    monkeypatch.setattr(story_drawing, "_draw", draw_all_but_one)
    drawn = draw_tasks(tiny_pipeline(), tasks, PLAIN, seed=0, batch_size=3)
    assert drawn[1] == [None, None]
    assert None not in drawn[0] + drawn[2]
    result = score_set(tasks, drawn, blind_detector())
    assert result.num_failed == 2
    assert not any(score.background for score in result.scores if score.story == 1)


def test_report_has_ceilings_chance_and_failures(tmp_path) -> None:
    config = StoryRunConfig(
        output=str(tmp_path),
        splits=("heldout",),
        sets=("words", "swapped"),
        num_stories=2,
        sampling=PLAIN,
        sweep=(PLAIN, StorySampling(name="cold", first_page=SamplingConfig(temperature=0.0))),
        sweep_stories=2,
        sweep_sets=("words",),
    )
    lines: list[str] = []
    figures = score_stories(tiny_pipeline(1024), blind_detector(), config, tell=lines.append)
    json.dumps(figures, allow_nan=False)
    assert set(figures["sweep"]) == {"default", "cold"}
    row = figures["heldout swapped"]
    assert {"scores", "ceiling", "ceiling after the tokenizer", "chance", "as shown"} <= set(row)
    assert row["failed pictures"] == 0 and row["stories"] == 2
    assert row["scores"]["alone"]["all"]["total"] == 6
    assert "heldout words alone" in figures["headline"]
    assert len((tmp_path / "heldout_words.jsonl").read_text().splitlines()) == 2
    assert Image.open(tmp_path / "heldout_words.png").size[0] > 4 * 160
    assert any("sweep cold" in line for line in lines)


def test_true_pictures_reach_the_grid_with_their_verdict(tmp_path) -> None:
    tasks = story_tasks("pair", Split.VALIDATION, num=2, seed=1)
    pictures = render_tasks(tasks, Renderer(), size=64)
    pictures[1][2] = None
    result = score_set(tasks, pictures, blind_detector())
    assert result.num_failed == 1
    save_set(result, tmp_path, "pair")
    entries = [json.loads(line) for line in (tmp_path / "pair.jsonl").read_text().splitlines()]
    assert entries[1]["seen"][2] is None and entries[0]["scores"][0]["characters"]


def test_bad_sets_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures"):
        StoryRunConfig(sets=("pictures",))
    with pytest.raises(ValueError, match="test"):
        StoryRunConfig(splits=("test",))
    with pytest.raises(ValueError, match="2 or more"):
        story_tasks("swapped", Split.HELDOUT, num=1, seed=0)
