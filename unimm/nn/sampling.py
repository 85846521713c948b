"""Turning logits into tokens: temperature, top-k, top-p, guidance; shared by text and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

from unimm.nn.few_rows import overlap
from unimm.nn.kernel_blocks import next_power

MAX_SCALE = 1000  # of guidance: beyond it float32 logits lose what tells tokens apart
MAX_STEPS = 10_000
_MOST_LOGITS = 32_768  # what the registers of one program hold
_MOST_WARPS = 16  # of that program


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How tokens are drawn.

    Attributes:
        temperature: 0 is greedy; 1 is the model's own distribution.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens with this probability; 1 keeps all.
        guidance_scale: of classifier-free guidance away from the document without its text (Ho and
            Salimans, 2022); 1 is off. Text is not guided.
        image_guidance_scale: of guidance away from the document without its earlier pictures; 1 is
            off. Both scales together push along both directions.
        num_steps: evaluations of an objective that draws a picture in steps of its own choice; 0 is
            that objective's default.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance_scale: float = 1.0
    num_steps: int = 0
    image_guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        scale_rule = f"1 (off), or another scale from 0 to {MAX_SCALE}"
        checks = (
            (0 <= self.temperature < float("inf"), "temperature", "0 (greedy) or positive"),
            (self.top_k >= 0, "top_k", "0 (off) or a positive count"),
            (0 < self.top_p <= 1, "top_p", "in (0, 1]"),
            (0 <= self.guidance_scale <= MAX_SCALE, "guidance_scale", scale_rule),
            (0 <= self.image_guidance_scale <= MAX_SCALE, "image_guidance_scale", scale_rule),
            (
                0 <= self.num_steps <= MAX_STEPS,
                "num_steps",
                f"0 (the objective's default) or a count up to {MAX_STEPS}",
            ),
        )
        for is_good, name, rule in checks:
            if not is_good:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")

    @property
    def scales(self) -> tuple[float, ...]:
        """Scale of each guidance branch that is on: without text, without earlier pictures."""
        return tuple(s for s in (self.guidance_scale, self.image_guidance_scale) if s != 1)


def guide(outputs: Tensor, scales: Sequence[float]) -> Tensor:
    """Mix guidance branches: each pushes away from what the document is without something.

    One branch is classifier-free guidance, ``without + scale * (conditional - without)``; every
    further one adds its own push ``(scale - 1) * (conditional - without)`` (Liu et al., 2022,
    "Compositional visual generation", Eq. 11).

    Args:
        outputs: ``(G B, ...)``, the conditional branch first.
        scales: of the other branches; without any, ``G`` is 1.

    Returns:
        ``(B, ...)``.
    """
    if not scales:
        return outputs
    conditional, *without = outputs.chunk(1 + len(scales))
    mixed = without[0] + scales[0] * (conditional - without[0])
    for scale, branch in zip(scales[1:], without[1:], strict=True):
        mixed = mixed + (scale - 1) * (conditional - branch)
    return mixed


def filter_logits(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Apply temperature, then top-k, then top-p; dropped tokens get minus infinity.

    Args:
        logits: ``(B, V)`` float32.
        config: with a positive temperature.

    Returns:
        ``(B, V)``.
    """
    # The likeliest at 0: the coldest temperatures then cannot overflow.
    logits = (logits - logits.amax(-1, keepdim=True)) / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        threshold = logits.topk(config.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    if config.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(
            -1, order, before >= config.top_p
        )
        logits = logits.masked_fill(dropped, float("-inf"))
    return logits


def sample_from_logits(logits: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    One number a token from the document's own generator makes the draw, so the batch around a
    document changes nothing.

    Args:
        logits: ``(B, V)``.
        uniform: ``(B,)`` in [0, 1).
        config: how to draw.

    Returns:
        ``(B,)`` int64.
    """
    logits = logits.float()
    if config.temperature == 0:
        return logits.argmax(-1)
    tokens = None
    if 0 < config.top_k < logits.shape[-1]:
        # All that follows, top-p's sort included, then handles k logits instead of V.
        tokens = logits.topk(config.top_k, sorted=False).indices.sort(-1).values  # (B, k)
        logits = logits.gather(-1, tokens)
    cumulative = filter_logits(logits, config).softmax(-1).double().cumsum(-1)
    # Scaling by the total keeps a uniform near 1 inside the support despite rounding.
    target = uniform.double()[:, None] * cumulative[:, -1:]
    drawn = (cumulative <= target).sum(-1).clamp(max=logits.shape[-1] - 1)
    return drawn if tokens is None else tokens.gather(-1, drawn[:, None])[:, 0]


def draw_guided(
    logits: Tensor, uniform: Tensor, scales: Sequence[float], config: SamplingConfig
) -> Tensor:
    """``guide`` and ``sample_from_logits``; on a GPU in one kernel.

    The kernel keeps all tokens that are as likely as the last that top-k or top-p keeps; the
    library's sort keeps some of them. Otherwise both draw the same.

    Args:
        logits: ``(G B, V)`` of the head, the conditional branch first.
        uniform: ``(B,)`` in [0, 1).
        scales: of the other branches.
        config: how to draw.

    Returns:
        ``(B,)`` int64.
    """
    if not _can_draw(logits, scales, config):
        return sample_from_logits(guide(logits.float(), scales), uniform, config)
    return draw_by_kernel(logits, uniform, scales, config)


def draw_in_turn(
    logits: Tensor, at: Tensor, noise: Tensor, codes: Tensor, config: SamplingConfig
) -> Tensor:
    """``draw_guided`` for one of many tokens to be drawn in turn, which is kept in its place.

    Args:
        logits: as in ``draw_guided``.
        at: ``(1,)`` int64, which of them.
        noise: ``(B, n)`` in [0, 1), of all of them.
        codes: ``(B, n)`` int64; the token is written there.
        config: how to draw.

    Returns:
        ``(B,)`` int64.
    """
    if _can_draw(logits, config.scales, config):
        return draw_by_kernel(logits, noise, config.scales, config, at=at, kept=codes)
    uniform = noise.index_select(1, at)[:, 0]
    drawn = draw_guided(logits, uniform, config.scales, config)
    codes.index_copy_(1, at, drawn[:, None])
    return drawn


def _can_draw(logits: Tensor, scales: Sequence[float], config: SamplingConfig) -> bool:
    is_small = logits.shape[-1] <= _MOST_LOGITS and len(scales) <= 2
    return logits.is_cuda and has_triton_package() and config.temperature > 0 and is_small


def draw_by_kernel(
    logits: Tensor,
    noise: Tensor,
    scales: Sequence[float],
    config: SamplingConfig,
    *,
    at: Tensor | None = None,
    kept: Tensor | None = None,
) -> Tensor:
    """As ``draw_guided`` or ``draw_in_turn``; a positive temperature and at most two scales."""
    from unimm.nn import sampling_kernels

    size = logits.shape[-1]
    block = max(16, next_power(size))
    drawn = torch.empty(len(noise), dtype=torch.int64, device=logits.device)
    kept = drawn if kept is None else kept
    first, second = (*scales, 1.0, 1.0)[:2]
    kernels: Any = sampling_kernels
    kernels.draw_kernel[(len(noise),)](
        logits.contiguous(),
        noise,
        drawn if at is None else at,
        drawn,
        kept,
        len(noise),
        size,
        noise.stride(0),
        kept.stride(0),
        float(first),
        float(second),
        float(config.temperature),
        float(config.top_k),
        float(config.top_p),
        *_normal_end(config.top_k, size),
        branches=1 + len(scales),
        has_k=0 < config.top_k < size,
        has_p=config.top_p < 1,
        is_kept=at is not None,
        block=block,
        num_warps=max(1, min(_MOST_WARPS, block // 512)),
        **overlap(logits),
    )
    return drawn


def _normal_end(top_k: int, size: int) -> tuple[float, float]:
    """Where the ``top_k`` likeliest of so many normal logits end, and how far they lie apart there.

    In standard deviations, away from the likeliest.
    """
    if not 0 < top_k < size:
        return 0.0, 0.0
    normal = NormalDist()
    quantile = normal.inv_cdf(top_k / size)
    return quantile, 1 / (size * normal.pdf(quantile))
