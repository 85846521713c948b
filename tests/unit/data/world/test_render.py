"""Rendering: the truth fits the pixels, and the pixels do not change unnoticed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unimm.data.world.geometry import apparent_size
from unimm.data.world.placement import CARRIED_BY, place
from unimm.data.world.render import FAR, Renderer, pack_scenes
from unimm.data.world.scene import BACKGROUNDS, OBJECTS, Figure, Placed, Scene, sample_rng

GOLDEN = Path(__file__).parent / "golden"
CASTS = (
    ([Figure(kind="fox", headwear="crown")], ()),
    ([Figure(kind="bear", tint="blue", headwear="top hat"), Figure(kind="apple")], ()),
    ([Figure(kind="frog", tint="pink"), Figure(kind="key")], [(1, CARRIED_BY, 0)]),
    ([Figure(kind="car", tint="red"), Figure(kind="tree", size="large")], [(0, "in front of", 1)]),
    ([Figure(kind="cat", style="noto"), Figure(kind="dog", style="noto", headwear="cap")], ()),
    ([Figure(kind=k, style="flat", size="small") for k in ("bee", "bus", "cup", "star")], ()),
)


def golden_scenes() -> list[Scene]:
    return [
        place(sample_rng(0, 0, k), cast, background=BACKGROUNDS[k], relations=relations)
        for k, (cast, relations) in enumerate(CASTS)
    ]


def one(figure: Figure, x=0.5, y=0.9, is_flipped=False, horizon=0.4) -> Scene:
    placed = (Placed(figure=figure, x=x, y=y, is_flipped=is_flipped),)
    return Scene(background="meadow", variant=0, horizon=horizon, camera_height=1.0, placed=placed)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def test_scenes_are_the_golden_ones():
    assert [s.to_json() for s in golden_scenes()] == (
        GOLDEN / "scenes.jsonl"
    ).read_text().splitlines()


@pytest.mark.parametrize("size", [32, 64, 128])
def test_pixels_are_the_golden_ones_within_one_level(renderer, size):
    scenes = [Scene.from_json(line) for line in (GOLDEN / "scenes.jsonl").read_text().splitlines()]
    rgb = renderer.render(scenes, size=size, only_rgb=True).rgb
    drawn = torch.cat([*rgb.permute(0, 2, 3, 1)], dim=1).numpy().astype(int)
    golden = np.asarray(Image.open(GOLDEN / f"{size}.webp").convert("RGB")).astype(int)
    assert np.abs(drawn - golden).max() <= 1


def test_a_scene_does_not_depend_on_its_batch_nor_on_what_was_drawn_before(renderer):
    scenes = golden_scenes()
    together = renderer.render(scenes, size=64)
    fresh = Renderer()
    for k in reversed(range(len(scenes))):
        alone = fresh.render([scenes[k]], size=64)
        assert alone.ids is not None
        assert torch.equal(alone.rgb[0], together.rgb[k])
        assert torch.equal(alone.ids[0], together.ids[k])
    assert torch.equal(renderer.render(scenes, size=64, only_rgb=True).rgb, together.rgb)


def test_sprites_composed_ahead_by_several_processes_are_the_same(renderer):
    scenes = golden_scenes()
    ready = Renderer()
    ready.prepare(scenes, num_workers=2)
    a, b = ready.render(scenes, size=64), renderer.render(scenes, size=64)
    assert torch.equal(a.rgb, b.rgb)
    assert a.keypoints is not None and b.keypoints is not None
    assert torch.equal(a.keypoints, b.keypoints)


def test_no_window_cuts_a_sprite_off(renderer, monkeypatch):
    # Larger windows, as a GPU uses, must give the same pixels.
    scenes = golden_scenes()
    small = [renderer.render(scenes, size=size, only_rgb=True).rgb.int() for size in (32, 64, 128)]
    monkeypatch.setattr("unimm.data.world.windows._QUANTUM", 64)
    for size, rgb in zip((32, 64, 128), small, strict=True):
        large = renderer.render(scenes, size=size, only_rgb=True).rgb.int()
        assert int((large - rgb).abs().max()) <= 1


def test_boxes_hold_the_figure_tightly(renderer):
    for flipped in (False, True):
        scene = one(Figure(kind="chicken", headwear="cap"), x=0.42, is_flipped=flipped)
        render = renderer.render([scene], size=128)
        assert render.ids is not None and render.boxes is not None
        assert render.visibility is not None and render.is_keypoint_seen is not None
        rows, columns = (render.ids[0] == 1).nonzero().T
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(found) - render.boxes[0, 0].numpy()).max() <= 1.5
        assert render.visibility[0, 0] == 1
        assert bool(render.is_keypoint_seen.all())


def test_apparent_size_is_the_height_of_the_face(renderer):
    scene = one(Figure(kind="bear"))
    box = renderer.render([scene], size=128).boxes[0, 0]
    assert float(box[3] - box[1]) == pytest.approx(
        128 * apparent_size(scene, scene.placed[0]), abs=2
    )
    assert float(box[3]) == pytest.approx(0.9 * 128, abs=1)


def test_flipping_mirrors(renderer):
    rgb = renderer.render(
        [one(Figure(kind="chicken")), one(Figure(kind="chicken"), is_flipped=True)], size=64
    )
    assert torch.equal(rgb.ids[0].flip(1), rgb.ids[1])
    x = rgb.keypoints[..., 0]
    assert torch.allclose(x[0] + x[1], torch.tensor(64.0), atol=1e-3)


def test_near_hides_far_whatever_the_order_in_the_scene(renderer):
    near = Placed(figure=Figure(kind="bear", tint="red"), x=0.5, y=0.95)
    far = Placed(figure=Figure(kind="bear", tint="blue"), x=0.55, y=0.75)
    for placed in ((near, far), (far, near)):
        scene = Scene(background="snow", variant=1, horizon=0.4, camera_height=1.0, placed=placed)
        render = renderer.render([scene], size=64)
        k = placed.index(near)
        assert render.visibility[0, k] == 1
        assert 0 < render.visibility[0, 1 - k] < 0.8
        assert not render.is_keypoint_seen[0, 1 - k].all()
        y, x = (render.ids[0] == k + 1).nonzero().T
        assert torch.allclose(render.depth[0, y, x], torch.tensor(1 / 0.55), atol=1e-4)


def test_depth_is_the_ground_plane_and_the_sky_has_none(renderer):
    scene = one(Figure(kind="apple"), horizon=0.4)
    render = renderer.render([scene], size=64)
    row = 50
    assert render.ids[0, row, 0] == 0
    assert float(render.depth[0, row, 0]) == pytest.approx(1 / ((row + 0.5) / 64 - 0.4), rel=1e-4)
    assert not render.validity[0, 0].any() and bool(render.validity[0, row].all())
    assert bool((render.depth[0, 0] == FAR).all())
    assert torch.equal(render.figure_mask, render.ids > 0)


def test_small_pictures_are_the_means_of_large_ones(renderer):
    scenes = golden_scenes()
    large = renderer.render(scenes, size=128, only_rgb=True).rgb.float()
    small = renderer.render(scenes, size=32, only_rgb=True).rgb.float()
    mean = torch.nn.functional.avg_pool2d(large, 4)
    assert float((mean - small).abs().mean()) < 4


def test_many_looks_make_the_atlas_grow():
    renderer = Renderer()
    first = one(Figure(kind="fox"))
    before = renderer.render([first], size=32, only_rgb=True).rgb
    tints = ("red", "orange", "yellow", "green", "blue")
    kinds = [*OBJECTS][:14]
    scenes = [one(Figure(kind=kind, tint=tint)) for kind in kinds for tint in tints]
    rgb = renderer.render(scenes, size=32, only_rgb=True).rgb
    assert len({picture.numpy().tobytes() for picture in rgb}) == len(scenes)
    assert torch.equal(renderer.render([first], size=32, only_rgb=True).rgb, before)


def test_packed_scenes_travel_between_processes_and_split(renderer):
    packed = pickle.loads(pickle.dumps(pack_scenes(golden_scenes())))
    whole = renderer.render_packed(packed, size=32)
    part = renderer.render_packed(packed[2:4], size=32)
    assert len(packed[2:4]) == 2
    assert torch.equal(part.rgb, whole.rgb[2:4]) and torch.equal(part.boxes, whole.boxes[2:4])


def test_an_empty_place_is_a_picture_too(renderer):
    scene = Scene(background="beach", variant=0, horizon=0.34, camera_height=1.0, placed=())
    render = renderer.render([scene], size=32)
    assert render.rgb.float().std() > 10 and not render.figure_mask.any()
    assert render.boxes.shape == (1, 0, 4)


def test_sizes_out_of_range_are_refused(renderer):
    with pytest.raises(ValueError, match="512"):
        renderer.render(golden_scenes()[:1], size=512)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [32, 64, 128])
def test_gpu_draws_what_the_cpu_draws(renderer, size):
    scenes = golden_scenes()
    cpu, gpu = renderer.render(scenes, size=size), Renderer(device="cuda").render(scenes, size=size)
    assert cpu.ids is not None and gpu.ids is not None
    assert int((cpu.rgb.int() - gpu.rgb.cpu().int()).abs().max()) <= 1
    assert float((cpu.ids != gpu.ids.cpu()).float().mean()) < 1e-3
