"""Stories on a GPU: half precision, the same API."""

import pytest
import torch
from pipelines import tiny_pipeline

import unimm
from unimm.evaluation.drawing_cost import count_work
from unimm.evaluation.launches import count_launches
from unimm.generation import CachePolicy, graphs
from unimm.generation.cached_rows import CachedRows
from unimm.generation.graphs import StepGraphs
from unimm.nn.kv_cache import KVCache
from unimm.nn.recorded import unrecorded
from unimm.objectives import OBJECTIVES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_story_is_drawn_and_repeats(dtype, name, tmp_path):
    tiny_pipeline(name).save_pretrained(tmp_path)
    pipeline = unimm.load_pipeline(tmp_path, device="cuda", dtype=dtype)
    prompts = ["mia the fox", "she", ""]
    first, again = (
        unimm.generate_story(pipeline, prompts, num_images=2, seed=0, max_text_tokens=8)
        for _ in range(2)
    )
    for story, other in zip(first, again, strict=True):
        assert len(story.images) == 2
        assert story.texts == other.texts
        assert [x.tobytes() for x in story.images] == [x.tobytes() for x in other.images]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_mixed_guided_and_long_documents_are_drawn_and_repeat(name, tmp_path):
    """Three branches, documents of other kinds in one batch, and pages that leave the cache."""
    tiny_pipeline(name).save_pretrained(tmp_path)
    pipeline = unimm.load_pipeline(tmp_path, device="cuda", dtype=torch.float32)
    picture = unimm.generate_image(pipeline, "mia", seed=1)
    first, again = (
        unimm.generate(
            pipeline,
            [["mia"], [picture, "she"], [picture, "is happy"]],
            num_images=[5, 0, 2],
            seed=0,
            max_text_tokens=8,
            guidance_scale=1.5,
            image_guidance_scale=1.3,
            cache_policy=CachePolicy(window_pages=1),
            num_previews=2,
        )
        for _ in range(2)
    )
    for story, other in zip(first, again, strict=True):
        assert story.texts == other.texts
        assert [x.tobytes() for x in story.images] == [x.tobytes() for x in other.images]
    assert [len(story.images) for story in first] == [5, 1, 3]


@pytest.mark.parametrize("name", ["next_token", "diffusion", "transfusion"])
def test_float32_draws_the_cpus_greedy_picture(name, tmp_path):
    tiny_pipeline(name).save_pretrained(tmp_path)
    pictures = [
        unimm.generate_image(
            unimm.load_pipeline(tmp_path, device=device, dtype=torch.float32),
            "mia the fox",
            temperature=0.0,
        )
        for device in ("cpu", "cuda")
    ]
    levels = [torch.tensor(list(x.tobytes())).float() for x in pictures]
    torch.testing.assert_close(levels[0], levels[1], atol=2.0, rtol=0)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("batch_size", [1, 3])
def test_recorded_and_fused_steps_draw_the_layers_greedy_picture(name, batch_size, monkeypatch):
    pipeline = tiny_pipeline(name).to("cuda", torch.float32)
    options = {"page_texts": [["mia the fox"]] * batch_size, "temperature": 0.0, "seed": 1}
    options["guidance_scale"] = 1.5

    def draw() -> list[torch.Tensor]:
        stories = unimm.generate(pipeline, [""] * batch_size, **options)
        return [story.tokens[-1].codes for story in stories]

    with monkeypatch.context() as patch, unrecorded():
        patch.setattr(graphs, "can_fuse", lambda *_: False)
        expected = draw()
    for _ in range(3):  # runs itself, is recorded, is repeated
        assert all(map(torch.equal, draw(), expected))


@pytest.mark.parametrize(("num_new", "is_causal"), [(1, True), (4, False)])
def test_recorded_steps_equal_eager_ones(num_new, is_causal):
    model = tiny_pipeline(max_seq_len=640).model.to("cuda")
    config = model.config.backbone
    eager, recorded = (
        KVCache(
            depth=config.depth,
            num_rows=3,
            num_kv_heads=config.num_kv_heads,
            max_length=640,
            head_dim=config.head_width,
            device="cuda",
        )
        for _ in range(2)
    )
    steps = StepGraphs(model.backbone, recorded)
    generator = torch.Generator("cuda").manual_seed(0)
    rows = [1, 2]
    for cache in (eager, recorded):
        cache.advance(rows, [0, 250])  # one row lies behind, the other passes a bucket's end
    with torch.inference_mode():
        for step in range(9):
            x = torch.randn(2, num_new, config.dim, device="cuda", generator=generator)
            positions = torch.full((2, num_new, 3), step, device="cuda")
            view = eager.view(rows, num_new, is_causal=is_causal)
            expected = model.backbone(x, positions, cache=view)
            found = steps.run(rows, x, positions, is_causal=is_causal)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            for cache in (eager, recorded):
                cache.advance(rows, [num_new, 1])


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_host_waits_for_no_step_of_a_picture(name, monkeypatch):
    pipeline = tiny_pipeline(name).to("cuda")

    def draw() -> None:
        unimm.generate_image(pipeline, "mia the fox", seed=1, guidance_scale=1.5)

    for _ in range(3):  # runs itself, is recorded, is repeated
        draw()
    settle, settled = CachedRows.settle, []

    def may_wait(rows: CachedRows) -> None:  # called behind the last step
        torch.cuda.set_sync_debug_mode("default")
        settled.append(rows)
        settle(rows)

    monkeypatch.setattr(CachedRows, "settle", may_wait)
    torch.cuda.set_sync_debug_mode("error")
    try:
        draw()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert settled


def test_launches_of_a_drawing_are_counted(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    pipeline = unimm.load_pipeline(tmp_path, device="cuda")
    work, _ = count_work(pipeline, ["mia"])
    found = count_launches(pipeline, batch_size=1, trunk_steps=len(work.new))
    # Some steps are graphs: fewer launches than kernels.
    assert found["kernels a step"] > found["launches a step"] > 1
    assert found["busy ms a step"] > 0
