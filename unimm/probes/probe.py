"""What a probe is: settings that run on a bench and give a table that is never without controls.

A new probe is one file with a config, and one line in the registry.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from unimm.data.labelled.sets import LabelledSplits
from unimm.objectives.base import Objective
from unimm.probes.cache import FeatureCache, FeaturesInMemory
from unimm.probes.sources import DENOISING
from unimm.probes.spec import FeatureModel, FeatureSpec


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a probe works on.

    Attributes:
        model: that is probed.
        data: that it is probed with.
        cache: where features come from.
        seed: of heads, controls and noise.
        tell: called with a line for each thing done.
    """

    model: FeatureModel
    data: LabelledSplits
    cache: FeatureCache | FeaturesInMemory
    seed: int = 0
    tell: Callable[[str], None] = print

    @property
    def device(self) -> torch.device:
        """Where heads are trained."""
        return self.model.device

    def features(self, pixels: Tensor, spec: FeatureSpec, layers: tuple[int, ...]) -> list[Tensor]:
        """Features ``(N, D, h, w)`` float16, one a layer.

        Those on disk are read when rows are taken; those in memory are on the model's device.
        """
        maps = self.cache.maps(self.model, pixels, spec, layers)
        return [torch.as_tensor(x) for x in maps]

    def at_random(self, source: str) -> "Bench":
        """The same bench with one network's weights drawn anew."""
        return replace(self, model=self.model.randomise(source, self.seed))


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        table: row -> column -> figure.
        controls: names of the rows that are controls.
        score: column that rows are compared by.
        is_error: less is better there.
        subject: the model's row; empty is the first one.
        ceilings: controls that need not be beaten.
        figures: all else that was measured, plain data.
        pictures: name -> plot.
    """

    table: dict[str, dict[str, Any]]
    controls: tuple[str, ...]
    score: str
    is_error: bool = False
    subject: str = ""
    ceilings: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Image.Image] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in self.controls if name not in self.table]
        if not self.controls or missing:
            raise ValueError(f"a probe must show its controls; missing: {missing or 'all'}")

    def beaten(self) -> dict[str, bool]:
        """Control -> whether the model's row is better; ceilings are left out."""
        own = self.table[self.subject or next(iter(self.table))][self.score]
        others = {
            name: self.table[name][self.score]
            for name in self.controls
            if name not in self.ceilings
        }
        return {name: own < x if self.is_error else own > x for name, x in others.items()}


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Base of the probes' settings.

    Attributes:
        objectives: kinds that it looks at in a model with several, unless told otherwise; the
            first that the model has.
    """

    name: ClassVar[str]
    objectives: ClassVar[tuple[type[Objective[Any]], ...]] = DENOISING

    def run(self, bench: Bench) -> ProbeResult:
        """Probe."""
        raise NotImplementedError
