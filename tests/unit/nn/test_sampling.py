import pytest
import torch

from unimm.nn.sampling import SamplingConfig, filter_logits, guide, sample_from_logits

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"guidance_scale": -1.0},
    ],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SamplingConfig(**options)


def test_greedy_takes_the_likeliest_whatever_the_number():
    uniform = torch.tensor([0.999])
    assert sample_from_logits(LOGITS, uniform, SamplingConfig(temperature=0.0)).tolist() == [0]


def test_tokens_come_at_their_probability():
    uniform = (torch.arange(1000) + 0.5) / 1000
    drawn = sample_from_logits(LOGITS.expand(1000, -1), uniform, SamplingConfig())
    shares = torch.bincount(drawn, minlength=4) / 1000
    torch.testing.assert_close(shares, LOGITS.exp()[0], atol=2e-3, rtol=0)


def test_temperature_sharpens():
    sharp = filter_logits(LOGITS, SamplingConfig(temperature=0.5)).softmax(-1)
    squares = LOGITS.exp() ** 2
    torch.testing.assert_close(sharp, squares / squares.sum())


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, 2),
        ({"top_k": 9}, 4),
        ({"top_p": 0.5}, 1),
        ({"top_p": 0.51}, 2),
        ({"top_p": 0.96}, 4),
        ({"top_k": 3, "top_p": 0.81}, 2),
    ],
)
def test_filters_keep_the_likeliest(options, kept):
    filtered = filter_logits(LOGITS, SamplingConfig(**options))
    assert filtered.isfinite().sum() == kept
    assert filtered.isfinite()[0, :kept].all()


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-24])
def test_dropped_tokens_never_come(uniform):
    logits = torch.full((1, 100), float("-inf"))
    logits[0, [3, 50]] = torch.tensor([1.0, 1.0])
    assert int(sample_from_logits(logits, torch.tensor([uniform]), SamplingConfig())) in (3, 50)


def test_guidance_goes_away_from_the_unconditional():
    outputs = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert guide(outputs, [2.0]).tolist() == [[2.0, 1.0]]
    assert guide(outputs[:1], []).tolist() == [[1.0, 2.0]]


def test_each_guidance_scale_adds_its_own_push():
    outputs = torch.tensor([[5.0], [1.0], [3.0]])  # whole, without text, without pictures
    assert guide(outputs, [2.0, 1.5]).tolist() == [[1 + 2 * (5 - 1) + 0.5 * (5 - 3)]]
    both = SamplingConfig(guidance_scale=2.0, image_guidance_scale=1.5)
    assert both.scales == (2.0, 1.5) and SamplingConfig(image_guidance_scale=3.0).scales == (3.0,)


@pytest.mark.parametrize("options", [{"top_k": 7}, {"top_k": 20, "top_p": 0.6}, {"top_p": 0.6}])
def test_drawing_among_the_likeliest_is_drawing_from_the_filtered(options):
    generator = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(500, 64, generator=generator), torch.rand(500)
    config = SamplingConfig(temperature=0.8, **options)
    cumulative = filter_logits(logits, config).softmax(-1).double().cumsum(-1)
    whole = (cumulative <= uniform.double()[:, None] * cumulative[:, -1:]).sum(-1)
    assert torch.equal(sample_from_logits(logits, uniform, config), whole)
