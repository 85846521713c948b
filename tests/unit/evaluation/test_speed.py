"""What drawing costs, against counts by hand."""

import itertools
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from pipelines import tiny_pipeline

from unimm.evaluation import ceilings
from unimm.evaluation.ceilings import Ceilings, measure_ceilings, measure_held_flops
from unimm.evaluation.drawing_cost import Cost, context_cost, count_work
from unimm.evaluation.line_chart import chart_grid, line_chart
from unimm.evaluation.random_models import SIZES, random_pipeline
from unimm.evaluation.roofline import count_matrices, least_seconds
from unimm.nn.sampling import SamplingConfig
from unimm.nn.transformer import Backbone, BackboneConfig
from unimm.objectives import OBJECTIVES

GUIDED = SamplingConfig(guidance_scale=2.0)
# Trunk of tests/helpers.py: queries and outputs, keys and values, three matrices of the MLP.
TRUNK = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
HEAD = 32 * 24
PER_KEY = 2 * 2 * 2 * 8 * 4  # keys and values, 2 layers, 2 heads of 8, float32


def costs(name: str, batch_size: int = 3) -> tuple:
    pipeline = tiny_pipeline(name)
    work, tokens = count_work(pipeline, ["mia"] * batch_size, guidance_scale=2.0)
    cost = Cost(batch_size=batch_size, seconds=1.0, decode_seconds=0.1, work=work, memory_gb=0.0)
    return pipeline, cost, tokens


@pytest.mark.parametrize(
    ("name", "steps"), [("next_token", [1] * 16), ("next_scale", [1, 4, 16]), ("diffusion", [16])]
)
def test_work_is_that_of_the_picture(name, steps):
    pipeline, cost, tokens = costs(name)
    assert cost.work.drawing == steps
    assert cost.work.before == 1 + len(pipeline.text_tokenizer.encode("mia")) + 1  # bos, boi
    assert len(tokens) == 3
    if name == "diffusion":
        assert cost.work.rows == 2 * 3 * cost.work.calls and cost.work.calls >= 10
        assert cost.row()["head evaluations"] == 2 * cost.work.calls


def test_least_time_is_counted_by_hand():
    pipeline, cost, _ = costs("next_token")
    before = cost.work.before
    keys = sum(before + i + 1 for i in range(16))
    only_bytes = least_seconds(pipeline, cost, GUIDED, Ceilings(1.0, 1e30))
    assert only_bytes == 16 * (TRUNK + HEAD) * 4 + 6 * keys * PER_KEY
    only_flops = least_seconds(pipeline, cost, GUIDED, Ceilings(1e30, 1.0))
    assert only_flops == 6 * (16 * 2 * (TRUNK + HEAD) + keys * 4 * 2 * 32)
    unguided = least_seconds(pipeline, cost, SamplingConfig(), Ceilings(1e30, 1.0))
    assert only_flops == 2 * unguided


def test_a_denoiser_is_read_at_every_evaluation():
    pipeline, cost, _ = costs("diffusion")
    head = count_matrices(pipeline.model.objective("diffusion").denoiser)  # pyright: ignore
    found = least_seconds(pipeline, cost, GUIDED, Ceilings(1.0, 1e30))
    trunk = TRUNK * 4 + 6 * (cost.work.before + 16) * PER_KEY
    assert found == trunk + cost.work.calls * head * 4


def test_masked_pictures_do_not_add_up_in_the_cache():
    pipeline, cost, _ = costs("masked")
    assert len(cost.work.drawing) > 1
    found = least_seconds(pipeline, cost, GUIDED, Ceilings(1e30, 1.0))
    each = 2 * (TRUNK + HEAD) + (cost.work.before + 16 + 1) * 4 * 2 * 32
    assert found <= 6 * sum(cost.work.drawing) * each


@pytest.mark.parametrize(("size", "millions"), [("111M", 111), ("343M", 343), ("775M", 775)])
def test_models_have_the_published_sizes(size, millions):
    sizes = SIZES[size]
    config = BackboneConfig(
        dim=sizes.dim,
        depth=sizes.depth,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_heads,
        ffn_dim=sizes.ffn_dim,
    )
    with torch.device("meta"):
        trunk = count_matrices(Backbone(config))
    tables = 2 * sizes.codebook_size * sizes.dim  # the head, and the embedding of codes
    assert (trunk + tables) / 1e6 == pytest.approx(millions, rel=0.01)


def test_random_models_draw_at_every_context_and_leave_the_seed_alone():
    state = torch.get_rng_state()
    pipeline = random_pipeline("nano", device=torch.device("cpu"))
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.any() for parameter in pipeline.model.parameters())
    lengths = [context_cost(pipeline, num_earlier=count)["positions before"] for count in (0, 1, 3)]
    assert [b - a for a, b in itertools.pairwise(lengths)] == [18, 36]
    with pytest.raises(ValueError, match="known: nano"):
        random_pipeline("huge", device=torch.device("cpu"))


def test_objectives_of_the_sizes_are_known():
    assert {type(x.objective) for x in SIZES.values()} <= set(OBJECTIVES.values())


def test_ceilings_are_measured():
    found = measure_ceilings(torch.device("cpu"), torch.float32, repeats=1)
    assert found.bytes_per_second > 1e8 and found.flops_per_second > 1e9


def test_charts_show_every_point_in_order():
    lines = {"a & b": [(64.0, 100.0), (1.0, 2.0)], "c": [(8.0, 9.0)]}
    root = ElementTree.fromstring(line_chart(lines, title="t", x_label="x", y_label="y"))
    space = "{http://www.w3.org/2000/svg}"
    first, second = root.findall(f"{space}polyline")
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in first.attrib["points"].split())
    assert x0 < x1 and y0 > y1  # up is more
    assert len(second.attrib["points"].split()) == 1
    assert len(root.findall(f"{space}circle")) == 3
    words = {text.text for text in root.iter(f"{space}text")}
    assert {"a & b", "c", "t", "x", "y", "1", "8", "64"} <= words
    with pytest.raises(ValueError, match="positive"):
        line_chart({"a": [(1.0, 0.0)]}, title="t", x_label="x", y_label="y")
    with pytest.raises(ValueError, match="positive"):
        line_chart({"a": [(0.0, 1.0)]}, title="t", x_label="x", y_label="y")


def test_a_chart_of_shares_begins_at_nought_and_many_points_have_round_marks():
    line = [(1.0 + number, 0.001 * number) for number in range(300)]
    root = ElementTree.fromstring(
        line_chart({"a": line}, title="t", x_label="x", y_label="y", is_share=True)
    )
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[3:10] == ["0", "0.1", "0.2", "0.3", "1", "2", "5"]
    [curve] = root.findall("{*}polyline")
    points = [[*map(float, x.split(","))] for x in curve.attrib["points"].split()]
    (x0, y0), (x1, y1), (x2, y2) = points[0], points[100], points[200]
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and x1 - x0 > x2 - x1


def test_charts_stand_in_rows():
    chart = line_chart({"a": [(1.0, 2.4), (2.0, 6.9)]}, title="t", x_label="x", y_label="y")
    assert all(f">{tick}<" in chart for tick in (2, 3, 4, 5, 6, 8))  # fine enough for a loss
    root = ElementTree.fromstring(chart_grid([chart] * 3, columns=2))
    places = [(x.attrib["x"], x.attrib["y"]) for x in root.findall("{*}svg")]
    assert places == [("0", "0"), ("640", "0"), ("0", "380")]
    assert root.attrib["viewBox"] == "0 0 1280 760"


def test_a_held_ceiling_is_of_products_that_go_on(monkeypatch):
    """Products run for the time that is asked for, and the later half of them counts."""
    calls, pace = [], iter([1.0, 1.0, 3.0, 3.0])

    def seconds_of(work, *_, **__):
        calls.append(work())
        return [next(pace)]

    monkeypatch.setattr(ceilings, "seconds_of", seconds_of)
    found = measure_held_flops(torch.device("cpu"), torch.float32, seconds=8)
    assert len(calls) == 4 and found == 2 * 1024**3 / 3
