"""Zero-shot: the text after which a model expects the picture best.

The Diffusion Classifier (Li et al., 2023) for what denoises, the likelihood for what predicts
codes, with one pruning for all. Legend: ``N`` pictures, ``C`` candidates of each.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unimm.pipeline import Pipeline
from unimm.probes.features import fit
from unimm.probes.likelihood import Scorer, make_scorer
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult
from unimm.probes.pruning import Ranking, Stage, prune


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig(ProbeConfig):
    """Zero-shot classification of the test pictures.

    Attributes:
        stages: of the pruning; its last number of draws is what all candidates get without it.
        template: makes texts of class names, for sets that have no texts of their own.
        batch_size: pairs of picture and text at once.
        compares_unpaired: also classify with noise of each candidate's own, at equal budget.
    """

    name: ClassVar[str] = "zero_shot"

    stages: tuple[Stage, ...] = (
        Stage(num_draws=4, keep=16),
        Stage(num_draws=8, keep=4),
        Stage(num_draws=32, keep=1),
    )
    template: str = "a {}"
    batch_size: int = 512
    compares_unpaired: bool = True

    def run(self, bench: Bench) -> ProbeResult:
        """Classify with and without pruning, with unpaired noise, and with a random network."""
        if bench.model.pipeline is None:
            raise ValueError(f"{bench.model.name}: zero-shot needs a model of unimm's own")
        texts, candidates = self._candidates(bench)
        labels = bench.data.test.need("labels").to(candidates.device)
        whole = (Stage(num_draws=self.stages[-1].num_draws, keep=1),)

        def classify(name: str, bench: Bench, stages: Any, *, is_paired: bool = True) -> Ranking:
            found = prune(self._scorer(bench, texts, is_paired), candidates, stages)
            right = float((found.choice == labels).float().mean())
            share = round(right, 4)
            table[name] = {"right": share, "evaluations a picture": round(found.evaluations, 1)}
            bench.tell(f"{name}: {share:.3f} right, {found.evaluations:.0f} evaluations a picture")
            return found

        table: dict[str, dict[str, Any]] = {}
        pruned = classify("pruned", bench, self.stages)
        full = classify("all candidates to the end", bench, whole)
        controls = ["random network", "chance"]
        is_random = not getattr(self._scorer(bench, texts[:1], True), "is_sequence", False)
        if self.compares_unpaired and is_random:
            classify("unpaired noise, to the end", bench, whole, is_paired=False)
            controls.append("unpaired noise, to the end")
        network = "denoiser" if "denoiser" in bench.model.sources else "trunk"
        classify("random network", bench.at_random(network), self.stages)
        table["chance"] = {"right": round(1 / candidates.shape[1], 4)}
        agree = float((pruned.choice == full.choice).float().mean())
        return ProbeResult(
            table=table,
            controls=tuple(controls),
            score="right",
            figures={
                "same answer with pruning": round(agree, 4),
                "evaluations with pruning": round(pruned.evaluations / full.evaluations, 4),
                "pictures": len(labels),
                "candidates": candidates.shape[1],
            },
        )

    def _candidates(self, bench: Bench) -> tuple[list[str], Tensor]:
        """All texts once, and ``(N, C)`` which are each picture's."""
        test = bench.data.test
        named = test.candidates or (
            tuple(self.template.format(name) for name in bench.data.classes),
        ) * len(test)
        texts = sorted({text for row in named for text in row})
        number = {text: i for i, text in enumerate(texts)}
        table = torch.tensor([[number[text] for text in row] for row in named])
        return texts, table.to(bench.device)

    def _scorer(self, bench: Bench, texts: list[str], is_paired: bool) -> Scorer:
        pipeline = bench.model.pipeline
        assert isinstance(pipeline, Pipeline)
        pixels = bench.data.test.pixels.to(bench.device).float() / 127.5 - 1
        return make_scorer(
            pipeline,
            fit(pixels, bench.model.image_size),
            texts,
            num_draws=self.stages[-1].num_draws,
            is_paired=is_paired,
            seed=bench.seed,
            batch_size=self.batch_size,
        )
