"""Masked prediction: what is hidden, what counts, and the order in which codes are shown."""

import itertools
import math

import pytest
import torch
from helpers import SPEC, tiny_model

from unimm.document import ImageTokens
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.masked import Masked, MaskedConfig, hidden_counts


def tiny_masked() -> Masked:
    objective = tiny_model("masked").objective("masked")
    assert isinstance(objective, Masked)
    return objective


def pictures(count: int, side: int = 4) -> ImageTokens:
    generator = torch.Generator().manual_seed(0)
    return ImageTokens(codes=torch.randint(24, (count, side, side), generator=generator))


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def test_the_hidden_share_follows_the_cosine() -> None:
    draw = tiny_masked().draw(pictures(4000), seeds(4000))
    counts = draw.is_hidden.sum(1)
    assert int(counts.min()) >= 1
    # P(share <= x) = 1 - (2 / pi) arccos(x)
    for x in (0.25, 0.5, 0.75):
        expected = 1 - 2 / math.pi * math.acos(x)
        assert float((counts <= 16 * x).float().mean()) == pytest.approx(expected, abs=0.03)
    each = draw.is_hidden.float().mean(0)
    assert float(each.max() - each.min()) < 0.06  # no position is preferred


def test_a_pictures_mask_depends_on_its_seed_alone() -> None:
    objective = tiny_masked()
    together = objective.draw(pictures(3), seeds(3)).is_hidden
    alone = objective.draw(pictures(3)[2:], seeds(3)[2:]).is_hidden
    assert torch.equal(together[2:], alone)


def test_only_hidden_codes_are_learned_and_none_of_them_is_seen() -> None:
    objective, tokens = tiny_masked(), pictures(5)
    draw = objective.draw(tokens, seeds(5))
    loss = objective.loss(torch.randn(5 * 16, 32), draw).view(5, 16)
    assert torch.equal(loss > 0, draw.is_hidden)
    inputs = objective.embed(draw).view(5, 16, 32) - objective.position.weight
    mask = objective.embedding.weight[SPEC.codebook_size]
    assert torch.equal(torch.isclose(inputs, mask, atol=1e-5).all(-1), draw.is_hidden)


def test_the_mean_loss_is_nats_a_hidden_code() -> None:
    objective = tiny_masked()
    objective.head.weight.data.zero_()
    draw = objective.draw(pictures(3000, 4), seeds(3000))
    loss = objective.loss(torch.zeros(3000 * 16, 32), draw)
    # 16 codes round the share up a little: by half a code.
    assert float(loss.detach().mean()) == pytest.approx(
        math.log(24) * (1 + 0.5 / 16 / (2 / math.pi)), 0.03
    )


@pytest.mark.parametrize(("n", "steps"), [(256, 12), (256, 1), (16, 12), (4, 12), (256, 64)])
def test_the_schedule_falls_to_nothing(n: int, steps: int) -> None:
    counts = [n, *hidden_counts(n, steps)]
    assert counts[-1] == 0 and len(counts) <= steps + 1
    assert all(a > b for a, b in itertools.pairwise(counts))
    if n == 256 and steps == 12:
        assert counts[6] == int(256 * math.cos(math.pi / 4))


def drive(objective: Masked, logits: torch.Tensor, sampling: SamplingConfig):
    """Draw one picture whose trunk always gives the same logits; give the inputs of each step."""
    objective.head.weight.data = torch.eye(24, 32)
    hidden = torch.nn.functional.pad(logits, (0, 8))[None]  # (1, 16, 32)
    steps = objective.sample(
        torch.zeros(1, 32),
        generators=seeds(1),
        sampling=sampling,
        embed_codes=lambda codes: codes,
    )
    shown = []
    mask = objective.embedding.weight[SPEC.codebook_size]
    block = next(steps)
    while True:
        assert block.keep == 0 and not block.is_causal
        code = block.x[0] - objective.position.weight
        shown.append(~torch.isclose(code, mask, atol=1e-5).all(-1))
        try:
            block = steps.send(hidden)
        except StopIteration as stop:
            return shown, stop.value.codes.flatten()


@torch.no_grad()
def test_the_surest_codes_are_shown_first_and_stay() -> None:
    logits = torch.zeros(16, 24)
    wanted = torch.arange(16) + 3
    logits[torch.arange(16), wanted] = torch.linspace(12, 4, 16)  # the first position is surest
    shown, codes = drive(tiny_masked(), logits, SamplingConfig(temperature=0.0))
    assert torch.equal(codes, wanted)
    for now, left in zip(shown[1:], hidden_counts(16, 12), strict=False):
        assert torch.equal(now, torch.arange(16) < 16 - left)


@torch.no_grad()
def test_gumbel_noise_loosens_the_order_only_above_temperature_zero() -> None:
    logits = torch.zeros(16, 24)
    logits[:, 5] = torch.linspace(9, 8.9, 16)
    greedy, _ = drive(tiny_masked(), logits, SamplingConfig(temperature=0.0))
    loose, _ = drive(tiny_masked(), logits, SamplingConfig())
    assert torch.equal(greedy[3], torch.arange(16) < int(greedy[3].sum()))
    assert not torch.equal(loose[3], greedy[3])
    assert all(bool((b | ~a).all()) for a, b in itertools.pairwise(loose))


@torch.no_grad()
def test_the_caller_may_choose_the_number_of_steps() -> None:
    logits = torch.zeros(16, 24)
    for num_steps, expected in ((0, 12), (3, 3), (1, 1), (40, 16)):
        shown, _ = drive(tiny_masked(), logits, SamplingConfig(num_steps=num_steps))
        assert len(shown) == expected


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="num_steps must be 1 or more"):
        MaskedConfig(num_steps=0)
