"""A linear probe on one's own pictures in one call."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unimm.pipeline import Pipeline
from unimm.probes.features import extract_features
from unimm.probes.heads import Classifier, Features, LinearConfig, accuracy, fit_linear
from unimm.probes.spec import FeatureModel, FeatureSpec


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A classifier on the features of a frozen model.

    Attributes:
        model: that is looked with.
        spec: which features.
        head: the classifier.
        validation_accuracy: share right of the pictures that were held back.
    """

    model: Pipeline | FeatureModel
    spec: FeatureSpec
    head: Classifier
    validation_accuracy: float

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> Tensor:
        """Classes ``(N,)`` of pictures ``(N, 3, H, W)`` in [-1, 1]."""
        return self.head.logits(_features(self.model, pixels, self.spec)).argmax(-1)


def fit_probe(
    pipeline: Pipeline | FeatureModel,
    pixels: Tensor,
    labels: Tensor,
    spec: FeatureSpec | None = None,
    *,
    config: LinearConfig | None = None,
    validation_share: float = 0.2,
    seed: int = 0,
) -> FittedProbe:
    """Fit a linear classifier to pooled features.

    Args:
        pipeline: of ``load_pipeline``, or a ``FeatureModel``.
        pixels: ``(N, 3, H, W)`` float in [-1, 1].
        labels: ``(N,)`` int64 from 0.
        spec: which features; by default the denoiser's last layer, averaged over places.
        config: of the training.
        validation_share: of the pictures, held back to choose the learning rate.
        seed: of the choice and the training.

    Raises:
        ValueError: if labels and pictures do not match, or none would be left to learn from.
    """
    if labels.ndim != 1 or len(labels) != len(pixels) or labels.is_floating_point():
        raise ValueError(
            f"{len(pixels)} pictures need as many whole-number labels, got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    num_held = round(validation_share * len(pixels))
    if not 0 < num_held < len(pixels):
        raise ValueError(
            f"validation_share {validation_share} of {len(pixels)} leaves one part empty"
        )
    spec = spec or FeatureSpec(pool="mean")
    x = _features(pipeline, pixels, spec)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held, learned = order[:num_held].to(x.device), order[num_held:].to(x.device)
    y = labels.to(x.device)
    validation = Features(x[held], y[held])
    config = config or LinearConfig(num_steps=2000)
    head = fit_linear(
        Features(x[learned], y[learned]), validation, int(labels.max()) + 1, config, seed=seed
    )
    right = accuracy(head.logits(validation.x), validation.y)
    return FittedProbe(model=pipeline, spec=spec, head=head, validation_accuracy=right)


def _features(model: Pipeline | FeatureModel, pixels: Tensor, spec: FeatureSpec) -> Tensor:
    """``(N, D)``; maps that are not pooled are put flat."""
    return torch.cat([extract_features(model, x, spec).flatten(1) for x in pixels.split(256)])
