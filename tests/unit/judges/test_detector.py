import numpy as np
import pytest
import torch

from unimm.judges.detector import Detector, DetectorConfig, FeatureMaps, _keep, _peaks
from unimm.judges.folder import load_detector, save_detector
from unimm.judges.labels import VOCABULARY
from unimm.judges.sightings import Detection

TINY = DetectorConfig(image_size=64, channels=(8, 8, 16, 16), hidden=16)


def tiny_detector() -> Detector:
    torch.manual_seed(0)
    return Detector(TINY).eval()


def maps_with(peaks: dict[tuple[int, int, int], tuple[float, float]]) -> FeatureMaps:
    """Maps of one picture, 16 x 16 cells: (group, row, column) -> (logit, side of the box)."""
    heat, box = torch.full((1, 2, 16, 16), -9.0), torch.zeros(1, 8, 16, 16)
    for (group, row, column), (logit, side) in peaks.items():
        heat[0, group, row, column] = logit
        values = torch.tensor([0.5, 0.5, side, side])
        values[2:] = values[2:].log()
        box[0, 4 * group : 4 * group + 4, row, column] = values
    return FeatureMaps(heat, box, torch.zeros(1, 8, 16, 16), torch.zeros(1, 6))


def test_default_detector_is_small() -> None:
    assert sum(p.numel() for p in Detector().parameters()) < 1_000_000


def test_peaks_give_boxes_in_fractions() -> None:
    score, boxes, group = _peaks(maps_with({(1, 4, 8): (3.0, 4.0)}), 3)
    assert group[0, 0] == 1
    assert score[0, 0] > 0.9 > 0.1 > score[0, 1]
    # The middle is cell (8.5, 4.5) of 16, the side 4 cells.
    expected = torch.tensor([6.5, 2.5, 10.5, 6.5]) / 16
    torch.testing.assert_close(boxes[0, 0], expected)


def test_second_sight_of_one_figure_is_dropped_but_not_another_group() -> None:
    maps = maps_with({(0, 8, 8): (3.0, 8.0), (0, 8, 10): (2.0, 8.0), (1, 8, 9): (1.0, 8.0)})
    config = DetectorConfig(max_overlap=0.5)
    score, boxes, group = _peaks(maps, 4)
    assert _keep(score, boxes, group, config).tolist() == [[True, False, True, False]]
    apart = maps_with({(0, 8, 3): (3.0, 6.0), (0, 8, 10): (2.0, 6.0)})
    score, boxes, group = _peaks(apart, 2)
    assert _keep(score, boxes, group, config).all()


def test_characters_are_species_and_objects_are_not() -> None:
    detector = tiny_detector()
    features, boxes = torch.randn(1, 8, 16, 16), torch.tensor([[[0.1, 0.1, 0.6, 0.6]] * 2])
    logits = detector.read_attributes(features, boxes, torch.tensor([[0, 1]]))
    kinds = logits[..., : len(VOCABULARY["kind"])]
    assert (kinds[0, 0].argmax() < 16) and (kinds[0, 1].argmax() >= 16)
    assert kinds[0, 0, 16:].isinf().all() and kinds[0, 1, :16].isinf().all()


def test_objects_wear_nothing() -> None:
    detector = tiny_detector()
    features, boxes = torch.randn(1, 8, 16, 16), torch.tensor([[[0.1, 0.1, 0.6, 0.6]] * 2])
    logits = detector.read_attributes(features, boxes, torch.tensor([[0, 1]]))
    start = len(VOCABULARY["kind"]) + len(VOCABULARY["tint"])
    headwear = logits[0, :, start : start + len(VOCABULARY["headwear"])]
    assert headwear[0].isfinite().all()
    assert headwear[1, 0].isfinite() and headwear[1, 1:].isinf().all()


def test_attributes_are_read_inside_the_box() -> None:
    detector = tiny_detector()
    features, group = torch.randn(1, 8, 16, 16), torch.zeros(1, 1, dtype=torch.long)
    boxes = torch.tensor([[[0.0, 0.0, 0.4, 0.4]]])
    before = detector.read_attributes(features, boxes, group)
    outside, inside = features.clone(), features.clone()
    outside[..., 10:, 10:] += 5
    inside[..., :4, :4] += 5
    torch.testing.assert_close(detector.read_attributes(outside, boxes, group), before)
    assert not torch.allclose(detector.read_attributes(inside, boxes, group), before)


def test_describe_takes_other_sizes_and_folder_keeps_the_answer(tmp_path) -> None:
    detector = tiny_detector()
    with torch.no_grad():
        detector.heat_head.bias.fill_(0.0)  # pyright: ignore[reportOptionalMemberAccess]
    pixels = torch.rand(2, 3, 128, 128) * 2 - 1
    for parameter in detector.parameters():  # what the folder keeps: bfloat16
        parameter.data = parameter.data.bfloat16().float()
    seen = detector.describe(pixels)
    assert len(seen) == 2 and seen[0].detections
    again = load_detector(save_detector(detector, tmp_path)).describe(pixels)
    assert [s.detections for s in again] == [s.detections for s in seen]


def test_bad_pixels_and_folders_are_refused(tmp_path) -> None:
    detector = tiny_detector()
    with pytest.raises(ValueError, match="channels first"):
        detector.detect(torch.zeros(1, 64, 64, 3))
    with pytest.raises(ValueError, match="uint8"):
        detector.detect(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match="255"):
        detector.detect(torch.full((1, 3, 64, 64), 255.0))
    with pytest.raises(ValueError, match="train_detector"):
        load_detector(tmp_path)
    save_detector(detector, tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"fox"', '"unicorn"'))
    with pytest.raises(ValueError, match=r"fox.*unicorn"):
        load_detector(tmp_path)
    more = config.replace('"vocabulary": {', '"vocabulary": {"mood": ["glad"],')
    (tmp_path / "config.json").write_text(more)
    with pytest.raises(ValueError, match=r"'mood'.*glad.*train it again"):
        load_detector(tmp_path)


def test_probability_names_words() -> None:
    sizes = [len(words) for words in VOCABULARY.values()]
    probabilities = np.zeros(sum(sizes))
    probabilities[sizes[0] + VOCABULARY["tint"].index("blue")] = 0.8
    seen = Detection(
        kind="fox",
        tint="blue",
        headwear="none",
        style="3d",
        box=(0, 0, 0.5, 0.5),
        score=1.0,
        probabilities=probabilities,
    )
    assert seen.probability("tint", "blue") == 0.8
    assert seen.probability("kind", "fox") == 0.0
    with pytest.raises(ValueError, match="mauve"):
        seen.probability("tint", "mauve")
