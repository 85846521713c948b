"""How well a model expects a picture after a text: one interface for every objective.

A *draw* is a part of that measure: for what denoises or is masked one noise, time or mask; for what
is predicted in sequence one stretch of it. Draws add up, so that hopeless texts can be left early.

Legend: ``N`` pictures, ``T`` texts, ``P`` pairs of both, ``J`` draws.
"""

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from unimm.diffusion.path import add_noise, velocity_of
from unimm.document import ImageTokens, mix_seed
from unimm.objectives.diffusion import Diffusion
from unimm.pipeline import Pipeline
from unimm.probes.row_bank import RowBank
from unimm.probes.sources import latents_of_pixels, tell


class Scorer(Protocol):
    """Sums losses of pairs, and counts what that took.

    Attributes:
        num_draws: J.
        evaluations: whole pictures that a network has been run over, so far.
    """

    num_draws: int
    evaluations: float

    def losses(self, rows: Tensor, columns: Tensor, first: int, last: int) -> Tensor:
        """Sum of the losses of draws ``first`` to ``last - 1`` for pairs ``(P,)``: ``(P,)``."""
        ...


def make_scorer(
    pipeline: Pipeline,
    pixels: Tensor,
    texts: Sequence[str],
    *,
    num_draws: int,
    is_paired: bool = True,
    seed: int = 0,
    batch_size: int = 512,
) -> Scorer:
    """A scorer for the model's objective.

    Args:
        pipeline: the model.
        pixels: ``(N, 3, H, W)`` float in [-1, 1] on the model's device.
        texts: T candidates.
        num_draws: J, at most; a picture of fewer blocks has that many.
        is_paired: all texts of a picture meet the same times, noises and masks, so that only what
            the text changes is compared (Li et al., 2023).
        seed: of the draws.
        batch_size: pairs at once.
    """
    objective = pipeline.model.objective(pipeline.drawing.name)
    kind = HeadScorer if isinstance(objective, Diffusion) else TrunkScorer
    return kind(pipeline, pixels, texts, num_draws, is_paired, seed, batch_size)


class HeadScorer:
    """A denoiser head: the velocity's squared error, all texts told once."""

    def __init__(
        self,
        pipeline: Pipeline,
        pixels: Tensor,
        texts: Sequence[str],
        num_draws: int,
        is_paired: bool,
        seed: int,
        batch_size: int,
    ) -> None:
        objective = pipeline.model.objective(pipeline.drawing.name)
        assert isinstance(objective, Diffusion)
        # A GPU computes in bfloat16, as when it draws.
        is_gpu = pipeline.device.type == "cuda"
        self.denoiser = (
            copy.deepcopy(objective.denoiser).bfloat16() if is_gpu else objective.denoiser
        )
        self.x0 = objective.space.standardise(latents_of_pixels(pipeline, pixels))
        dtype = self.denoiser.input.weight.dtype
        self.told = tell(pipeline, objective, texts).to(dtype)  # (T, n, D)
        self.num_draws, self.is_paired, self.batch_size = num_draws, is_paired, batch_size
        self.evaluations = 0.0
        generator = torch.Generator().manual_seed(seed)
        shape = (num_draws, *self.x0.shape[1:])
        self.noise = torch.randn(shape, generator=generator).to(self.x0.device)
        self.times = spread_times(num_draws).to(self.x0.device)
        self._fresh = torch.Generator(self.x0.device).manual_seed(seed)

    @torch.no_grad()
    def losses(self, rows: Tensor, columns: Tensor, first: int, last: int) -> Tensor:
        """Sums over draws, each a noise and a time."""
        total = torch.zeros(len(rows), device=self.x0.device)
        for draw in range(first, last):
            for part in torch.arange(len(rows), device=rows.device).split(self.batch_size):
                x0 = self.x0[rows[part]]
                noise, t = self._draw(draw, x0)
                found = self.denoiser(add_noise(x0, noise, t), t, self.told[columns[part]])
                error = (found.velocity - velocity_of(x0, noise)).square()
                total[part] += error.flatten(1).mean(1)
                self.evaluations += len(part)
        return total

    def _draw(self, draw: int, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and times of some pairs: the same for all, or each pair's own."""
        count = len(x0)
        if self.is_paired:
            return self.noise[draw].expand_as(x0), self.times[draw].expand(count)
        noise = torch.randn(x0.shape, generator=self._fresh, device=x0.device)
        return noise, torch.rand(count, generator=self._fresh, device=x0.device)


class TrunkScorer:
    """Everything that the trunk predicts itself, by the objective's own loss."""

    def __init__(
        self,
        pipeline: Pipeline,
        pixels: Tensor,
        texts: Sequence[str],
        num_draws: int,
        is_paired: bool,
        seed: int,
        batch_size: int,
    ) -> None:
        self.bank = RowBank(pipeline, texts)
        self.objective = self.bank.objective
        self.tokens = pipeline.image_tokenizer.encode(pixels, pipeline.schedule)
        self.is_sequence = self.bank.num_blocks > 1
        self.num_draws = min(num_draws, self.bank.num_blocks) if self.is_sequence else num_draws
        self.is_paired, self.seed, self.batch_size = is_paired, seed, batch_size
        self.evaluations = 0.0

    @torch.no_grad()
    def losses(self, rows: Tensor, columns: Tensor, first: int, last: int) -> Tensor:
        """Sums over draws: masks, noises, or stretches of a sequence."""
        total = torch.zeros(len(rows), device=rows.device)
        for part in torch.arange(len(rows), device=rows.device).split(self.batch_size):
            pictures = self.tokens.map(lambda x, rows=rows[part]: x[rows])
            if self.is_sequence:
                total[part] = self._stretches(columns[part], pictures, first, last)
                continue
            for draw in range(first, last):
                total[part] += self._random(rows[part], columns[part], pictures, draw)
        return total

    def _stretches(self, columns: Tensor, pictures: ImageTokens, first: int, last: int) -> Tensor:
        """Losses of blocks; what comes later is not run."""
        bounds = [
            round(i * self.bank.num_blocks / self.num_draws) for i in range(self.num_draws + 1)
        ]
        blocks = self.bank.block_of_slot
        wanted = (blocks >= bounds[first]) & (blocks < bounds[last])
        num_slots = int((blocks < bounds[last]).sum())
        draw = self.objective.draw(pictures, [torch.Generator()] * len(columns))
        hidden = self.bank.run(columns, pictures, draw, num_slots=num_slots)
        losses = self.objective.loss(hidden.flatten(0, 1), draw).view(len(columns), -1)
        self.evaluations += len(columns) * self.bank.until(num_slots) / self.bank.length
        return losses[:, wanted].sum(1)

    def _random(self, rows: Tensor, columns: Tensor, pictures: ImageTokens, draw: int) -> Tensor:
        seeds = [
            mix_seed(self.seed, row, draw if self.is_paired else draw + 1000 * (1 + column))
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        ]
        settled = self.objective.draw(pictures, [torch.Generator().manual_seed(s) for s in seeds])
        hidden = self.bank.run(columns, pictures, settled)
        self.evaluations += len(columns)
        return self.objective.loss(hidden.flatten(0, 1), settled).view(len(columns), -1).mean(1)


def spread_times(count: int) -> Tensor:
    """Times ``(count,)`` in (0, 1) of which every first few are spread over the whole interval.

    Van der Corput's sequence: bits of the number, mirrored.
    """
    times: list[float] = []
    for i in range(1, count + 1):
        value, share = 0.0, 0.5
        while i:
            value, share, i = value + share * (i & 1), share / 2, i >> 1
        times.append(value)
    return torch.tensor(times)
