import pytest
import torch
from pipelines import tiny_pipeline

from unimm.diffusion.path import add_noise, velocity_of
from unimm.objectives import OBJECTIVES
from unimm.probes.documents import lay_out, run_rows
from unimm.probes.likelihood import HeadScorer, make_scorer, spread_times
from unimm.probes.pruning import Stage, prune

TEXTS = ["mia the fox", "she", "a red balloon is happy now"]


def pixels(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def pipelines():
    return {name: tiny_pipeline(name) for name in OBJECTIVES}


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([0, 0, 1, 1]), torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_draws_add_up_and_pairs_are_alone(pipelines, objective):
    """Whatever the batch and wherever one stops: what is left of a prefix is the same."""
    pipeline = pipelines[objective]
    rows, columns = pairs()
    whole = make_scorer(pipeline, pixels(), TEXTS, num_draws=3)
    total = whole.losses(rows, columns, 0, whole.num_draws)
    parts = make_scorer(pipeline, pixels(), TEXTS, num_draws=3, batch_size=1)
    halves = parts.losses(rows, columns, 0, 1) + parts.losses(rows, columns, 1, parts.num_draws)
    assert torch.allclose(total, halves, rtol=1e-4)
    assert total.std() > 0


@pytest.mark.parametrize("objective", ["next_token", "next_scale"])
def test_stretches_sum_to_the_likelihood_and_cost_less(pipelines, objective):
    pipeline = pipelines[objective]
    rows, columns = pairs()
    scorer = make_scorer(pipeline, pixels(), TEXTS, num_draws=100)
    first = scorer.losses(rows, columns, 0, 1)
    assert scorer.evaluations < 4  # of four pairs, the first stretch only
    total = first + scorer.losses(rows, columns, 1, scorer.num_draws)
    tokens = pipeline.image_tokenizer.encode(pixels(), pipeline.schedule)
    chosen = tokens.map(lambda x: x[rows])
    batch = lay_out(pipeline, [TEXTS[i] for i in columns.tolist()], chosen)
    model, slots = pipeline.model, batch.slots[objective]
    draw = model.objective(objective).draw(chosen, [])
    hidden = run_rows(pipeline, batch, draw).flatten(0, 1)[slots.index]
    wanted = model.objective(objective).loss(hidden, draw).view(4, -1).sum(1)
    assert torch.allclose(total, wanted, rtol=1e-4)


def test_the_head_scores_the_velocity(pipelines):
    pipeline = pipelines["diffusion"]
    scorer = make_scorer(pipeline, pixels(), TEXTS, num_draws=2)
    assert isinstance(scorer, HeadScorer)
    rows, columns = pairs()
    found = scorer.losses(rows, columns, 1, 2)
    t, noise = scorer.times[1].expand(4), scorer.noise[1].expand(4, -1, -1, -1)
    x0 = scorer.x0[rows]
    head = pipeline.model.objective("diffusion").denoiser
    velocity = head(add_noise(x0, noise, t), t, scorer.told[columns]).velocity
    wanted = (velocity - velocity_of(x0, noise)).square().mean((1, 2, 3))
    assert torch.allclose(found, wanted, rtol=1e-4)
    assert scorer.evaluations == 4


@pytest.mark.parametrize("objective", ["diffusion", "masked", "transfusion"])
def test_pairing_shares_the_randomness(pipelines, objective):
    """Equal texts are equally likely then, and only then."""
    rows, columns = torch.tensor([0, 0]), torch.tensor([0, 1])
    for is_paired in (True, False):
        scorer = make_scorer(
            pipelines[objective], pixels(), ["she", "she"], num_draws=3, is_paired=is_paired
        )
        a, b = scorer.losses(rows, columns, 0, 3)
        assert torch.allclose(a, b, rtol=1e-5) == is_paired


def test_times_are_spread_from_the_first_on():
    times = spread_times(15)
    assert times[:3].tolist() == [0.5, 0.25, 0.75]
    assert torch.equal(times.sort().values, torch.arange(1, 16) / 16)


class Table:
    """Losses that are known: of 6 pictures, text i is the best for picture i."""

    num_draws = 8

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.noise = 2 * torch.randn(8, 6, generator=generator)  # shared by all texts
        self.evaluations = 0.0

    def losses(
        self, rows: torch.Tensor, columns: torch.Tensor, first: int, last: int
    ) -> torch.Tensor:
        self.evaluations += len(rows) * (last - first)
        distance = (rows - columns).abs().float()
        return torch.stack([self.noise[j, rows] + distance for j in range(first, last)]).sum(0)


def test_pruning_keeps_the_best_and_counts():
    candidates = torch.arange(6).expand(6, -1)
    full = prune(Table(), candidates, [Stage(num_draws=8, keep=1)])
    assert full.choice.tolist() == list(range(6)) and full.evaluations == 48
    stages = [Stage(num_draws=1, keep=3), Stage(num_draws=4, keep=2), Stage(num_draws=8, keep=1)]
    pruned = prune(Table(), candidates, stages)
    assert pruned.choice.tolist() == list(range(6))
    assert pruned.evaluations == 6 + 3 * 3 + 2 * 4
    # Candidates may be another set for each picture.
    shifted = (torch.arange(6)[:, None] + torch.arange(3)) % 6
    assert prune(Table(), shifted, stages).choice.tolist() == [0] * 6


@pytest.mark.parametrize(
    "stages", [[], [(4, 2)], [(4, 2), (2, 1)], [(2, 1), (4, 2), (8, 1)]], ids=str
)
def test_impossible_stages_are_refused(stages):
    with pytest.raises(ValueError, match="must grow in draws"):
        listed = [Stage(num_draws=a, keep=b) for a, b in stages]
        prune(Table(), torch.arange(6).expand(6, -1), listed)


def test_a_denoiser_that_learned_texts_tells_pictures_apart():
    """Four pictures that differ by a faint tint: paired noise finds it, unpaired noise hides it."""
    pipeline = tiny_pipeline("diffusion")
    texts = ["mia", "the fox", "a red balloon", "she is happy"]
    generator = torch.Generator().manual_seed(2)
    tints = torch.rand(4, 3, 1, 1, generator=generator) * 2 - 1
    shown = torch.rand(1, 3, 16, 16, generator=generator) - 0.5 + 0.15 * tints
    _learn(pipeline, texts, shown)

    def choices(stages: list[Stage], *, is_paired: bool = True) -> torch.Tensor:
        scorer = make_scorer(pipeline, shown, texts, num_draws=8, is_paired=is_paired)
        return prune(scorer, torch.arange(4).expand(4, -1), stages).choice

    whole = [Stage(num_draws=8, keep=1)]
    assert choices(whole).tolist() == [0, 1, 2, 3]
    assert choices([Stage(num_draws=3, keep=2), *whole]).tolist() == [0, 1, 2, 3]
    assert choices(whole, is_paired=False).tolist() != [0, 1, 2, 3]


def _learn(pipeline, texts: list[str], shown: torch.Tensor) -> None:
    """Overfit the model on pictures that follow texts."""
    model, objective = pipeline.model, pipeline.model.objective("diffusion")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.div_(4)  # a tiny pipeline's weights are too large to learn quickly from
    tokens = pipeline.image_tokenizer.encode(shown)
    batch = lay_out(pipeline, texts, tokens)
    index = batch.slots["diffusion"].index
    optimizer = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=5e-3)
    for step in range(120):
        generators = [torch.Generator().manual_seed(4 * step + i) for i in range(4)]
        draw = objective.draw(tokens, generators)
        hidden = run_rows(pipeline, batch, draw).flatten(0, 1)[index]
        optimizer.zero_grad()
        objective.loss(hidden, draw).mean().backward()
        optimizer.step()
    model.requires_grad_(False)
