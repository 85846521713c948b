"""Several affine-invariant depth maps of one picture made one (Marigold: Ke et al., 2024).

Legend: ``M`` members, ``B`` pictures, ``H W`` size.
"""

import torch
from torch import Tensor
from torch.nn import functional

_SIDE = 64  # maps are aligned at this size
# Published as .02: then shrinking all members to nothing is the minimum wherever they are noisy,
# and only stopping after two iterations avoids it.
_RANGE_WEIGHT = 1.0
_NUM_ITERATIONS = 40


def ensemble_depth(members: Tensor) -> tuple[Tensor, Tensor]:
    """Align members to each other, then take the median.

    A scale and a shift of each member minimise the root mean square differences of all pairs; a
    small penalty holds the median's range to [0, 1], else all would shrink to nothing.

    Args:
        members: ``(M, B, H, W)``.

    Returns:
        The median ``(B, H, W)`` and how much members differ from it, the median absolute deviation.
    """
    scale, shift = _align(members.float())
    aligned = scale[:, :, None, None] * members.float() + shift[:, :, None, None]
    middle = _median(aligned)
    return middle, _median((aligned - middle).abs())


def _align(members: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and shifts, ``(M, B)`` each."""
    small = functional.interpolate(
        members, size=[min(_SIDE, x) for x in members.shape[2:]], mode="area"
    ).flatten(2)
    low, high = small.amin(-1), small.amax(-1)
    scale = (1 / (high - low).clamp(min=1e-3)).requires_grad_(True)
    shift = (-low * scale.detach()).requires_grad_(True)
    if len(members) > 1:
        optimizer = torch.optim.LBFGS(
            [scale, shift], max_iter=_NUM_ITERATIONS, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            cost = _disagreement(scale[:, :, None] * small + shift[:, :, None])
            cost.backward()
            return cost

        with torch.enable_grad():
            optimizer.step(closure)
    return scale.detach(), shift.detach()


def _disagreement(aligned: Tensor) -> Tensor:
    """Root mean square differences of pairs ``(M, B, n)`` and the median's distance from [0, 1]."""
    first, second = torch.triu_indices(len(aligned), len(aligned), 1, device=aligned.device)
    gaps = (aligned[first] - aligned[second]).square().mean(-1).clamp(min=1e-12).sqrt()
    middle = _median(aligned)
    ends = middle.amin(-1).abs() + (1 - middle.amax(-1)).abs()
    return (gaps.mean(0) + _RANGE_WEIGHT * ends).sum()


def _median(values: Tensor) -> Tensor:
    """Over the first axis; between the middle two where there are two."""
    ordered = values.sort(0).values
    count = len(values)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
