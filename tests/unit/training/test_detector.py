import json

import numpy as np
import pytest
import torch

from unimm.data.world.render import Renderer
from unimm.evaluation.calibration import calibrate
from unimm.judges.detector import Detector, DetectorConfig
from unimm.judges.folder import load_detector
from unimm.judges.labels import scene_indices
from unimm.training.detector import DetectorRunConfig, learning_rate, train_detector
from unimm.training.detector_loss import detector_loss
from unimm.training.detector_scenes import (
    SceneJob,
    pack_batch,
    render_batch,
    rendered_batches,
    sample_batch,
    sample_scenes,
)

SMALL = DetectorConfig(image_size=64, channels=(16, 24, 32, 32), hidden=48)
SCENES = {"styles": ("3d",), "shares": (1.0,)}


def test_one_batch_overfits_until_it_is_seen_exactly() -> None:
    torch.manual_seed(0)
    scenes = sample_scenes(seed=0, start=0, num=40, **SCENES)
    scenes = [scene for scene in scenes if len(scene.placed) <= 2][:6]
    renderer = Renderer()
    rgb, labels = render_batch(pack_batch(scenes), renderer, size=64)
    pixels, generator = rgb.float() / 127.5 - 1, torch.Generator().manual_seed(0)
    detector = Detector(SMALL)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=4e-3)
    for _ in range(150):
        loss, parts = detector_loss(detector, detector(pixels), labels, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.parameters())
    assert float(parts["kind"]) < 0.1
    table = calibrate(detector.eval(), renderer, scenes)
    assert table.attributes()["kind"] > 0.9, table.attributes()
    assert table.attributes()["found"] > 0.9


def test_run_writes_weights_and_log(tmp_path) -> None:
    config = DetectorRunConfig(
        detector=SMALL, output=str(tmp_path), batch_size=4, max_steps=3, max_minutes=5, ring_size=2
    )
    torch.manual_seed(0)
    renderer = Renderer()
    fresh = rendered_batches(
        lambda batch: render_batch(batch, renderer, size=64),
        seed=1,
        batch_size=4,
        num_batches=2,  # then None: the ring is enough
        style_shares={"3d": 0.5, "noto": 0.5},
        num_workers=0,
    )
    detector = train_detector(config, fresh, generator=torch.Generator().manual_seed(0))
    assert not detector.training
    entry = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert {"step", "loss", "heat", "kind", "background"} <= set(entry)
    again = load_detector(tmp_path)
    assert again.config == SMALL


def test_batches_are_a_function_of_the_job() -> None:
    job = SceneJob(5, 3, 6, ("3d", "flat"), (0.5, 0.5))
    first, second = sample_batch(job), sample_batch(job)
    np.testing.assert_array_equal(first.packed.x, second.packed.x)
    np.testing.assert_array_equal(first.attributes, second.attributes)
    other = sample_batch(job._replace(index=4))
    assert not np.array_equal(first.attributes[:, 0], other.attributes[:, 0])


def test_labels_lie_on_the_figures() -> None:
    scenes = sample_scenes(seed=2, start=0, num=8, **SCENES)
    rgb, labels = render_batch(pack_batch(scenes), Renderer(), size=64)
    assert rgb.shape == (8, 3, 64, 64) and rgb.dtype == torch.uint8
    attributes, _ = scene_indices(scenes, labels.boxes.shape[1])
    assert torch.equal(labels.attributes, torch.from_numpy(attributes))
    for row, scene in enumerate(scenes):
        for slot, placed in enumerate(scene.placed):
            left, top, right, bottom = labels.boxes[row, slot].tolist()
            assert left < placed.x < right and top < placed.y - 0.02 < bottom + 0.05


def test_rate_rises_then_falls() -> None:
    config = DetectorRunConfig(warmup=0.1)
    rates = [learning_rate(p, config) for p in (0.0, 0.05, 0.1, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] == config.lr > rates[3] > rates[4] > 0


def test_bad_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size 1"):
        DetectorRunConfig(batch_size=1)
    with pytest.raises(ValueError, match="style_shares"):
        DetectorRunConfig(style_shares={})
