"""Chains of blocks as a GPU repeats them: all that differs from block to block lies in tensors."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pipelines import tiny_pipeline
from torch import Tensor

from unimm.generation import generate, graphs
from unimm.nn import recorded
from unimm.nn.recorded import Recorder, unrecorded


class Replays:
    """A recording on a CPU: the function, called again on the recording's own tensors."""

    def __init__(self, function: Callable[..., Any], buffers: Any, outputs: Any) -> None:
        self.function, self.buffers, self.outputs, self.count = function, buffers, outputs, 0

    def __call__(self) -> None:
        self.count += 1
        for kept, found in zip(self.outputs, self.function(*self.buffers), strict=True):
            kept.copy_(found)


@pytest.fixture
def recordings(monkeypatch) -> list[Replays]:
    """Recordings that are made, of functions that come for the second time, as on a GPU."""
    made: list[Replays] = []

    def record(_: Recorder, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
        buffers = tuple(x.clone() for x in inputs)
        outputs = function(*(x.clone() for x in inputs))
        made.append(Replays(function, buffers, outputs))
        return recorded._Graph(made[-1], buffers, outputs)  # pyright: ignore

    monkeypatch.setattr(recorded, "_can_record", lambda x: recorded._is_on)
    monkeypatch.setattr(Recorder, "_record", record)
    monkeypatch.setattr(graphs, "_is_kept", lambda cache: True)
    monkeypatch.setattr(graphs, "BUCKET", 16)
    return made


def codes(pipeline: Any, prompts: list[Any], **options: Any) -> list[list[Any]]:
    stories: Any = generate(pipeline, prompts, seed=1, max_text_tokens=4, **options)
    tokens = [[getattr(x, "codes", None) for x in story.tokens] for story in stories]
    return [[x.tolist() for x in row if x is not None] for row in tokens]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 9}, {"num_previews": 2}])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize(("batch_size", "together"), [(1, 1), (3, 1), (1, 4)])
def test_recorded_chains_draw_the_same_codes(
    recordings, batch_size, guidance, options, together, monkeypatch
):
    monkeypatch.setattr(recorded, "TOGETHER", together)
    pipeline = tiny_pipeline(seed=2)  # its greedy pictures depend on the prompt
    options = options | {"guidance_scale": guidance, "image_guidance_scale": 1.0}
    first, second = (
        {"page_texts": [[text]] * batch_size, "top_p": top_p}
        for text, top_p in (("she finds", 1.0), ("a red fox", 0.4))
    )
    with unrecorded():
        expected = [codes(pipeline, [""] * batch_size, **x, **options) for x in (first, second)]
    assert not recordings and expected[0] != expected[1]
    for _ in range(2):  # another picture in between, too: nothing of it stays behind
        found = [codes(pipeline, [""] * batch_size, **x, **options) for x in (first, second)]
        assert found == expected
    chains = [x for x in recordings if not x.outputs]
    # For each sampling one up to the bucket's end and one behind it; their first blocks run before.
    launches = sum(x.count for x in chains)
    if together == 1:
        assert len(chains) == 4 and launches == 4 * 16 - 4
    else:
        assert launches < 4 * 16 / 2, "several blocks are one launch"


def test_documents_in_different_phases_draw_the_same_codes(recordings):
    """Two groups of samplings and documents that leave: rows that are not neighbours."""
    pipeline = tiny_pipeline()
    picture = generate(pipeline, "mia", num_images=1, max_text_tokens=0, seed=9).tokens[-1]
    prompts: list[Any] = [["mia"], [picture, "she"], ["is happy"]]
    options = {"num_images": [2, 3, 1], "guidance_scale": 1.5, "image_guidance_scale": 1.3}
    recordings.clear()
    with unrecorded():
        expected = codes(pipeline, prompts, **options)
    assert [len(x) for x in expected] == [2, 4, 1]
    for _ in range(3):
        assert codes(pipeline, prompts, **options) == expected
    assert any(x.count for x in recordings if not x.outputs)


def test_repeats_go_on_from_what_the_tensors_hold(recordings):
    recorder, told = Recorder(), []

    def step(total: Tensor, at: Tensor, added: Tensor) -> None:
        total.add_(added.index_select(0, at)[0])
        at.add_(1)

    for call in range(1, 4):
        total, at = torch.tensor(float(call)), torch.zeros(1, dtype=torch.int64)
        added = torch.arange(5.0) * call
        for times in (2, 3):
            recorder.repeat("sum", step, times, total, at, added, after=lambda: told.append(1))
        assert float(total) == call + 10 * call and int(at) == 5
    assert len(told) == 15 and len(recordings) == 1 and recordings[0].count == 14
