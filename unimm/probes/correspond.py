"""Correspondence without training: points of one picture found again in another (DIFT).

A point's feature is compared with every place of the other picture by cosine (Tang et al., 2023).
Layer and timestep are chosen on the validation pairs. Legend: ``P`` pairs, ``K`` points, ``S``
side.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unimm.data.labelled.sets import LabelledPictures
from unimm.metrics.correspondence import keypoint_hits, summarise_hits
from unimm.probes.plots import heat_map
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult
from unimm.probes.spec import FeatureSpec


@dataclass(frozen=True, kw_only=True)
class CorrespondConfig(ProbeConfig):
    """Correspondence.

    Attributes:
        source: of the features.
        layers: of the grid; empty is all.
        timesteps: of the grid.
        num_noises: that features are averaged over; DIFT takes 8.
        condition: text beside the picture.
        alpha: how near a point must be, as a share of the box's larger side.
    """

    name: ClassVar[str] = "correspond"

    source: str = "denoiser"
    layers: tuple[int, ...] = ()
    timesteps: tuple[float, ...] = (0.02, 0.1, 0.2, 0.4, 0.6)
    num_noises: int = 8
    condition: str = ""
    alpha: float = 0.1

    def run(self, bench: Bench) -> ProbeResult:
        """Choose a cell, score it on the test pairs, then the controls."""
        cell = self._best_cell(bench, self.source)
        table = {"features": self._row(bench, cell)}
        rivals = [("random network", bench.at_random(self.source), self.source)]
        if self.source != "encoder" and "encoder" in bench.model.sources:
            rivals.append(("image tokenizer's encoder", bench, "encoder"))
        rivals.append(("raw patches", bench, "pixels"))
        for name, other, source in rivals:
            table[name] = self._row(other, self._best_cell(other, source))
        table |= {"same place": self._same_place(bench), "chance": self._chance(bench)}
        is_inside = len(cell.times) > 2 and cell.spec.timestep not in (
            cell.times[0],
            cell.times[-1],
        )
        test = bench.data.test
        return ProbeResult(
            table=table,
            controls=tuple(name for name in table if name != "features"),
            score="per point",
            figures={
                "grid": cell.rows,
                "best timestep inside the grid": is_inside,
                "pairs": len(test.need("pairs")),
                "alpha": self.alpha,
            },
            pictures={
                "grid": heat_map(
                    [list(row.values()) for row in cell.rows.values()],
                    rows=[f"layer {name}" for name in cell.rows],
                    columns=[f"t {t:g}" for t in cell.times],
                    title=f"PCK@{self.alpha:g} a point: {bench.data.name}",
                )
            },
        )

    def _best_cell(self, bench: Bench, source: str) -> "_Cell":
        network = bench.model.source(source)
        is_probed = source == self.source
        layers = self.layers if is_probed and self.layers else tuple(range(network.num_layers))
        times = self.timesteps if network.is_noisy else self.timesteps[:1]
        part = bench.data.validation
        rows: dict[str, dict[str, float]] = {str(layer): {} for layer in layers}
        best, found = None, -1.0
        for t in times:
            spec = FeatureSpec(
                source=source,
                timestep=t,
                num_noises=self.num_noises,
                condition=self.condition,
            )
            maps = bench.features(part.pixels, spec, layers)
            for layer, features in zip(layers, maps, strict=True):
                right = score_maps(bench, part, features, self.alpha)["per point"]
                rows[str(layer)][f"{t:g}"] = round(right, 4)
                if right > found:
                    best, found = (spec, layer), right
        assert best is not None
        bench.tell(f"{bench.model.name}, {source}: PCK {found:.3f} on the validation pairs")
        return _Cell(*best, rows, times)

    def _row(self, bench: Bench, cell: "_Cell") -> dict[str, Any]:
        part = bench.data.test
        (features,) = bench.features(part.pixels, cell.spec, (cell.layer,))
        scores = score_maps(bench, part, features, self.alpha)
        row: dict[str, Any] = {name: round(value, 4) for name, value in scores.items()}
        return row | {"layer": cell.layer, "timestep": cell.spec.timestep}

    def _same_place(self, bench: Bench) -> dict[str, float]:
        """Points are taken to be where they were."""
        part = bench.data.test
        source = part.need("pairs")[:, 0]
        scores = score_found(part, part.need("keypoints")[source], self.alpha)
        return {name: round(value, 4) for name, value in scores.items()}

    def _chance(self, bench: Bench) -> dict[str, float]:
        """A random place of the picture."""
        part = bench.data.test
        shape = part.need("keypoints")[part.need("pairs")[:, 0]].shape
        generator = torch.Generator().manual_seed(bench.seed)
        guess = torch.rand(shape, generator=generator) * part.pixels.shape[-1]
        scores = score_found(part, guess, self.alpha)
        return {name: round(value, 4) for name, value in scores.items()}


class _Cell(NamedTuple):
    """The best of a grid: layer -> timestep -> PCK on the validation pairs."""

    spec: FeatureSpec
    layer: int
    rows: dict[str, dict[str, float]]
    times: tuple[float, ...]


def score_maps(
    bench: Bench, part: LabelledPictures, features: Tensor, alpha: float
) -> dict[str, float]:
    """PCK of features ``(N, D, h, w)`` over a split's pairs."""
    found: list[Tensor] = []
    for pairs in part.need("pairs").split(32):
        source, target = (features[i].to(bench.device).float() for i in pairs.unbind(1))
        points = part.need("keypoints")[pairs[:, 0]].to(bench.device)
        found.append(match_points(source, target, points, part.pixels.shape[-1]).cpu())
    return score_found(part, torch.cat(found), alpha)


def score_found(part: LabelledPictures, found: Tensor, alpha: float) -> dict[str, float]:
    """PCK of points ``(P, K, 2)`` that were found in the second picture of each pair."""
    source, target = part.need("pairs").unbind(1)
    points, seen = part.need("keypoints"), part.need("is_visible")
    hits = keypoint_hits(found, points[target], part.need("boxes")[target], alpha=alpha)
    return summarise_hits(hits, seen[source] & seen[target])


def features_at(maps: Tensor, points: Tensor, side: int) -> Tensor:
    """Features of points: maps ``(P, D, h, w)``, points ``(P, K, 2)`` in pixels, to ``(P, D, K)``.

    Their length is 1.
    """
    where = (2 * points / side - 1)[:, :, None]  # (P, K, 1, 2) in [-1, 1]
    found = functional.grid_sample(maps, where, align_corners=False, padding_mode="border")
    return functional.normalize(found[..., 0], dim=1)


def match_points(source: Tensor, target: Tensor, points: Tensor, side: int) -> Tensor:
    """Find points of one picture in another.

    Args:
        source: ``(P, D, h, w)`` features of the pictures that points are given in.
        target: the same of the pictures that they are looked for in.
        points: ``(P, K, 2)`` x and y in pixels.
        side: S of the pictures.

    Returns:
        ``(P, K, 2)`` the middles of the most similar pixels.
    """
    asked = features_at(source, points, side)  # (P, D, K)
    grown = functional.interpolate(target, size=(side, side), mode="bilinear")
    grown = functional.normalize(grown, dim=1).flatten(2)  # (P, D, S S)
    best = torch.einsum("pdk,pdn->pkn", asked, grown).argmax(-1)  # (P, K)
    rows = torch.div(best, side, rounding_mode="floor")
    return torch.stack([best % side, rows], dim=-1).float() + 0.5
